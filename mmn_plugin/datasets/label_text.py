"""What the words of a sentence tell of its moments; in English, other languages tell nothing."""

import re

from mmn_plugin.structures.annotations import normalized_text

_COUNT = (
    'two|three|four|five|six|seven|eight|nine|ten|[2-9]|[1-9][0-9]+|several|many|multiple|'
    'numerous|countless|few|couple|couple of|lots? of|different|various|random'
)
# "Keeps the ball" happens once, "keeps talking" goes on, and "back again" is a way back; what only
# goes on ("continues", "constantly", "back and forth") is true of one long moment.
_REPEATED = re.compile(
    r'\b(?:'
    r'(?<!never )(?<!back )again|once more|one more time|another time|'
    r'(?:second|third|fourth|fifth|2nd|3rd|4th|5th) time|'
    r'(?:twice|thrice)(?! as)|'
    rf'(?<!how )(?:{_COUNT})(?: more)? times(?! as| the\b)|'
    r'(?:each|every) time|'
    r'repeat(?:s|ed|ing|edly)?|repetitively|'
    r'over and over|time after time|from time to time|'
    r'ke(?:eps?|pt) (?:on )?(?!\w*thing\b)\w+ing|'
    r'occasionally|sometimes|periodically|intermittently|frequently|at times|now and then'
    r')\b'
)


def tells_repetition(sentence: str) -> bool:
    """Whether a sentence says that it is true of several moments: "again", "twice", "each time".

    The rules are conservative: of a hundred sentences that they do not find, one or two tell of
    several moments ("clips of people jumping", "raises and lowers the weight").
    """
    return _REPEATED.search(normalized_text(sentence)) is not None


# Words of one line mean the same; sentences are told apart by a line that only one of them has.
_TELLING = """
open opens opened opening
close closes closed closing shut shuts
on onto
off
up
down
in into inside
out outside
left
right
top
bottom
front
end ends
first 1st
second 2nd
third 3rd
fourth forth 4th
fifth 5th
sixth
seventh
eighth
ninth
tenth
last final finally
next
other another different
half halves
quarter quarters
remaining rest remainder
more
one
two both
three
four
five
small smaller
large larger big bigger
short
tall
slow
fast
boy boys
girl girls
man men
woman women lady ladies
red
blue
green
white
black
yellow
brown
pink
purple
gray grey
"""
_LINE_OF = {
    word: str(line) for line, words in enumerate(_TELLING.split('\n')) for word in words.split()
}


def _telling(sentence: str) -> set[str]:
    words = normalized_text(sentence).split()
    return {_LINE_OF.get(word, word) for word in words if word in _LINE_OF or word.isdecimal()}


def told_apart(one: str, other: str) -> bool:
    """Whether a word tells two sentences apart that vectors find alike.

    Vectors of "opens the door" and "closes the door", or of the first and the second kiwi, are
    nearly the same: one of the sentences then has an opposite, a number, a place or a color that
    the other lacks.
    """
    return _telling(one) != _telling(other)
