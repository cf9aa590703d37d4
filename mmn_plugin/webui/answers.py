"""Answers of the page."""

import base64
import io
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.video_input import VideoFeatures
from mmn_plugin.errors import MissingFileError
from mmn_plugin.evaluation.predictions import FORMAT, VERSION
from mmn_plugin.features import VIDEO_SUFFIXES, VideoLimitError, VideoReadError
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.canvas import (
    TRUTH,
    fade,
    format_time,
    tick_text,
    time_ticks,
    time_unit,
)

from .sessions import Limits, PageError, UserSession


@dataclass(frozen=True)
class ExampleVideo:
    """A video that the page offers, with its sentences.

    Attributes:
        name (str): What the visitor chooses by.
        path (Path): The file.
        truth (dict): Sentence -> true moment (start, end) in seconds.
    """

    name: str
    path: Path
    truth: dict

    @classmethod
    def read_folder(cls, folder: str | Path, count: int = 6, sentences: int = 8) -> list:
        """Read a folder of videos with their annotations.

        Args:
            folder (str | Path): With ``annotations.json`` in the published format, or a corpus'
                ``annotations/test.json``, and the videos, named by their ids, in the folder or in
                its ``videos/``.
            count (int): At most so many, in the order of the annotations. Defaults to 6.
            sentences (int): At most so many of each. Defaults to 8, as of `Limits`.

        Raises:
            MissingFileError: If there are no annotations, or none of the videos.
            AnnotationError: As of `read_annotations`.
        """
        folder = Path(folder)
        paths = [folder / 'annotations.json', folder / 'annotations' / 'test.json']
        annotations = next((path for path in paths if path.is_file()), None)
        if annotations is None:
            raise MissingFileError(
                f'{folder} has neither annotations.json nor {paths[1].name} in '
                'annotations/, which say what happens in the examples'
            )
        places = [place for place in (folder, folder / 'videos') if place.is_dir()]
        files = {
            path.stem: path
            for place in places
            for path in sorted(place.iterdir())
            if path.suffix.lower() in VIDEO_SUFFIXES
        }
        examples = [
            cls(
                video.video_id,
                files[video.video_id],
                dict(itertools.islice(zip(video.sentences, video.moments, strict=True), sentences)),
            )
            for video in read_annotations(annotations)
            if video.video_id in files
        ]
        if not examples:
            raise MissingFileError(f'{folder}: no video is named as one in {annotations}')
        return examples[:count]


@dataclass
class Answer:
    """A sentence with its moments and pictures.

    Attributes:
        sentence (str): The sentence.
        moments (list): [start, end] in seconds, best first.
        scores (list[float]): One per moment.
        present (bool): False if the model holds that this does not happen in the video.
        truth (tuple | None): True start and end, of an example.
        curve (np.ndarray | None): (K,), the score over time.
        moment_map (np.ndarray | None): (H, W, 3) uint8, the heat map.
    """

    sentence: str
    moments: list
    scores: list[float]
    present: bool = True
    truth: tuple | None = None
    curve: np.ndarray | None = None
    moment_map: np.ndarray | None = None

    def map_png(self) -> bytes:
        """The heat map as a PNG file's contents."""
        from matplotlib.image import imsave

        file = io.BytesIO()
        imsave(file, np.ascontiguousarray(self.moment_map), format='png')
        return file.getvalue()


COLORS = ('#0072B2', '#B34A00', '#00795A', '#A8467C', '#6A4C93', '#8A6D00', '#2E7D9A', '#444444')
TICKS = 6  # at most about so many on the axis, for a phone's width


def player_html(session: UserSession) -> str:
    """The player with the visitor's video."""
    return (
        f'<video id="mmn-video" controls playsinline preload="auto" tabindex="0" '
        f'aria-label="Video {escape(session.name)}" data-duration="{session.duration:.3f}" '
        f'src="gradio_api/file={escape(session.path.as_posix())}"></video>'
        f'<p class="mmn-caption"><strong>{escape(session.name)}</strong> '
        f'{_clock(session.duration, session.duration)}</p>'
        '<p class="mmn-unplayable" hidden role="status">This browser cannot play the file. '
        'The moments are found all the same.</p>'
    )


def error_html(message: str) -> str:
    """A message about what went wrong."""
    return f'<p class="mmn-error" role="alert">{escape(message)}</p>'


def note_html(message: str) -> str:
    """A message about what goes on."""
    return f'<p class="mmn-note" role="status">{escape(message)}</p>'


def answers_html(session: UserSession, answers: Sequence[Answer]) -> str:
    """All answers, in the order of the sentences, and the download."""
    top = max((float(a.curve.max()) for a in answers if a.curve is not None), default=0.0)
    parts = [
        _answer(session.duration, answer, COLORS[i % len(COLORS)], top)
        for i, answer in enumerate(answers)
    ]
    data = base64.b64encode(predictions_json(session, answers).encode()).decode()
    name = escape(Path(session.name).stem + '_moments.json')
    return (
        f'<div class="mmn-answers" role="region" aria-label="Moments found">{"".join(parts)}'
        f'<a class="mmn-download" download="{name}" '
        f'href="data:application/json;base64,{data}">Download as JSON</a></div>'
    )


