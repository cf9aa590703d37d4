"""The model behind the page."""
import threading
from collections.abc import Sequence

import torch

from mmn_plugin.apis.grounding_inferencer import GroundingInferencer
from mmn_plugin.datasets.features import VideoReadError
from mmn_plugin.visualization import GroundingVisualizer

from .answer import Answer
from .page_error import PageError
from .user_session import UserSession


class VideoGrounder:
    """Answers one visitor after the other; all that belongs to a visitor is in the session.

    Args:
        inferencer (GroundingInferencer): The model.
    """

    def __init__(self, inferencer: GroundingInferencer) -> None:
        self.inferencer = inferencer
        self._visualizer = GroundingVisualizer()
        self._lock = threading.Lock()  # a model and matplotlib are for one thread at a time

    def encode(self, session: UserSession) -> None:
        """Let the model see the video, unless it has.

        Raises:
            PageError: If the video cannot be decoded, or the model cannot take videos.
        """
        with session.lock, self._lock:
            if session.encoded is not None:
                return
            try:
                session.encoded = self.inferencer.encode(str(session.path), session.duration)
            except VideoReadError as error:
                raise PageError(f'“{session.name}” cannot be decoded to its end. '
                                'Try another file.') from error

    def ask(self, session: UserSession, sentences: Sequence[str]) -> list[Answer]:
        """Ground sentences.

        Raises:
            PageError: If the model does not know the words of a sentence, or as of `encode`.
        """
        self.encode(session)
        sentences = list(sentences)
        with self._lock:
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
            return [self._answer(session, *parts)
                    for parts in zip(results, curves, scores, strict=True)]

    def _answer(self, session: UserSession, result: dict, curve: torch.Tensor,
                scores: torch.Tensor) -> Answer:
        grid, encoded = self.inferencer.model.grid, session.encoded
        answer = Answer(result['sentence'], result['moments'], result['scores'],
                        result.get('present', True), session.truth.get(result['sentence']),
                        curve.numpy())
        # windows have no map in common
        if encoded.num_windows == 1 and self.inferencer.has_moment_map:
            answer.moment_map = self._visualizer.draw_moment_map(
                grid, scores, answer.truth, answer.moments, duration=session.duration,
                title=f'“{answer.sentence}”')
        return answer
