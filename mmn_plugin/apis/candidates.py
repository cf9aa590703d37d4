"""Clips of a video that may hold what a sentence describes, for a model that reads them closely."""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.features import cut_clip
from mmn_plugin.files import OutputFolder, input_of
from mmn_plugin.structures import VideoEmbedding

from .video_input import is_entry, plain_video, positive_number, video_name


@dataclass(frozen=True)
class Candidate:
    """A moment of a video, and the clip around it.

    Attributes:
        sentence (str): What was looked for.
        clip (Path): The file of the clip.
        offset (float): Second of the video at which the clip begins.
        duration (float): Seconds of the clip.
        start, end (float): The moment, in seconds of the video.
        score (float): Of the moment: the localizer's, or where ``refined`` the callable's.
        refined (bool): Whether the moment is the callable's answer. Defaults to False.
        problem (str | None): Why the callable's answer was not taken. Defaults to None.
    """

    sentence: str
    clip: Path
    offset: float
    duration: float
    start: float
    end: float
    score: float
    refined: bool = False
    problem: str | None = None

    @classmethod
    def around(
        cls, sentence: str, clip: Path, moment: Sequence[float], score, pad: float, length: float
    ) -> 'Candidate':
        """The candidate of a moment, in a video of ``length`` seconds; its clip is not cut yet.

        The clip begins ``pad`` seconds before the moment and ends so long after it, as far as the
        video goes.
        """
        start, end = moment
        offset = max(start - pad, 0.0)
        seconds = min(end + pad, length) - offset
        return cls(sentence, Path(clip), offset, seconds, start, end, score)

    def cut(self, video: str | Path) -> None:
        """Write the clip, see `cut_clip`."""
        cut_clip(video, self.offset, self.offset + self.duration, self.clip)

    def refine(self, answer: Callable) -> 'Candidate':
        """Ask about the clip; the candidate with the answer, or as it is with the problem.

        Args:
            answer (Callable): As ``refine`` of `find_candidates`.
        """
        try:
            start, end, score = self._checked(answer(self.clip, self.sentence))
        except Exception as error:  # anything may fail in a callable, and the other clips remain
            known = isinstance(error, InputError)
            problem = str(error) if known else f'{type(error).__name__}: {error}'
            print_log(
                f'{self.clip}: the moment stays as it was found, not refined ({problem})',
                logger='current',
                level=logging.WARNING,
            )
            return replace(self, problem=problem)
        start, end = (self.offset + min(max(time, 0.0), self.duration) for time in (start, end))
        return replace(self, start=start, end=end, score=score, refined=True)

    def _checked(self, answer) -> list[float]:
        """Start, end and score of an answer, in seconds of the clip."""
        if answer is None:
            raise InputError('the answer is None: no such moment in the clip')
        if not isinstance(answer, list | tuple | np.ndarray | Tensor) or len(answer) != 3:
            raise InputError(f'the answer {answer!r} is not (start, end, score)')
        numbers = [one.item() if hasattr(one, 'item') else one for one in answer]
        for one in numbers:
            if isinstance(one, bool) or not isinstance(one, Real) or not math.isfinite(one):
                raise InputError(f'the answer {answer!r} is not three finite numbers')
        start, end, score = map(float, numbers)
        if start >= end:
            raise InputError(f'the answer {start:g} to {end:g} s ends before it starts')
        if end <= 0 or start >= self.duration:
            raise InputError(
                f'the answer {start:g} to {end:g} s is not in the clip of {self.duration:g} s'
            )
        if not 0 <= score <= 1:
            raise InputError(f'the score {score:g} of the answer is not between 0 and 1')
        return [start, end, score]


