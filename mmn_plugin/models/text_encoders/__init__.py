"""Text encoders."""
from .sentence_encoder import SentenceEncoder, token_limit

__all__ = ['SentenceEncoder', 'token_limit']
