"""Tubes of Shapes: candidates, a tracker, and the corpus of them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.datasets import TubeVideo, write_tube_file
from mmn_plugin.features import VideoReader, probe_video, run_parallel
from mmn_plugin.features.extractor import TRACKERS
from mmn_plugin.structures import box_iou

from .corpus import CorpusError, check_one_moment
from .features import HUES, SATURATION, TubeFeatureExtractor, shade


@dataclass
class CandidateTubes:
    """Makes imperfect tubes from those of all objects of a video.

    It knows where objects are, not what they look like, nor what happens, nor any sentence. Each
    object's tube may break in two, loses a few frames, and its boxes are off: by a shift and a
    scale of their own, which stay, and by a little of both that changes from frame to frame. Tubes
    that follow nothing are added, at least one, and as many as make ``min_tubes``.

    Args:
        size (int): Side of the frames in pixels.
        num_frames (int): Frames of the video.
        break_share (float): Share of the objects whose tube breaks. Defaults to 0.3.
        drop_share (float): Share of the frames without a box. Defaults to 0.03.
        shift (float): Standard deviation of the shift, in box sides. Defaults to 0.05.
        scale (float): Standard deviation of the logarithm of the scale. Defaults to 0.07.
        noise (float): Standard deviation of what changes. Defaults to 0.02.
        min_tubes (int): Least number of tubes. Defaults to 5.
    """

    size: int
    num_frames: int
    break_share: float = 0.3
    drop_share: float = 0.03
    shift: float = 0.05
    scale: float = 0.07
    noise: float = 0.02
    min_tubes: int = 5

    MIN_BOXES = 16  # of a fragment

    def make(self, rng: np.random.Generator, objects: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Make the candidates of a video.

        Args:
            rng (np.random.Generator): Source of randomness.
            objects (Sequence[np.ndarray]): (n, 5) frame, x1, y1, x2, y2 of every object.

        Returns:
            list[np.ndarray]: (n, 5) float32, in random order.
        """
        tubes = [self._disturb(rng, part) for tube in objects for part in self._break(rng, tube)]
        for _ in range(max(1, self.min_tubes - len(tubes))):
            tubes.append(self._nothing(rng))
        return [tubes[i] for i in rng.permutation(len(tubes))]

    def _break(self, rng, tube: np.ndarray) -> list[np.ndarray]:
        if rng.random() >= self.break_share or len(tube) < 2 * self.MIN_BOXES + 4:
            return [tube]
        cut = int(rng.integers(self.MIN_BOXES, len(tube) - self.MIN_BOXES - 3))
        return [tube[:cut], tube[cut + int(rng.integers(0, 4)) :]]

    def _disturb(self, rng, tube: np.ndarray) -> np.ndarray:
        keep = rng.random(len(tube)) >= self.drop_share
        keep[rng.integers(len(tube))] = True
        frames, boxes = tube[keep, :1], tube[keep, 1:].astype(np.float64)
        center, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
        off = rng.normal(0, self.shift, 2) + rng.normal(0, self.noise, center.shape)
        grown = np.exp(rng.normal(0, self.scale, 2) + rng.normal(0, self.noise, side.shape))
        center, half = center + off * side, (side * grown - 1) / 2
        boxes = np.concatenate([center - half, center + half], 1)
        return np.concatenate([frames, boxes], 1).astype(np.float32)

    def _nothing(self, rng) -> np.ndarray:
        """A box that wanders about for a while."""
        length = int(rng.integers(self.num_frames // 4, self.num_frames + 1))
        start = int(rng.integers(0, self.num_frames - length + 1))
        way = np.linspace(*rng.uniform(0.1, 0.9, (2, 2)), length) * self.size  # (n, 2)
        half = rng.uniform(0.08, 0.2, 2) * self.size
        frames = np.arange(start, start + length)[:, None]
        return np.concatenate([frames, way - half, way + half], 1).astype(np.float32)


@TRACKERS.register_module()
@dataclass
class ShapesTracker:
    """Finds tubes of colored things in frames: blobs of one hue, joined over time by overlap.

    Simple, and for Shapes alone: a thing is what is saturated and of one hue. It takes the place of
    a real detector and tracker, whose tubes `read_tracks` reads.

    Args:
        threshold (float): Saturation, in [0, 1], from which a pixel is colored. Defaults to 0.5.
        min_area (int): Pixels of the smallest blob. Defaults to 30.
        min_iou (float): Overlap with its last box for which a blob goes on with a tube. Defaults
            to 0.2.
        max_gap (int): Frames that a tube survives without a blob, as while a thing is dark.
            Defaults to 8.
        min_boxes (int): Boxes of the shortest tube. Defaults to 8.
    """

    threshold: float = 0.5
    min_area: int = 30
    min_iou: float = 0.2
    max_gap: int = 8
    min_boxes: int = 8

    def __call__(self, frames: np.ndarray) -> list[np.ndarray]:
        """Track.

        Args:
            frames (np.ndarray): (F, 3, H, W) uint8, YUV, as `VideoReader` gives them.

        Returns:
            list[np.ndarray]: (n, 5) float32 frame, x1, y1, x2, y2 each.
        """
        shades = shade(frames)
        hue = np.where(SATURATION[shades] >= self.threshold, HUES.argmax(1)[shades], -1)
        tubes: list[list[tuple]] = []
        owners: list[int] = []  # hue of each tube
        for time, picture in enumerate(hue):
            for color in np.unique(picture[picture >= 0]):
                self._extend(tubes, owners, time, int(color), self._blobs(picture == color))
        return [np.array(rows, np.float32) for rows in tubes if len(rows) >= self.min_boxes]

    def _blobs(self, mask: np.ndarray) -> np.ndarray:
        """Boxes (b, 4) of the connected pieces of a mask, the largest first."""
        import cv2

        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        stats = stats[1:][np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind='stable')]
        x, y, width, height, area = stats.T
        boxes = np.stack([x, y, x + width - 1, y + height - 1], 1)
        return boxes[area >= self.min_area]

    def _extend(self, tubes, owners, time: int, color: int, boxes: np.ndarray) -> None:
        """Give each blob to the tube of its hue that it overlaps most, or begin one."""
        waiting = [
            i
            for i, rows in enumerate(tubes)
            if owners[i] == color and rows[-1][0] < time and time - rows[-1][0] <= self.max_gap
        ]
        for box in boxes:
            overlap = [float(box_iou(np.array(tubes[i][-1][1:]), box)) for i in waiting]
            best = int(np.argmax(overlap)) if overlap else -1
            if best >= 0 and overlap[best] >= self.min_iou:
                tubes[waiting.pop(best)].append((time, *box.tolist()))
            else:
                tubes.append([(time, *box.tolist())])
                owners.append(color)


SPLITS = ('train', 'val', 'test')


class ShapesTubes:
    """Writes one tube file per split of a Shapes corpus.

    Candidates come from `CandidateTubes`, which sees boxes alone; features from
    `TubeFeatureExtractor`, which sees pixels alone. A sentence's true tube is its object's, in the
    frames of its moment. Boxes include both edges, so Shapes' exclusive ones lose a pixel.

    Args:
        corpus (str | Path): Folder of a complete corpus.
        seed (int): Same seed, same candidates. Defaults to 0.
        tracker (Callable, optional): Finds candidates in frames, such as `ShapesTracker`. Defaults
            to None: `CandidateTubes`.

    Raises:
        CorpusError: If the folder holds no complete corpus, or sentences of it have no moment or
            several ones.
    """

    def __init__(self, corpus: str | Path, seed: int = 0, tracker: Callable | None = None):
        self.corpus = Path(corpus)
        self.seed = seed
        self.tracker = tracker
        try:
            self.manifest = json.loads((self.corpus / 'manifest.json').read_text())
            complete = self.manifest['complete']
        except (OSError, ValueError, KeyError):
            complete = False
        if not complete:
            raise CorpusError(
                f'{self.corpus} holds no complete Shapes corpus; make it with '
                f'tools/data/make_shapes.py {self.corpus}'
            )
        check_one_moment(self.corpus, self.manifest)
        self.extractor = TubeFeatureExtractor(size=self.manifest['size'])
        frames = round(self.manifest['duration'] * self.manifest['fps'])
        self.candidates = CandidateTubes(self.manifest['size'], frames)

    def write(
        self,
        out: str | Path,
        splits=SPLITS,
        workers: int = 2,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, int]:
        """Write ``<split>.h5`` for each split.

        Args:
            out (str | Path): Folder.
            splits (Sequence[str]): Which. Defaults to all.
            workers (int): Processes. Defaults to 2.
            limit (int, optional): Videos of each split at most. Defaults to None: all.
            progress (Callable | None): Called with (videos done, videos in all).

        Returns:
            dict[str, int]: Number of videos of each split.
        """
        parts = {}
        for split in splits:
            path = self.corpus / 'annotations' / f'{split}.json'
            parts[split] = list(json.loads(path.read_text()).items())[:limit]
        total, done = sum(map(len, parts.values())), 0

        def made(annotations: list) -> Iterator[TubeVideo]:
            nonlocal done
            for _, video in run_parallel(self.video, annotations, workers):
                yield video
                done += 1
                if progress:
                    progress(done, total)

        return {
            split: write_tube_file(
                Path(out) / f'{split}.h5',
                made(annotations),
                seed=self.seed,
                corpus_seed=self.manifest['seed'],
                **self.extractor.settings,
            )
            for split, annotations in parts.items()
        }

    def video(self, job: tuple[str, dict]) -> TubeVideo:
        """One video, from its id and its entry in the annotations."""
        video_id, entry = job
        with h5py.File(self.corpus / 'tubes.h5') as file:
            group = file[video_id]
            objects = [group[name][()].astype(np.float32) for name in sorted(group, key=int)]
            owners = group.attrs['event_objects'].tolist()
        for tube in objects:
            tube[:, 3:] -= 1
        path = self.corpus / 'videos' / f'{video_id}.mp4'
        info = probe_video(path)
        frames = np.stack(list(VideoReader(path, None, self.manifest['size'], info.times)))
        if self.tracker:
            tubes = self.tracker(frames)
        else:
            rng = np.random.default_rng([self.seed, self.manifest['seed'], int(video_id[-5:])])
            # most objects' tubes have a box at every moment; one that never shows has none
            tubes = self.candidates.make(rng, [tube for tube in objects if len(tube)])
        truth = [
            self._span(objects[owner], moment)
            for owner, moment in zip(owners, entry['timestamps'], strict=True)
        ]
        return TubeVideo(
            video_id,
            entry['sentences'],
            truth,
            tubes,
            self.extractor(frames, tubes),
            dict(fps=info.rate, num_frames=len(info.times), width=info.width, height=info.height),
        )

    def _span(self, tube: np.ndarray, moment: list[float]) -> np.ndarray:
        first, last = (round(seconds * self.manifest['fps']) for seconds in moment)
        return tube[(tube[:, 0] >= first) & (tube[:, 0] < last)]
