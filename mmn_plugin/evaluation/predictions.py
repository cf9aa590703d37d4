"""Ranked moments of a video beside its ground truth, and files of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json, write_atomically
from mmn_plugin.structures import windows_by_sentence
from mmn_plugin.structures.annotations import VideoAnnotation
from mmn_plugin.structures.json_lines import is_number


class PredictionsError(InputError):
    """A file of predictions that cannot be used; the message names file, video and sentence."""


FORMAT = 'mmn_plugin/predictions'
VERSION = 1
READINGS = 'times', 'absent', 'unread'  # what the answer of a language model says


def require(holds: object, message: str) -> None:
    """Refuse a file, with this message, unless something holds of it."""
    if not holds:
        raise PredictionsError(message)


@dataclass
class GroundingResult:
    """Ground truth and ranked moments of all sentences of one video, on the CPU.

    Attributes:
        video_id (str): The video.
        duration (float): Its length in seconds.
        sentence_index (list[int]): s places in the annotation file's list.
        sentences (list[str]): s sentences.
        windows (list[Tensor]): s true windows (W, 2) float32 seconds of each sentence; none of one
            that does not occur.
        moments (Tensor): (s, n, 2) float32 seconds, best first, NaN where fewer.
        scores (Tensor): (s, n) float32, NaN likewise.
        clips (list[list[dict]] | None): Per sentence the clips that were cut around its first
            moments: ``file``, ``offset`` (second of the video at which it begins), ``duration``.
            Defaults to None: none were.
        corpus (str | None): Name of the corpus that it is from, where the dataset has one.
        presence (Tensor): (s,) float32, how much speaks for each sentence occurring at all, NaN
            where the model does not say. Defaults to all NaN.
        readings (list[str | None]): What was read in the answer to each sentence, one of
            `READINGS`; None where there is none. Defaults to none at all.

    Raises:
        ValueError: If there is not one of each for every sentence.
    """

    video_id: str
    duration: float
    sentence_index: list[int]
    sentences: list[str]
    windows: list[Tensor]
    moments: Tensor
    scores: Tensor
    clips: list[list[dict]] | None = None
    corpus: str | None = None
    presence: Tensor | None = None
    readings: list[str | None] | None = None

    def __post_init__(self):
        num = len(self.sentences)
        self.presence = torch.full((num,), torch.nan) if self.presence is None else self.presence
        self.readings = [None] * num if self.readings is None else self.readings
        shapes = {
            'sentence_index': (len(self.sentence_index), num),
            'true windows': (len(self.windows), num),
            'presence': (tuple(self.presence.shape), (num,)),
            'readings': (len(self.readings), num),
            'moments': (tuple(self.moments.shape), (num, *self.moments.shape[1:2], 2)),
            'scores': (tuple(self.scores.shape), tuple(self.moments.shape[:2])),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise InputError(
                    f'video {self.video_id!r} has {num} sentences, but its {name} '
                    f'have the shape {got} instead of {wanted}'
                )

    @classmethod
    def from_data_sample(cls, sample: dict) -> 'GroundingResult':
        """Take what evaluation needs from a `GroundingDataSample` as a dict.

        Raises:
            ValueError: If there are no predictions, or not one for every sentence.
        """
        name = sample.get('video_id')
        if 'pred_instances' not in sample:
            raise InputError(
                f'video {name!r} reached the metric without pred_instances; run the model in '
                'mode="predict"'
            )
        if 'gt_instances' not in sample:
            raise InputError(
                f'video {name!r} reached the metric without the windows of its sentences '
                '(gt_instances), and there are no figures without them; annotations without '
                'timestamps can be answered with DumpPredictions alone'
            )
        windows = windows_by_sentence(sample['gt_instances'], len(sample['sentences']))
        found = sample['pred_instances']
        presence = found.get('presence')
        return cls(
            sample['video_id'],
            float(sample['duration']),
            [int(index) for index in sample['sentence_index']],
            list(sample['sentences']),
            list(map(_plain, windows)),
            _plain(found['moments']),
            _plain(found['scores']),
            corpus=sample.get('corpus'),
            presence=None if presence is None else _plain(presence),
        )

    def __getstate__(self) -> dict:
        """All leaves the process as a few arrays: a tensor, of which windows would be many, takes
        far longer than the numbers in it.
        """
        flat = torch.cat([torch.zeros(0, 2), *self.windows])
        state = self.__dict__ | dict(windows=flat, counts=list(map(len, self.windows)))
        return {key: state[key].numpy() if key in _TENSORS else state[key] for key in state}

    def __setstate__(self, state: dict) -> None:
        counts, state = state['counts'], {key: state[key] for key in state if key != 'counts'}
        state |= {key: torch.from_numpy(state[key]) for key in _TENSORS}
        self.__dict__ = state | {'windows': list(state['windows'].split(counts))}


_TENSORS = 'windows', 'moments', 'scores', 'presence'


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to('cpu', torch.float32)


def predictions_content(results: Sequence[GroundingResult]) -> dict:
    """What a file of predictions holds.

    Args:
        results (Sequence[GroundingResult]): Results; a video's sentences may come in several.

    Raises:
        PredictionsError: If a sentence comes twice.
    """
    videos: dict[str, dict] = {}
    for result in results:
        video = videos.setdefault(result.video_id, {'duration': result.duration, 'sentences': []})
        known = {sentence['index'] for sentence in video['sentences']}
        for row, index in enumerate(result.sentence_index):
            if index in known:
                raise PredictionsError(
                    f'video {result.video_id!r} has sentence {index} twice: a file of predictions '
                    'belongs to one annotation file; dump each dataset to a file of its own'
                )
            valid = ~result.moments[row].isnan().any(-1)  # (n,)
            sentence = {
                'index': index,
                'sentence': result.sentences[row],
                'moments': result.moments[row, valid].tolist(),
                'scores': result.scores[row, valid].tolist(),
            }
            presence = float(result.presence[row])
            if not math.isnan(presence):
                sentence['presence'] = presence
            if result.readings[row] is not None:
                sentence['reading'] = result.readings[row]
            if result.clips is not None:
                sentence['clips'] = result.clips[row]
            video['sentences'].append(sentence)
    return {'format': FORMAT, 'version': VERSION, 'videos': videos}


def write_predictions(path: str | Path, results: Sequence[GroundingResult]) -> None:
    """Write results as a file of predictions; a reader never sees half of it.

    Times and scores are float32 and written so that reading gives the same float32 again.

    Args:
        path (str | Path): File to write; its folder is made.
        results (Sequence[GroundingResult]): As of `predictions_content`.

    Raises:
        PredictionsError: If a sentence comes twice, or a moment or score is infinite.
    """
    content = predictions_content(results)
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise PredictionsError(
            f'{path}: not written, a moment or score is NaN or infinite; did the model diverge?'
        ) from error
    write_atomically(path, text)


def read_predictions(path: str | Path) -> dict[str, dict]:
    """Read and check a file of predictions.

    Args:
        path (str | Path): The file.

    Returns:
        dict[str, dict]: video id -> {``duration``, ``sentences``: {index: {``sentence``,
        ``moments``, perhaps ``scores``, ``presence``, ``reading``}}}.

    Raises:
        FileNotFoundError: If there is no such file.
        PredictionsError: If it is not a file of predictions, or holds NaN, a moment with
            start >= end, scores that rise down the list, or a sentence twice, or one that has
            moments though its answer says that it is absent.
    """
    path = Path(path)
    content = read_json(path, f'file of predictions {path} does not exist', PredictionsError)
    require(
        isinstance(content, dict) and content.get('format') == FORMAT,
        f'{path} is not a file of predictions: it lacks "format": "{FORMAT}" '
        '(see docs/predictions.md)',
    )
    version, videos = content.get('version'), content.get('videos')
    require(
        version == VERSION, f'{path} has version {version!r}; this release reads version {VERSION}'
    )
    require(isinstance(videos, dict) and videos, f'{path} has no "videos": {{video id: ...}}')
    return {name: _check_video(f'{path}: video {name!r}', video) for name, video in videos.items()}


def match_predictions(
    predictions: dict[str, dict], annotations: Sequence[VideoAnnotation], top_n: int
) -> list[GroundingResult]:
    """Put predictions beside the ground truth; what is not annotated is left out.

    Args:
        predictions (dict[str, dict]): From `read_predictions`.
        annotations (Sequence[VideoAnnotation]): From `read_annotations`.
        top_n (int): Ranks of the result; shorter lists are padded with NaN, longer ones cut.

    Returns:
        list[GroundingResult]: One per annotated video.

    Raises:
        PredictionsError: If an annotated video or sentence is missing, or a sentence or a duration
            differs from the annotated one.
    """
    missing = [video.video_id for video in annotations if video.video_id not in predictions]
    require(
        not missing,
        f'predictions lack {len(missing)} of the {len(annotations)} annotated videos, the '
        f'first {", ".join(missing[:1])!r}; do the two files belong together?',
    )
    return [_match_video(predictions[video.video_id], video, top_n) for video in annotations]


def _match_video(prediction: dict, video: VideoAnnotation, top_n: int) -> GroundingResult:
    where = f'video {video.video_id!r}'
    require(
        math.isclose(prediction['duration'], video.duration, rel_tol=0.01),
        f'{where} lasts {prediction["duration"]:g} s in the predictions but '
        f'{video.duration:g} s in the annotations',
    )
    num = len(video.sentences)
    moments, scores = torch.full((num, top_n, 2), torch.nan), torch.full((num, top_n), torch.nan)
    presence, readings = torch.full((num,), torch.nan), []
    asked = zip(video.sentence_index, video.sentences, strict=True)
    for row, (index, sentence) in enumerate(asked):
        predicted = _predicted(where, prediction, index, sentence)
        ranked = predicted['moments'][:top_n]
        if ranked:
            moments[row, : len(ranked)] = torch.tensor(ranked, dtype=torch.float32)
            given = predicted.get('scores', [torch.nan] * len(ranked))
            scores[row, : len(ranked)] = torch.tensor(given[:top_n], dtype=torch.float32)
        presence[row] = predicted.get('presence', torch.nan)
        readings.append(predicted.get('reading'))
    return GroundingResult(
        video.video_id,
        video.duration,
        video.sentence_index,
        video.sentences,
        [torch.tensor(own, dtype=torch.float32).reshape(-1, 2) for own in video.windows],
        moments,
        scores,
        presence=presence,
        readings=readings,
    )


def _predicted(where: str, prediction: dict, index: int, sentence: str) -> dict:
    """What is predicted for one sentence of a video."""
    predicted = prediction['sentences'].get(index)
    require(predicted, f'{where}: predictions lack sentence {index} ({sentence!r})')
    require(
        predicted['sentence'] == sentence,
        f'{where}: sentence {index} is {predicted["sentence"]!r} in the predictions but '
        f'{sentence!r} in the annotations; indices count all sentences of the annotation '
        'file, from 0',
    )
    return predicted


def _check_video(where: str, video: dict) -> dict:
    listed = isinstance(video, dict) and isinstance(video.get('sentences'), list)
    require(listed, f'{where} needs "duration" (seconds) and the list "sentences"')
    duration = video.get('duration')
    positive = is_number(duration) and duration > 0
    require(positive, f'{where} has duration={duration!r}; expected seconds above 0')
    sentences: dict[int, dict] = {}
    for place, sentence in enumerate(video['sentences']):
        entry = f'{where}, entry {place} of "sentences"'
        require(isinstance(sentence, dict), f'{entry} is not an object')
        index = sentence.get('index')
        require(
            isinstance(index, int) and not isinstance(index, bool) and index >= 0,
            f'{entry} has index={index!r}; expected its place in the annotation file, from 0',
        )
        require(index not in sentences, f'{where} has sentence {index} twice')
        _check_sentence(f'{where}, sentence {index}', sentence)
        sentences[index] = sentence
    return {'duration': duration, 'sentences': sentences}


def _check_sentence(where: str, sentence: dict) -> None:
    require(isinstance(sentence.get('sentence'), str), f'{where} needs its text as "sentence"')
    moments, scores = sentence.get('moments'), sentence.get('scores')
    listed = isinstance(moments, list)
    require(listed, f'{where} needs "moments": [[start, end], ...], best first')
    for moment in moments:
        require(
            isinstance(moment, list) and len(moment) == 2 and all(map(is_number, moment)),
            f'{where} has the moment {moment!r}; expected [start, end], two finite numbers of '
            'seconds',
        )
        require(
            moment[0] < moment[1],
            f'{where} has the moment {moment!r}, which is empty or ends before it starts',
        )
    if 'presence' in sentence:
        presence = sentence['presence']
        require(is_number(presence), f'{where} has presence={presence!r}; expected a finite number')
    reading = sentence.get('reading')
    require(
        reading in (None, *READINGS),
        f'{where} has reading={reading!r}; expected one of {", ".join(READINGS)}',
    )
    require(
        reading not in READINGS[1:] or not moments,
        f'{where} has moments and the reading {reading!r}, which is for sentences without',
    )
    if scores is None:
        return
    one_each = isinstance(scores, list) and len(scores) == len(moments)
    require(
        one_each and all(map(is_number, scores)),
        f'{where} has {len(moments)} moments and the scores {scores!r}; expected as many finite '
        'numbers',
    )
    falling = scores == sorted(scores, reverse=True)
    require(falling, f'{where}: scores rise down the list; moments go best first')