def predictions_json(session: UserSession, answers: Sequence[Answer]) -> str:
    """The answers in the format of docs/predictions.md."""
    sentences = [
        dict(index=i, sentence=answer.sentence, moments=answer.moments, scores=answer.scores)
        for i, answer in enumerate(answers)
    ]
    video = dict(duration=session.duration, sentences=sentences)
    return json.dumps(
        dict(format=FORMAT, version=VERSION, videos={Path(session.name).stem: video}), indent=1
    )


def _answer(duration: float, answer: Answer, color: str, top: float) -> str:
    moments = zip(answer.moments, answer.scores, strict=True)
    lanes = ''.join(
        _moment(duration, rank, moment, score, fade(color, min(0.15 * (rank - 1), 0.6)))
        for rank, (moment, score) in enumerate(moments, 1)
    )
    if not answer.present or not lanes:
        lanes = ('<p class="mmn-absent">This does not seem to happen in the video.</p>') + lanes
    return (
        f'<section class="mmn-answer"><h3>“{escape(answer.sentence)}”</h3>'
        f'<div class="mmn-lanes">{_truth(duration, answer.truth)}{lanes}'
        f'{_curve(answer, color, top)}{_axis(duration)}</div>{_map(answer)}</section>'
    )


def _bar(duration: float, moment, color: str) -> str:
    start, end = (min(max(value / duration, 0), 1) * 100 for value in moment)
    return (
        f'<span class="mmn-track"><span class="mmn-bar" style="left:{start:.3f}%;'
        f'width:{end - start:.3f}%;background:{color}"></span></span>'
    )


def _lane(duration: float, moment, color: str, rank: str, label: str, score: str) -> str:
    start, end = moment
    times = f'{_clock(start, duration, False)} \N{EN DASH} {_clock(end, duration)}'
    return (
        f'<button type="button" class="mmn-moment" data-start="{start:.3f}" '
        f'data-end="{end:.3f}" aria-label="{label}: {times}{score and ", score " + score}. '
        f'Play it."><span class="mmn-rank">{rank}</span>{_bar(duration, moment, color)}'
        f'<span class="mmn-times">{times}</span><span class="mmn-score">{score}</span>'
        '</button>'
    )


def _moment(duration: float, rank: int, moment, score: float, color: str) -> str:
    return _lane(duration, moment, color, str(rank), f'Moment {rank}', f'{score:.2f}')


def _truth(duration: float, truth) -> str:
    if truth is None:
        return ''
    return _lane(duration, truth, TRUTH, 'truth', 'True moment', '')


def _curve(answer: Answer, color: str, top: float) -> str:
    """The score over time, on one scale for all sentences."""
    if answer.curve is None or top <= 0:
        return ''
    width = 100 / len(answer.curve)
    points = [
        f'{x:.2f},{30 - 28 * max(float(value), 0) / top:.2f}'
        for i, value in enumerate(answer.curve)
        for x in (i * width, (i + 1) * width)
    ]
    return (
        '<div class="mmn-lane"><span class="mmn-rank">score</span>'
        '<svg class="mmn-curve" viewBox="0 0 100 30" preserveAspectRatio="none" role="img" '
        f'aria-label="Score over time, at most {float(answer.curve.max()):.2f}">'
        f'<polygon points="0,30 {" ".join(points)} 100,30" fill="{color}" opacity="0.2"/>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" '
        'stroke-width="1.5" vector-effect="non-scaling-stroke"/></svg>'
        '<span class="mmn-times"></span><span class="mmn-score"></span></div>'
    )


def _axis(duration: float) -> str:
    ticks = ''.join(
        f'<span style="left:{100 * tick / duration:.3f}%">{tick_text(tick, duration)}</span>'
        for tick in time_ticks(duration, TICKS)
    )
    return (
        f'<div class="mmn-lane mmn-axis" aria-hidden="true"><span class="mmn-rank"></span>'
        f'<span class="mmn-ticks">{ticks}</span><span class="mmn-times">'
        f'{time_unit(duration)}</span><span class="mmn-score"></span></div>'
    )


def _map(answer: Answer) -> str:
    if answer.moment_map is None:
        return ''
    data = base64.b64encode(answer.map_png()).decode()
    return (
        '<details class="mmn-map"><summary>Moment map</summary>'
        f'<img src="data:image/png;base64,{data}" alt="Heat map of the scores of all moments, '
        f'start against end, for “{escape(answer.sentence)}”"></details>'
    )


def _clock(seconds: float, duration: float, unit: bool = True) -> str:
    return format_time(seconds, duration) + (' s' if unit and duration <= 120 else '')


