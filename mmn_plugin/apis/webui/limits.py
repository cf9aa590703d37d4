"""How much a visitor may ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

from .page_error import PageError


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Args:
        megabytes (float): Size of an upload, in units of 2 ** 20 bytes. Defaults to 200.
        seconds (float): Length of an uploaded video. Defaults to 600.
        sentences (int): Sentences of a question. Defaults to 8.
        characters (int): Characters of a sentence. Defaults to 300.
        idle_seconds (float): An upload is deleted after so long without a question, even if its
            page is still open. Defaults to 1800.
        visitors (int): Visitors that can have a video at the same time. Defaults to 16.
        pixels (int): Pixels of a video's picture. Defaults to those of 4096 x 2304.
        work_seconds (float): Time that may be spent on reading a video. Defaults to 120.

    Raises:
        ValueError: If a limit is not above 0.
    """

    megabytes: float = 200
    seconds: float = 600
    sentences: int = 8
    characters: int = 300
    idle_seconds: float = 1800
    visitors: int = 16
    pixels: int = 4096 * 2304
    work_seconds: float = 120

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f'the limit {name}={value} must be above 0')

    @property
    def bytes(self) -> int:
        """Size of an upload."""
        return int(self.megabytes * 2**20)

    def check_video(self, size: int, seconds: float) -> None:
        """Refuse a video that is too large (bytes) or too long.

        Raises:
            PageError: If it is.
        """
        if size > self.bytes:
            raise PageError(
                f'The file has {size / 2**20:.1f} MB; at most {self.megabytes:g} MB are taken here.'
            )
        if seconds > self.seconds:
            raise PageError(
                f'The video is {_minutes(seconds)} long; at most '
                f'{_minutes(self.seconds)} are taken here.'
            )

    def split_sentences(self, text: str) -> list[str]:
        """The sentences of a text, one a line, each once.

        Raises:
            PageError: If there is none, there are too many, or one is too long.
        """
        sentences = list(dict.fromkeys(line for line in map(_tidy, text.splitlines()) if line))
        if not sentences:
            raise PageError('Type a sentence that says what to look for.')
        self._check_sentences(sentences)
        return sentences

    def _check_sentences(self, sentences: Sequence[str]) -> None:
        if len(sentences) > self.sentences:
            raise PageError(
                f'These are {len(sentences)} sentences; ask for at most {self.sentences} at a time.'
            )
        for sentence in sentences:
            if len(sentence) > self.characters:
                raise PageError(
                    f'The sentence “{sentence[:40]}…” has {len(sentence):,} '
                    f'characters; at most {self.characters} are taken.'
                )


def _tidy(line: str) -> str:
    return ' '.join(line.split())


def _minutes(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f'{whole} min {rest} s' if whole and rest else f'{whole} min' if whole else f'{rest} s'
