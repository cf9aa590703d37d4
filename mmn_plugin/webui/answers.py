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
from jinja2 import Environment, PackageLoader

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.video_input import VideoFeatures
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.evaluation.predictions import FORMAT, VERSION
from mmn_plugin.features import VIDEO_SUFFIXES, VideoLimitError, VideoReadError
from mmn_plugin.structures.annotations import VideoAnnotation, read_annotations
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
        truth (dict): Sentence -> its true windows (start, end) in seconds; none of a sentence that
            does not occur.
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
                f'{folder} has neither annotations.json nor annotations/test.json, which say what '
                'happens in the examples'
            )
        files = {
            path.stem: path
            for path in sorted([*folder.glob('*'), *folder.glob('videos/*')])
            if path.suffix.lower() in VIDEO_SUFFIXES
        }
        examples = [
            cls(
                video.video_id,
                files[video.video_id],
                _truth(video, sentences),
            )
            for video in read_annotations(annotations)
            if video.video_id in files
        ]
        if not examples:
            raise MissingFileError(f'{folder}: no video is named as one in {annotations}')
        return examples[:count]


def _truth(video: VideoAnnotation, count: int) -> dict[str, list]:
    """Windows of the first sentences; of one that is annotated several times all of them."""
    truth: dict[str, list] = {}
    known = zip(video.sentences, video.windows, strict=True)
    for sentence, windows in itertools.islice(known, count):
        own = truth.setdefault(sentence, [])
        own += [window for window in windows if window not in own]
    return truth


@dataclass
class Answer:
    """A sentence with its moments and pictures.

    Attributes:
        sentence (str): The sentence.
        moments (list): [start, end] in seconds, best first.
        scores (list[float]): One per moment.
        present (bool): False if the model holds that this does not happen in the video.
        truth (list | None): True windows (start, end), of an example; None where unknown.
        curve (np.ndarray | None): (K,), the score over time.
        moment_map (np.ndarray | None): (H, W, 3) uint8, the heat map.
    """

    sentence: str
    moments: list
    scores: list[float]
    present: bool = True
    truth: list | None = None
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


def _clock(seconds: float, duration: float, unit: bool = True) -> str:
    return format_time(seconds, duration) + (' s' if unit and duration <= 120 else '')


def _curve_points(curve: np.ndarray, top: float) -> str:
    """Steps of the score over time in a drawing of 100 x 30, on one scale for all sentences."""
    edges = np.linspace(0, 100, len(curve) + 1).repeat(2)[1:-1]
    heights = 30 - 28 * curve.clip(min=0).repeat(2) / top
    return ' '.join(f'{x:.2f},{y:.2f}' for x, y in zip(edges, heights, strict=True))


_PAGES = Environment(
    loader=PackageLoader('mmn_plugin.webui', 'static'),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters['base64'] = lambda content: base64.b64encode(content).decode()
_PAGES.globals.update(
    clock=_clock,
    colors=COLORS,
    curve_points=_curve_points,
    fade=fade,
    tick_text=tick_text,
    truth_color=TRUTH,
)


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
    duration = session.duration
    return _PAGES.get_template('answers.html').render(
        answers=answers,
        duration=duration,
        share=lambda seconds: 100 * min(max(seconds / duration, 0), 1),
        top=max((float(one.curve.max()) for one in answers if one.curve is not None), default=0.0),
        ticks=time_ticks(duration, TICKS),
        unit=time_unit(duration),
        file=f'{Path(session.name).stem}_moments.json',
        json=predictions_json(session, answers).encode(),
    )


def predictions_json(session: UserSession, answers: Sequence[Answer]) -> str:
    """The answers in the format of docs/predictions.md; no moments of what is not present."""
    sentences = [
        dict(
            index=i,
            sentence=answer.sentence,
            moments=answer.moments if answer.present else [],
            scores=answer.scores if answer.present else [],
        )
        for i, answer in enumerate(answers)
    ]
    videos = {Path(session.name).stem: dict(duration=session.duration, sentences=sentences)}
    return json.dumps(dict(format=FORMAT, version=VERSION, videos=videos), indent=1)


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

    def check_sentences(self, sentences: Sequence[str]) -> list[str]:
        """The sentences as a list.

        Raises:
            PageError: If the model does not know the words of one.
        """
        try:
            return self.inferencer.check_sentences(sentences)
        except InputError as error:
            message = str(error)
            raise PageError(f'{message[:1].upper()}{message[1:]}.') from error

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
            PageError: As of `check_sentences` and `encode`.
        """
        self.encode(session)
        with self.turns:
            sentences, encoded = self.check_sentences(sentences), session.encoded
            if encoded is None:  # deleted meanwhile
                raise PageError('The video was deleted; choose it again.')
            sample = self.inferencer.predict(encoded, sentences, whole=True)
            found, results = sample.pred_instances, self.inferencer.result_dicts(sample)
            answers = [
                Answer(
                    result['sentence'],
                    result['moments'],
                    result['scores'],
                    result.get('present', True),
                    session.truth.get(result['sentence']),
                    curve.numpy(),
                )
                for result, curve in zip(results, found.curves, strict=True)
            ]
            grid = self.inferencer.moment_map(encoded)  # windows have no map in common
            for answer, scores in zip(answers, found.unit_scores, strict=True) if grid else ():
                answer.moment_map = self._visualizer.draw_moment_map(
                    grid,
                    scores,
                    answer.truth,
                    answer.moments,
                    duration=session.duration,
                    title=f'“{answer.sentence}”',
                )
            return answers


class Turns:
    """A lock that is given in the order in which it was asked for.

    Attributes:
        waiting (deque): The threads that wait, behind the one whose turn it is.
    """

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self.waiting.append(me)
            self._changed.wait_for(lambda: self.waiting[0] == me)

    def __exit__(self, *_) -> None:
        with self._changed:
            self.waiting.popleft()
            self._changed.notify_all()


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
