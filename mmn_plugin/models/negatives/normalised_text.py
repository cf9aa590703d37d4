"""When two sentences are the same text."""

import re
import unicodedata

# Letters and digits with the marks that belong to them; everything else only separates words.
_WORD = re.compile(r'[^\W_]+')


def normalised_text(sentence: str) -> str:
    """The sentence's words, without case, punctuation and white space around them.

    ``'A person opens the  door.'`` and ``'a person opens the door'`` are the same text.
    """
    folded = unicodedata.normalize('NFKC', sentence).casefold()
    return ' '.join(_WORD.findall(folded))
