"""The model behind the page."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from mmn_plugin.apis.grounding_inferencer import GroundingInferencer
from mmn_plugin.apis.video_features import VideoFeatures
from mmn_plugin.features import VideoLimitError, VideoReadError
from mmn_plugin.visualization import GroundingVisualizer

from .answer import Answer
from .limits import Limits
from .page_error import PageError
from .user_session import UserSession


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
                curves = self.inferencer.ranker.curves(encoded, sentences)  # (s, K)
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
        grid, encoded = self.inferencer.model.grid, session.encoded
        answer = Answer(
            result['sentence'],
            result['moments'],
            result['scores'],
            result.get('present', True),
            session.truth.get(result['sentence']),
            curve.numpy(),
        )
        # windows have no map in common
        if encoded.num_windows == 1 and self.inferencer.has_moment_map:
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