def find_candidates(
    inferencer,
    video: str | bytes | os.PathLike,
    sentence: str,
    n: int = 3,
    pad: float = 5.0,
    out_dir: str | Path | None = None,
    refine: Callable | None = None,
    encoded: VideoEmbedding | None = None,
    drop_absent: bool = False,
) -> list[Candidate]:
    """Cut the best moments of a sentence out of a video, and let a callable refine them.

    Args:
        inferencer (GroundingInferencer): Finds the moments.
        video (str | bytes | PathLike): A video file.
        sentence (str): What to look for.
        n (int): Candidates at most. Defaults to 3.
        pad (float): Seconds that a clip shows before and after its moment, where the video has
            them. Defaults to 5.
        out_dir (str | Path, optional): Folder for the clips, which are named after the video and
            their seconds. Defaults to None: a new folder for temporary files, to be deleted by the
            caller.
        refine (Callable, optional): ``refine(clip: Path, sentence: str) -> (start, end, score)``,
            in seconds of the clip and a score in [0, 1]; None where the clip has no such moment. An
            answer is clamped to the clip. One that is no span, or an exception, leaves that
            candidate as it was found, with its ``problem``. Defaults to None.
        encoded (VideoEmbedding, optional): Of ``GroundingInferencer.encode``, for further sentences
            about one video. Defaults to None: the video is encoded.
        drop_absent (bool): As of ``GroundingInferencer.ground``: no candidates for a sentence that
            probably is not in the video. Defaults to False.

    Returns:
        list[Candidate]: Best first; with ``refine`` refined ones by its score, before the others.

    Raises:
        VideoReadError: If the video cannot be read or cut.
        OutputError: If the clips cannot be written.
        ValueError: As of ``GroundingInferencer.ground``, or if ``video`` is no file.
    """
    video = plain_video(video)
    if not isinstance(video, str | Path) or is_entry(video):
        raise InputError(f'clips are cut out of a video file, not of {video!r:.60}')
    pad = checked_pad(n, pad)
    folder = OutputFolder(out_dir) if out_dir else None
    inferencer.check_sentences(sentence)  # before the video costs time
    encoded = encoded or inferencer.encode(video)
    (found,) = inferencer.ground(encoded, [sentence], n, drop_absent)
    moments = [
        (video, moment, score, encoded.duration)
        for moment, score in zip(found['moments'], found['scores'], strict=True)
    ]
    return cut_candidates(folder, sentence, moments, pad, refine)


def checked_pad(n: int, pad: float) -> float:
    """Seconds around a clip; fewer than 1 candidate, or seconds below 0, are refused."""
    if n < 1:
        raise InputError(f'n={n}; give 1 or more candidates')
    return pad and positive_number(pad, f'pad={pad!r}: give seconds of 0 or more')


def cut_candidates(
    folder: OutputFolder | None,
    sentence: str,
    moments: Sequence[tuple],
    pad: float,
    refine: Callable | None = None,
) -> list[Candidate]:
    """Cut the clips of a sentence's moments, and let a callable refine them.

    Args:
        folder (OutputFolder, optional): For the clips. None: a new one for temporary files, which
            there is only if there are clips.
        sentence (str): What was looked for.
        moments (Sequence[tuple]): Of each the video file, start and end, score, and the seconds of
            the video; best first.
        pad (float): As of `find_candidates`.
        refine (Callable, optional): Likewise.

    Returns:
        list[Candidate]: As of `find_candidates`.
    """
    if not moments:
        return []
    if folder is None:
        folder = OutputFolder(tempfile.mkdtemp(prefix='mmn_clips_'))
        try:
            return cut_candidates(folder, sentence, moments, pad, refine)
        except BaseException:  # nobody would know of it
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
    candidates, videos, files = [], [], {}
    for video, moment, score, length in moments:
        source = input_of(video)
        (name,) = folder.names_of([(source, video_name(video))])
        new = Candidate.around(sentence, folder.path, moment, score, pad, length)
        clip = f'{name}_{new.offset:.3f}-{new.offset + new.duration:.3f}.mp4'
        candidates.append(replace(new, clip=folder.path / clip))
        videos.append(video)
        files[clip] = source
    with folder.writing(files):
        for candidate, video in zip(candidates, videos, strict=True):
            candidate.cut(video)
    if refine is not None:
        candidates = [candidate.refine(refine) for candidate in candidates]
        candidates.sort(key=lambda one: (not one.refined, -one.score))  # stable: as found
    return candidates
