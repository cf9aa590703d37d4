"""Spatio-temporal grounding on Shapes: candidate tubes, their features, true tubes."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.features import VideoReader, probe_video

from ..features.parallel import run_parallel
from ..tubes import TubeVideo, write_tube_file
from ..tubes.tube_feature_extractor import TubeFeatureExtractor
from .candidate_tubes import CandidateTubes
from .corpus_error import CorpusError

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
        CorpusError: If the folder holds no complete corpus.
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
        parts = {split: self._annotations(split, limit) for split in splits}
        total, done, counts = sum(map(len, parts.values())), 0, {}
        for split, annotations in parts.items():
            advance = partial(_advance, progress, done, total)
            counts[split] = write_tube_file(
                Path(out) / f'{split}.h5',
                self._videos(annotations, workers, advance),
                seed=self.seed,
                corpus_seed=self.manifest['seed'],
                **self.extractor.settings,
            )
            done += len(annotations)
        return counts

    def _annotations(self, split: str, limit: int | None) -> list[tuple[str, dict]]:
        path = self.corpus / 'annotations' / f'{split}.json'
        return list(json.loads(path.read_text()).items())[:limit]

    def _videos(self, annotations, workers: int, advance) -> Iterator[TubeVideo]:
        for done, (_, video) in enumerate(run_parallel(self.video, annotations, workers), 1):
            yield video
            advance(done)

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


def _advance(progress, before: int, total: int, done: int) -> None:
    if progress:
        progress(before + done, total)
