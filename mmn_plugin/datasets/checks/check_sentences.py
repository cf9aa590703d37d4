"""Check sentences against the tokenizer and the language model."""

from collections.abc import Sequence
from typing import Any

from ...structures.annotations import LONE_SURROGATE
from ...structures.video_annotation import VideoAnnotation
from ..tubes import TubeVideo
from .check_report import CheckReport


def check_sentences(
    videos: Sequence[VideoAnnotation | TubeVideo],
    split: str,
    report: CheckReport,
    tokenizer: Any,
    max_tokens: int | None = None,
) -> None:
    """Check that the language model can take every sentence.

    Args:
        videos (Sequence[VideoAnnotation | TubeVideo]): Usable videos of a split.
        split (str): Its name in the report.
        report (CheckReport): Takes what is found.
        tokenizer (SentenceTokenizer): Tokenizer of the model.
        max_tokens (int, optional): Most tokens the language model takes. Defaults to None: only
            the tokenizer's own ``max_length`` counts.
    """
    longest = 0
    for video in videos:
        spoken = [
            (i, s)
            for i, s in zip(video.sentence_index, video.sentences, strict=True)
            # what is blank or broken is the annotations' fault and counted there
            if s.strip() and not LONE_SURROGATE.search(s)
        ]
        inspected = tokenizer.inspect([sentence for _, sentence in spoken])
        for (index, sentence), (length, problem) in zip(spoken, inspected, strict=True):
            where = f'video {video.video_id!r}, sentence {index} ({sentence!r})'
            longest = max(longest, length)
            if problem:
                report.add('error', split, 'sentence without a known word', f'{where} {problem}')
            _check_length(length, where, split, report, tokenizer.max_length, max_tokens)
    report.note(split, most_tokens=longest)


def _check_length(
    length: int,
    where: str,
    split: str,
    report: CheckReport,
    max_length: int | None,
    max_tokens: int | None,
) -> None:
    kept = length if max_length is None else min(length, max_length)
    if max_tokens is not None and kept > max_tokens:
        report.add(
            'error',
            split,
            "sentence over the language model's limit",
            f'{where}: {kept} tokens, limit {max_tokens}; shorten it, or set '
            f'model.data_preprocessor.tokenizer.max_length={max_tokens}',
        )
    elif kept < length:
        report.add(
            'warning',
            split,
            "sentence over the tokenizer's max_length: cut",
            f'{where}: {length} tokens, max_length {max_length}',
        )
