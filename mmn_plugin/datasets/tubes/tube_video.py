"""Tubes, sentences and features of one video."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from mmn_plugin.features import VideoInfo

from .tube_error import TubeError

# What may be known of the video that tubes were made on -> share by which another one may differ.
SOURCE = dict(fps=0.02, num_frames=0.01, width=0.0, height=0.0)


@dataclass
class TubeVideo:
    """One video of a tube file.

    A tube is (n, 5) float32: frame, x1, y1, x2, y2; one row per frame that has a box, frames
    rising. A frame's number counts the video's pictures from 0, as `VideoInfo.times` does, whatever
    its rate; boxes are in pixels of an upright picture. Frames may be missing: such a frame has no
    box, and counts as none. Boxes may reach beyond the picture; they are taken as they are.

    Attributes:
        video_id (str): Name of the video.
        sentences (list[str]): s sentences, one in HC-STVG.
        ground_truth (list[np.ndarray]): Each sentence's true tube; empty where it is not known.
        tubes (list[np.ndarray]): T candidate tubes.
        features (dict[str, list[np.ndarray]]): Stream -> one (rows, D) float32 per tube. Streams
            may have different numbers of rows: each covers the whole tube.
        source (dict[str, float]): What is known of the video that the tubes were made on: some of
            ``fps``, ``num_frames``, ``width`` and ``height``. Defaults to nothing.
    """

    video_id: str
    sentences: list[str]
    ground_truth: list[np.ndarray] = field(default_factory=list)
    tubes: list[np.ndarray] = field(default_factory=list)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)
    source: dict[str, float] = field(default_factory=dict)

    @property
    def sentence_index(self) -> list[int]:
        """The sentences' places in the file."""
        return list(range(len(self.sentences)))

    def check(self, where: str) -> None:
        """Refuse what has no meaning.

        Args:
            where (str): File and video, for messages.

        Raises:
            TubeError: Naming the tube, and what is wrong with it.
        """
        if '/' in self.video_id or not self.video_id:
            raise TubeError(
                f'{where}: its id must be a name without "/", which HDF5 takes for a folder'
            )
        if not self.sentences:
            raise TubeError(f'{where} has no sentence; give it one or leave it out')
        for index, sentence in enumerate(self.sentences):
            if not isinstance(sentence, str) or not sentence.strip():
                raise TubeError(
                    f'{where}, sentence {index} is empty; write one or leave the video out'
                )
        if self.ground_truth and len(self.ground_truth) != len(self.sentences):
            raise TubeError(
                f'{where} has {len(self.sentences)} sentences but '
                f'{len(self.ground_truth)} true tubes; they belong together one to one'
            )
        for index, tube in enumerate(self.ground_truth):
            check_tube(tube, f'{where}, true tube of sentence {index}')
        for index, tube in enumerate(self.tubes):
            check_tube(tube, f'{where}, tube {index}')
        for stream, parts in self.features.items():
            self._check_stream(stream, parts, where)

    def check_video(self, path: str | Path, info: VideoInfo) -> None:
        """Refuse tubes that cannot have been made on a video; warn of tubes that look like it.

        Args:
            path (str | Path): The video, for messages.
            info (VideoInfo): What `probe_video` found in it.

        Raises:
            TubeError: If a box is in a frame after the last one, all boxes of a tube lie outside
                the pictures, or ``source`` says another number, rate or size of pictures.
        """
        count, sides = len(info.times), (info.width, info.height)
        found = dict(fps=info.rate, num_frames=count, width=sides[0], height=sides[1])
        for name, value in self.source.items():
            variable = name == 'fps' and 'variable frame rate' in info.notes
            least = 1 if name == 'num_frames' else 0
            if abs(found[name] - value) > max(least, SOURCE[name] * value) and not variable:
                raise TubeError(
                    f'{path}: its tubes were made on a video of {name} {value:g}, but '
                    f'it has {found[name]:g}; run the tracker on this very file'
                )
        for index, tube in enumerate(self.tubes):
            check_frames(tube, count, f'{path}, tube {index}')
            if not ((tube[:, 3:] >= 0) & (tube[:, 1:3] < sides)).all(1).any():
                raise TubeError(
                    f'{path}, tube {index}: all its boxes lie outside the pictures, '
                    f'which are {sides[0]} x {sides[1]} when upright; run the tracker '
                    'on this very file'
                )
        last = max((int(tube[-1, 0]) for tube in self.tubes), default=count)
        if last < count // 2 and not self.source.keys() & {'fps', 'num_frames'}:
            print_log(
                f'{path}: its tubes end at frame {last} of {count}; if they were made at '
                'another frame rate, they are taken for others than they are: frames count '
                'the pictures of the file (see docs/tubes.md)',
                'current',
                logging.WARNING,
            )

    def _check_stream(self, stream: str, parts: list[np.ndarray], where: str) -> None:
        if len(parts) != len(self.tubes):
            raise TubeError(
                f'{where}, stream {stream!r} has features of {len(parts)} tubes, but '
                f'there are {len(self.tubes)}; extract them from the same tubes'
            )
        for index, part in enumerate(parts):
            here = f'{where}, tube {index}, stream {stream!r}'
            if np.ndim(part) != 2 or 0 in np.shape(part):
                raise TubeError(
                    f'{here}: features of shape {np.shape(part)}; expected (rows, '
                    'size), with at least one row'
                )
            if np.shape(part)[1] != np.shape(parts[0])[1]:
                raise TubeError(
                    f'{here}: features of size {np.shape(part)[1]}, those of tube 0 '
                    f'have {np.shape(parts[0])[1]}; extract them with one network'
                )
            if not np.isfinite(part).all():
                raise TubeError(f'{here}: features hold NaN or infinity; extract them again')


