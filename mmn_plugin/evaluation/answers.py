"""Answers of language models as predictions, with checks of what they were made of."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmn_plugin.structures.annotations import VideoAnnotation, normalized_text
from mmn_plugin.structures.json_lines import read_json_lines

from .answer_text import AnswerReader, AnswerReading
from .predictions import FORMAT, VERSION, PredictionsError, require
from .recall import mean_iou, ranked_iou

_Span = tuple[float, float]


@dataclass
class ReadAnswer:
    """What was answered to one sentence, and read in it.

    Attributes:
        video_id (str): The video.
        duration (float): Its length in seconds.
        index (int): The sentence's place in the annotation file's list.
        sentence (str): As annotated.
        answer (str | None): The text; None where there is no answer.
        reading (AnswerReading): What was read, with spans as the answer has them.
    """

    video_id: str
    duration: float
    index: int
    sentence: str
    answer: str | None
    reading: AnswerReading

    @property
    def moments(self) -> list[_Span]:
        """Spans, cut where they go on after the end of the video; those outside of it stay."""
        return [
            (start, min(end, self.duration)) if start < self.duration else (start, end)
            for start, end in self.reading.spans
        ]


def read_answers(
    path: str | Path, annotations: Sequence[VideoAnnotation], reader: AnswerReader
) -> tuple[list[ReadAnswer], int]:
    """Read a file of answers: a line of JSON for each, with video_id, sentence and answer.

    Sentences are found by their words (`normalized_text`). Where a video has one several times, a
    single answer is for all of them; as many answers as there are belong to them in order.

    Args:
        path (str | Path): The file.
        annotations (Sequence[VideoAnnotation]): Of all sentences that may be asked.
        reader (AnswerReader): Reads the texts.

    Returns:
        tuple[list[ReadAnswer], int]: One for every annotated sentence, in order, also where there
        is no answer; and the number of answers about videos that are not annotated.

    Raises:
        FileNotFoundError: If there is no such file.
        PredictionsError: If a line is broken, no video is annotated, an annotated video has no such
            sentence, or a sentence is answered twice; the message has the line's number.
    """
    asked = {
        video.video_id: Counter(map(normalized_text, video.sentences)) for video in annotations
    }
    given, left_out = defaultdict(list), 0  # place and text of each sentence's answers
    for where, line in read_json_lines(path, PredictionsError):
        complete = isinstance(line, dict) and {'video_id', 'sentence', 'answer'} <= line.keys()
        named = complete and isinstance(line['video_id'], str) and isinstance(line['sentence'], str)
        require(named, f'{where} needs "video_id", "sentence" (texts) and "answer"')
        video_id, text, answer = line['video_id'], normalized_text(line['sentence']), line['answer']
        if video_id not in asked:
            left_out += 1
            continue
        require(
            text in asked[video_id],
            f'{where}: video {video_id!r} has no sentence {text!r}; sentences must be as '
            'annotated but for case and punctuation',
        )
        answer = answer if isinstance(answer, str) else json.dumps(answer)
        given[video_id, text].append((where, answer))
    require(given, f'{path} has no answer about a video of the annotations')
    answers = [
        answer
        for video in annotations
        for answer in _read_video(video, asked[video.video_id], given, reader)
    ]
    return answers, left_out


def _read_video(
    video: VideoAnnotation, asked: Counter[str], given: dict[tuple, list], reader: AnswerReader
) -> Iterator[ReadAnswer]:
    """Answers to the sentences of one video, which has each text ``asked`` so many times."""
    seen = Counter()
    for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
        text = normalized_text(sentence)
        own = given[video.video_id, text]
        if len(own) not in (0, 1, asked[text]):
            raise PredictionsError(
                f'{own[-1][0]}: sentence {sentence!r} of video {video.video_id!r} has '
                f'{len(own)} answers, and is annotated {asked[text]} times; one of them must go'
            )
        answer = own[min(seen[text], len(own) - 1)][1] if own else None
        seen[text] += 1
        reading = reader.read(answer or '', sentence, video.duration)
        yield ReadAnswer(video.video_id, video.duration, index, sentence, answer, reading)


def answers_content(answers: Sequence[ReadAnswer]) -> dict:
    """What a file of predictions holds, with a ``reading`` for each sentence.

    Of a sentence without an answer nothing was read: ``unread``, which is no rejection.
    """
    videos: dict[str, dict] = {}
    for one in answers:
        entry = dict(index=one.index, sentence=one.sentence, moments=[*map(list, one.moments)])
        entry['reading'] = one.reading.reading
        video = videos.setdefault(one.video_id, {'duration': one.duration, 'sentences': []})
        video['sentences'].append(entry)
    return {'format': FORMAT, 'version': VERSION, 'videos': videos}


def answer_counts(answers: Sequence[ReadAnswer]) -> dict[str, int]:
    """How many sentences have an answer, and what was read.

    Returns:
        dict[str, int]: ``num_sentences``; of these ``num_times``, ``num_absent``, ``num_unread``
        and ``num_missing`` (no answer); of the spans ``num_swapped`` (end first), ``num_clipped``
        (at the end of the video) and ``num_outside`` (after it).
    """
    readings = Counter(one.reading.reading for one in answers if one.answer is not None)
    spans = [(one.duration, *span) for one in answers for span in one.reading.spans]
    return {
        'num_sentences': len(answers),
        **{f'num_{name}': readings[name] for name in ('times', 'absent', 'unread')},
        'num_missing': sum(one.answer is None for one in answers),
        'num_swapped': sum(one.reading.num_swapped for one in answers),
        'num_clipped': sum(start < duration < end for duration, start, end in spans),
        'num_outside': sum(start >= duration for duration, start, _ in spans),
    }


_FEWEST = 10  # answers with times below which no check says anything


def answer_checks(
    answers: Sequence[ReadAnswer], truth: Sequence[Sequence[_Span]]
) -> tuple[dict[str, float], list[str]]:
    """Look for signs that answers come of something else than the video.

    The first span of each sentence that occurs is looked at, as it was read.

    Args:
        answers (Sequence[ReadAnswer]): S answers.
        truth (Sequence[Sequence[tuple[float, float]]]): S lists of true windows, in seconds.

    Returns:
        tuple[dict[str, float], list[str]]: Figures, and warnings with the number:

        - ``latest_end``: 99 % of the spans end by then (seconds); warned of where over 10 % of the
          true windows end later: frames were cut off, or the end of videos is never answered.
        - ``percent_multiples_of_5``: of starts and ends above 0; warned of above 50 % and twice
          the true windows' share: a habit.
        - ``clock_factor``: median of the ratio of the spans' centers to the true ones; warned of
          from 1.3 on, or below 1 / 1.3, where dividing by it raises mIoU by over 10 points: seconds
          of another clock. Of sentences with one true window; 1 where there are fewer than 10.
        - ``percent_most_common_span``: warned of above 30 % and three times the true windows'.
        - ``percent_videos_answered_alike``: of videos whose sentences have different moments, those
          with the same span for all; warned of above 50 %.

        No figures where there are fewer than 10 spans.
    """
    pairs = zip(answers, truth, strict=True)
    read = [(one, windows) for one, windows in pairs if one.reading.spans and windows]
    if len(read) < _FEWEST:
        return {}, []
    found, true = [one.reading.spans[0] for one, _ in read], [windows for _, windows in read]
    flat = [window for windows in true for window in windows]
    videos = [one.video_id for one, _ in read]
    checks = (
        _check_end(found, flat),
        _check_multiples(found, flat),
        _check_clock(found, true),
        _check_most_common(found, flat),
        _check_videos(videos, found, true),
    )
    figures = {name: value for name, value, *_ in checks}
    return figures, [warning for *_, doubtful, warning in checks if doubtful]


_Check = tuple[str, float, bool, str]  # name of a figure, its value, whether to warn, the warning


def _check_end(found: list[_Span], true: list[_Span]) -> _Check:
    latest = sorted(end for _, end in found)[math.ceil(0.99 * len(found)) - 1]
    later = 100 * sum(end > latest for _, end in true) / len(true)
    warning = (
        f'99% of the answers end within the first {latest:.1f} s, but {later:.1f}% of the true '
        'moments end later: was the model shown all of the videos?'
    )
    return 'latest_end', latest, later > 10, warning


def _check_multiples(found: list[_Span], true: list[_Span]) -> _Check:
    share, true_share = (
        100 * sum(time % 5 == 0 for time in times) / max(len(times), 1)
        for times in (
            [time for span in spans for time in span if time > 0] for spans in (found, true)
        )
    )
    warning = (
        f'{share:.1f}% of the answered times are multiples of 5 s, of the true ones '
        f'{true_share:.1f}%: a habit of the model, coarser than the truth'
    )
    return 'percent_multiples_of_5', share, share > max(50, 2 * true_share), warning


def _check_clock(found: list[_Span], true: list[Sequence[_Span]]) -> _Check:
    # Of several windows it is not known which one was meant.
    single = [(span, *own) for span, own in zip(found, true, strict=True) if len(own) == 1]
    if len(single) < _FEWEST:
        return 'clock_factor', 1.0, False, ''
    spans, moments = torch.tensor(single, dtype=torch.float64).unbind(1)
    factor = float((spans.sum(1) / moments.sum(1)).median())
    before, after = (
        100 * mean_iou(ranked_iou(times[:, None], moments)) for times in (spans, spans / factor)
    )
    doubtful = not 1 / 1.3 < factor < 1.3 and after > before + 10
    warning = (
        f'answered times are {factor:.3g} times the true ones (median); divided by it, mIoU '
        f'would be {after:.1f} instead of {before:.1f}: is their clock that of the video?'
    )
    return 'clock_factor', factor, doubtful, warning


def _check_most_common(found: list[_Span], true: list[_Span]) -> _Check:
    (span, count), (_, true_count) = (Counter(spans).most_common(1)[0] for spans in (found, true))
    share, true_share = 100 * count / len(found), 100 * true_count / len(true)
    warning = f'{share:.1f}% of the answers are the same span, {span[0]:g} to {span[1]:g} s'
    return 'percent_most_common_span', share, share > max(30, 3 * true_share), warning


def _check_videos(videos: list[str], found: list[_Span], true: list[Sequence[_Span]]) -> _Check:
    answered, occurring = defaultdict(set), defaultdict(set)
    for video, span, windows in zip(videos, found, true, strict=True):
        answered[video].add(span)
        occurring[video].add(tuple(windows))
    asked = [video for video, moments in occurring.items() if len(moments) > 1]
    share = 100 * sum(len(answered[video]) == 1 for video in asked) / max(len(asked), 1)
    warning = (
        f'{share:.1f}% of the {len(asked)} videos have the same answer for all their sentences, '
        'whose true moments differ: does the model read the sentence?'
    )
    return 'percent_videos_answered_alike', share, share > 50, warning
