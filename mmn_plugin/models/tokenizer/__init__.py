"""Sentences to token ids."""

from .sentence_tokenizer import SentenceTokenizer

__all__ = ['SentenceTokenizer']