def check_tube(tube: np.ndarray, where: str) -> None:
    """Refuse an array that is no tube.

    Args:
        tube (np.ndarray): (n, 5) expected.
        where (str): File, video and tube, for the message.

    Raises:
        TubeError: If the shape is another, there is no box, a number is not finite, a box has a
            negative side, or frames are below 0 or do not rise.
    """
    shape = np.shape(tube)
    if len(shape) != 2 or shape[1] != 5:
        raise TubeError(f'{where} has shape {shape}; expected (boxes, 5): frame, x1, y1, x2, y2')
    if not shape[0]:
        raise TubeError(f'{where} has no box; a tube needs at least one')
    if not np.isfinite(tube).all():
        raise TubeError(f'{where} holds NaN or infinity')
    bad = np.flatnonzero((tube[:, 3:] < tube[:, 1:3]).any(1))
    if len(bad):
        raise TubeError(
            f'{where}: box {bad[0]} is {tube[bad[0], 1:].tolist()}, which ends before '
            'it begins; expected x1, y1, x2, y2 (not width and height)'
        )
    frames = tube[:, 0]
    if (frames != np.round(frames)).any() or (np.diff(frames) <= 0).any():
        raise TubeError(
            f'{where}: its frames are not whole numbers that rise; sort the boxes and '
            'keep one per frame'
        )
    if frames[0] < 0:
        raise TubeError(f'{where} has a box in frame {frames[0]:g}; frames are counted from 0')


def check_frames(tube: np.ndarray, count: int, where: str) -> None:
    """Refuse a tube that is longer than its video.

    Args:
        tube (np.ndarray): (n, 5), frames rising.
        count (int): Pictures of the video.
        where (str): Video and tube, for the message.

    Raises:
        TubeError: If a box is in a frame after the last one.
    """
    if len(tube) and tube[-1, 0] >= count:
        raise TubeError(
            f'{where} has a box in frame {tube[-1, 0]:g}, but the video has {count} '
            f'pictures, 0 to {count - 1}; run the tracker on this very file'
        )
