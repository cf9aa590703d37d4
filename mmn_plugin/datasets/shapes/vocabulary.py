"""A WordPiece vocabulary from sentences."""

import re
from collections import Counter
from collections.abc import Iterable

SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')

CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'


def build_vocabulary(sentences: Iterable[str]) -> list[str]:
    """List the tokens that a BERT-like tokenizer needs for these sentences.

    Args:
        sentences (Iterable[str]): Of the training split.

    Returns:
        list[str]: Special tokens, the words by falling frequency (then alphabetically), and single
        characters, alone and as continuations (``##x``), so that a new word falls apart into
        characters instead of becoming [UNK]. Line i of ``vocab.txt`` is token i.
    """
    counts = Counter(
        word for sentence in sentences for word in re.findall(r'\w+|[^\w\s]', sentence.lower())
    )
    words = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = [*CHARACTERS, *(f'##{character}' for character in CHARACTERS)]
    return list(dict.fromkeys([*SPECIAL_TOKENS, *words, *pieces]))