class VideoGrounder:
    """Answers visitors in turn; all that belongs to a visitor is in the session.

    A video is read piece by piece, and after each piece whoever waits has a turn: nobody waits for
    another's whole video.

    Args:
        inferencer (GroundingInferencer): The model.
        limits (Limits, optional): Work on a video, size of its pictures. Defaults to None: as of
            the class.
    """

    def __init__(self, inferencer: GroundingInferencer, limits: Limits | None = None) -> None:
        self.inferencer, self.limits = inferencer, limits or Limits()
        self._visualizer = GroundingVisualizer()
        self.turns = Turns()  # a model and matplotlib are for one thread at a time

    def knows(self, example: ExampleVideo) -> bool:
        """Whether the model knows a word of each of an example's sentences."""
        encoded = self.inferencer.encode(str(example.path))
        try:
            self.inferencer.ground(encoded, list(example.truth))
        except ValueError:
            return False
        return True

    def encode(self, session: UserSession) -> None:
        """Let the model see the video, unless it has.

        Raises:
            PageError: If the video cannot be decoded, takes too long, or is deleted meanwhile.
        """
        with session.lock:
            if session.encoded is not None:
                return
            extractor = _PieceByPiece(self.inferencer.extractor, session, self.turns, self.limits)
            try:
                features = VideoFeatures.of(str(session.path), lambda: extractor, session.duration)
            except VideoLimitError as error:
                raise PageError(
                    f'“{session.name}” is too much for this page: {error.reason}. '
                    'Try a shorter or smaller one.'
                ) from error
            except VideoReadError as error:
                raise PageError(
                    f'“{session.name}” cannot be decoded to its end. Try another file.'
                ) from error
            with self.turns:
                encoded = self.inferencer.video_encoder([features])[0]
            session.encoded = None if session.deleted else encoded

    def ask(self, session: UserSession, sentences: Sequence[str]) -> list[Answer]:
        """Ground sentences.

        Raises:
            PageError: If the model does not know the words of a sentence, or as of `encode`.
        """
        self.encode(session)
        sentences = list(sentences)
        with self.turns:
            encoded = session.encoded
            if encoded is None:  # deleted meanwhile
                raise PageError('The video was deleted; choose it again.')
            try:
                results = self.inferencer.ground(encoded, sentences)
                curves = self.inferencer.curves(encoded, sentences)  # (s, K)
                scores = self.inferencer.score_moments(encoded, sentences)  # (s, P)
            except ValueError as error:
                message = str(error)
                raise PageError(message[:1].upper() + message[1:] + '.') from error
            return [
                self._answer(session, *parts) for parts in zip(results, curves, scores, strict=True)
            ]

    def _answer(
        self, session: UserSession, result: dict, curve: torch.Tensor, scores: torch.Tensor
    ) -> Answer:
        grid = self.inferencer.moment_map(session.encoded)  # windows have no map in common
        answer = Answer(
            result['sentence'],
            result['moments'],
            result['scores'],
            result.get('present', True),
            session.truth.get(result['sentence']),
            curve.numpy(),
        )
        if grid is not None:
            answer.moment_map = self._visualizer.draw_moment_map(
                grid,
                scores,
                answer.truth,
                answer.moments,
                duration=session.duration,
                title=f'“{answer.sentence}”',
            )
        return answer


class Turns:
    """A lock that is given in the order in which it was asked for.

    Attributes:
        waiting (deque): One event for each thread that waits.
    """

    def __init__(self) -> None:
        self.waiting: deque[threading.Event] = deque()
        self._lock, self._taken = threading.Lock(), False

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Event()
            self.waiting.append(turn)
        turn.wait()

    def __exit__(self, *_) -> None:
        with self._lock:
            if self.waiting:
                self.waiting.popleft().set()  # it stays taken
            else:
                self._taken = False


class _PieceByPiece:
    """An extractor that takes a turn for each block of features, and ends at the limits."""

    def __init__(self, extractor, session: UserSession, turns: Turns, limits: Limits) -> None:
        self.extractor, self.session, self.turns, self.limits = extractor, session, turns, limits
        self.stride, self.fps = extractor.stride, extractor.fps
        self._spent = self._begin = 0.0

    def __call__(self, path) -> np.ndarray:
        reader = self.extractor.reader(path)
        reader.max_pixels = self.limits.pixels
        blocks, found = self.extractor.blocks(self._watched(reader)), []
        while True:
            with self.turns:
                self._begin = time.monotonic()
                block = next(blocks, None)
                self._spent += time.monotonic() - self._begin
            if block is None:
                return np.concatenate(found)
            found.append(block)

    def _watched(self, reader: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames as long as there is time; waiting for others does not count."""
        for frame in reader:
            if self.session.deleted:
                raise PageError('The video was deleted; choose it again.')
            if self._spent + time.monotonic() - self._begin > self.limits.work_seconds:
                raise VideoLimitError(
                    reader.path, f'it takes longer than {self.limits.work_seconds:g} s to be read'
                )
            yield frame
