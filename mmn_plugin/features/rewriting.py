"""Sentences rewritten by a callable of the user's before a model sees them."""

from collections.abc import Callable
from functools import lru_cache

from mmn_plugin.errors import InputError

KEPT = 1 << 16  # sentences of which the answer is kept: those of a corpus


class Rewriter:
    """Makes another sentence of each by a callable, which is asked once for a sentence.

    Args:
        function (Callable): ``function(sentence: str) -> str``, such as a user's own LLM that makes
            statements of questions.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        self._function = function
        self._kept = lru_cache(KEPT)(self._ask)

    def __reduce__(self) -> tuple:
        return type(self), (self._function,)

    def __call__(self, sentence: str) -> str:
        """The sentence rewritten.

        Raises:
            ValueError: If the callable fails, or its answer is no text, or an empty one; it names
                the sentence.
        """
        return self._kept(sentence)

    def _ask(self, sentence: str) -> str:
        try:
            found = self._function(sentence)
        except Exception as error:  # anything may fail in a callable
            raise InputError(
                f'the sentence {sentence!r} could not be rewritten ({type(error).__name__}: '
                f'{error}): mend rewrite, or leave it out'
            ) from error
        if not isinstance(found, str) or not found.strip():
            what = 'is empty' if isinstance(found, str) else 'is no text (str)'
            raise InputError(
                f'the sentence {sentence!r}, rewritten as {found!r}, {what}: mend rewrite, or '
                'leave it out'
            )
        return found


def problem_of(sentence: str, rewritten: str, problem: str | None) -> str | None:
    """A problem of a rewritten sentence as one of the sentence itself; None where there is none."""
    if problem is None or rewritten == sentence:
        return problem
    return f'was rewritten as {rewritten!r}, which {problem}'
