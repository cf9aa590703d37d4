"""Text encoders."""

from .sentence_encoder import SentenceEncoder

__all__ = ['SentenceEncoder']
