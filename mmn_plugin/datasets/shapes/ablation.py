"""Sentences robbed of words: what the corpus can be solved with."""

from collections.abc import Collection

from .lexicon import word_classes

# Stands for a sentence of which nothing is left; the tokenizer refuses empty ones.
BLANK_SENTENCE = 'something'

WORD_CLASSES = ('colour', 'shape', 'action')

_CLASS_OF = word_classes()


def mask_sentence(sentence: str, keep: str | Collection[str] = ()) -> str:
    """Keep only the words that tell certain attributes, in their order.

    Args:
        sentence (str): A sentence of the grammar.
        keep (str | Collection[str]): One or more of ``'colour'``, ``'shape'``, ``'action'``.
            Default: none, which makes every sentence the same.

    Returns:
        str: The remaining words, or ``BLANK_SENTENCE`` if none remain.

    Raises:
        ValueError: If ``keep`` names something else.
    """
    keep = {keep} if isinstance(keep, str) else set(keep)
    if unknown := keep - set(WORD_CLASSES):
        raise ValueError(f'keep={sorted(unknown)}: words can be kept by {WORD_CLASSES}')
    words = [word for word in sentence.split() if _CLASS_OF.get(word) in keep]
    return ' '.join(words) or BLANK_SENTENCE


def mask_annotations(annotations: dict, keep: str | Collection[str] = ()) -> dict:
    """The same for every sentence of an annotation file's content; moments stay.

    Args:
        annotations (dict): Video id -> entry in the published format.
        keep (str | Collection[str]): As for :func:`mask_sentence`.

    Returns:
        dict: A new dict of the same format.
    """
    return {
        video: {**entry, 'sentences': [mask_sentence(s, keep) for s in entry['sentences']]}
        for video, entry in annotations.items()
    }
