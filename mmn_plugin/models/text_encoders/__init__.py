"""Text encoders."""

from .sentence_encoder import SentenceEncoder
from .tokenizer import SentenceTokenizer

__all__ = ['SentenceEncoder', 'SentenceTokenizer']
