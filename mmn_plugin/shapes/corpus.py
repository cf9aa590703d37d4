"""The corpus on disk: rendered videos and annotations."""

import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.errors import InputError
from mmn_plugin.features import VideoWriter, run_parallel
from mmn_plugin.files import read_json, replacing, write_atomically, write_json

from .scene import (
    COLORS,
    DURATION,
    FPS,
    Event,
    Scene,
    SceneObject,
    SceneSampler,
    held_out_combinations,
)
from .sentences import BLANK_SENTENCE, WORD_CLASSES, build_vocabulary, mask_sentence
from .windows import ABSENCES, OCCURRENCES, WindowsSampler


class CorpusError(InputError):
    """The corpus cannot be made as asked; the message says why and what to do."""


def write_video(path: str | Path, frames: np.ndarray, fps: int) -> None:
    """Encode frames as H.264; the file appears under its name only when it is complete.

    Args:
        path (str | Path): The .mp4 to write.
        frames (np.ndarray): (F, 3 * size / 2, size) uint8, planar YUV 4:2:0.
        fps (int): Frames per second.
    """
    # Tiny frames: more threads than one only cost, and effort saves a few kilobytes.
    with VideoWriter(path, fps, threads=1, preset='ultrafast', crf='16', g='48') as video:
        for picture in frames:
            video.add(picture, pixels='yuv420p')


class SceneRenderer:
    """Draws scenes straight into the planes that a video encoder takes.

    Args:
        size (int): Side of the frame in pixels, even. Default: 96.
    """

    def __init__(self, size: int = 96) -> None:
        self.size = size

    def render(self, scene: Scene) -> np.ndarray:
        """Draw all frames of a scene.

        Args:
            scene (Scene): What to draw.

        Returns:
            np.ndarray: (F, 3 * size / 2, size) uint8; each frame in planar YUV 4:2:0, limited
            range: luma, then the two chroma planes at half the resolution.
        """
        num_frames, size = len(scene.objects[0].x), self.size
        shade = np.linspace(*scene.background, size, dtype=np.float32) * (219 / 255) + 16
        luma = np.empty((num_frames, size, size), np.float32)
        luma[:] = shade[:, None]
        chroma = np.full((2, num_frames, size // 2, size // 2), 128, np.float32)
        for item in scene.objects:
            self._draw(item, luma, chroma)
        planes = [
            np.rint(plane).astype(np.uint8).reshape(num_frames, -1) for plane in (luma, *chroma)
        ]
        return np.concatenate(planes, 1).reshape(num_frames, size * 3 // 2, size)

    def _draw(self, item: SceneObject, luma: np.ndarray, chroma: np.ndarray) -> None:
        frames = np.flatnonzero(item.present & item.lit)  # (n,)
        if len(frames) == 0:
            return
        x, y, radius = (
            value[frames].astype(np.float32) * self.size for value in (item.x, item.y, item.radius)
        )
        # A patch holds the largest outline; even corners, so that it covers whole chroma pixels.
        patch = min(2 * int(np.ceil(1.28 * radius.max() + 2)), self.size)
        left, top = (
            2 * (((v - patch / 2) / 2).astype(int).clip(0, (self.size - patch) // 2))
            for v in (x, y)
        )
        grid = np.arange(patch, dtype=np.float32) + 0.5
        dx = (grid + left[:, None] - x[:, None]) / radius[:, None]  # (n, p), in radii
        dy = (grid + top[:, None] - y[:, None]) / radius[:, None]  # (n, p)
        outside = _distance(item.shape, dx[:, None, :], dy[:, :, None])  # (n, p, p)
        cover = (0.5 - outside * radius[:, None, None]).clip(0, 1)
        brightness, *tones = _yuv(np.clip(np.add(COLORS[item.color], item.tint), 0, 255))
        _blend(luma, frames, top, left, cover, brightness)
        rows = cover[:, ::2] + cover[:, 1::2]
        coarse = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4  # (n, p / 2, p / 2)
        for plane, tone in zip(chroma, tones, strict=True):
            _blend(plane, frames, top // 2, left // 2, coarse, tone)


def _blend(plane: np.ndarray, frames, top, left, cover: np.ndarray, value: float) -> None:
    """Lay a color over a patch of each frame; a loop of slices beats one fancy index here."""
    patch = cover.shape[1]
    drop, keep = cover * np.float32(value), 1 - cover
    for i, (frame, y, x) in enumerate(
        zip(frames.tolist(), top.tolist(), left.tolist(), strict=True)
    ):
        window = plane[frame, y : y + patch, x : x + patch]
        window *= keep[i]
        window += drop[i]


def _distance(shape: str, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Signed distance to the outline (y points down), good to a pixel's width around it."""
    if shape == 'circle':
        return np.sqrt(dx * dx + dy * dy) - 0.95
    across, down = np.abs(dx), np.abs(dy)
    if shape == 'square':
        return np.maximum(across, down) - 0.85
    if shape == 'diamond':
        return (across + down) * 0.7071 - 0.8
    if shape == 'triangle':
        return np.maximum(dy, 0.866 * across - 0.5 * dy) - 0.63
    return np.minimum(np.maximum(across - 1, down - 0.34), np.maximum(across - 0.34, down - 1))


def _yuv(rgb) -> tuple[float, float, float]:
    """ITU-R BT.601, limited range."""
    red, green, blue = (value / 255 for value in rgb)
    return (
        16 + 65.481 * red + 128.553 * green + 24.966 * blue,
        128 - 37.797 * red - 74.203 * green + 112 * blue,
        128 + 112 * red - 93.786 * green - 18.214 * blue,
    )


FORMAT, VERSION = 'mmn_plugin/shapes', 1


class ShapesCorpus:
    """Writes the corpus into a folder, or goes on where an earlier run stopped.

    The folder then holds

    - ``videos/<id>.mp4``;
    - ``annotations/{train,val,test}.json`` in the published format, ``test_unseen.json`` with only
      those sentences of test whose combination training never showed, and ``test_subsets.json``
      with the places of ``seen`` and ``unseen`` ones (name -> video -> indices, the form that the
      metric's ``subsets`` takes);
    - ``ablations/{blank,color,shape,action}/{train,val,test}.json``: all other words removed;
    - ``tubes.h5``: ``<id>/<object>`` (n, 5) int16 frame, x1, y1, x2, y2, with attributes ``color``
      and ``shape``; ``<id>`` has the attribute ``event_objects``, each sentence's object;
    - ``vocab.txt`` of the training sentences, and ``manifest.json``.

    With ``absent_and_repeated`` sentences are true of no moment, of one or of two, as
    `WindowsSampler` draws them. Then ``test_subsets.json`` has, of the sentences that are true of a
    moment, also the subsets ``once`` and ``twice``; ``test_absent.json`` has the places of the
    others by what they are about; ``event_objects`` has the object of each event, in order of their
    start; and there is no ``test_unseen.json`` and no ablation, since a sentence that is not true
    may become so where words are removed.

    Args:
        folder (str | Path): Where to write.
        num_videos (int): Over all splits, at least 10. Default: 1500.
        seed (int): Same seed, same annotations to the byte. Default: 0.
        size (int): Side of the frames in pixels, even. Default: 96.
        absent_and_repeated (bool): Whether some events happen twice, and some sentences are about
            what does not happen in their video. Default: False.

    Raises:
        CorpusError: If the arguments make no corpus, or the folder holds a different one.
    """

    SHARES = dict(train=0.8, val=0.08, test=0.12)

    def __init__(
        self,
        folder: str | Path,
        num_videos: int = 1500,
        seed: int = 0,
        size: int = 96,
        absent_and_repeated: bool = False,
    ) -> None:
        if num_videos < 10:
            raise CorpusError(f'{num_videos} videos do not make three splits; ask for at least 10')
        if size < 32 or size % 2:
            raise CorpusError(f'frames of {size} pixels: the side must be even and at least 32')
        if seed < 0:
            raise CorpusError(f'seed {seed} is negative; take 0 or more')
        self.folder = Path(folder)
        self.size = size
        self.splits = self._split(num_videos)
        self.manifest = dict(
            format=FORMAT,
            version=VERSION,
            seed=seed,
            num_videos=num_videos,
            size=size,
            fps=FPS,
            duration=DURATION,
            # Scene i is drawn from the seed pair (seed, i), so these ranges share no seed.
            scene_seeds={name: [part.start, part.stop - 1] for name, part in self.splits.items()},
            held_out=sorted(map(list, held_out_combinations(seed))),
        )
        if absent_and_repeated:
            self.manifest['absent_and_repeated'] = True
        self.sampler = sampler_of(self.manifest)
        self._check_folder()

    def _split(self, num_videos: int) -> dict[str, range]:
        val = max(1, round(self.SHARES['val'] * num_videos))
        test = max(1, round(self.SHARES['test'] * num_videos))
        train = num_videos - val - test
        return dict(
            train=range(train), val=range(train, train + val), test=range(train + val, num_videos)
        )

    def _check_folder(self) -> None:
        path = self.folder / 'manifest.json'
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise CorpusError(
                    f'{self.folder} is not empty and holds no Shapes corpus; choose a new folder'
                )
            return
        try:
            found = json.loads(path.read_text())
            found.pop('complete')
        except (ValueError, KeyError, AttributeError):
            raise CorpusError(f'{path} is not a manifest of Shapes; choose a new folder') from None
        if found != self.manifest:
            differences = ', '.join(
                f'{key}={found.get(key)} instead of {self.manifest.get(key)}'
                for key in {**self.manifest, **found}
                if found.get(key) != self.manifest.get(key)
                and key not in ('scene_seeds', 'held_out')
            )
            raise CorpusError(
                f'{self.folder} holds another corpus ({differences}); choose a new '
                'folder or delete this one'
            )

    @property
    def complete(self) -> bool:
        """Whether everything has been written."""
        path = self.folder / 'manifest.json'
        if not path.is_file() or not json.loads(path.read_text())['complete']:
            return False
        names = ['vocab.txt', 'tubes.h5', 'annotations/test_subsets.json']
        names += [f'annotations/{split}.json' for split in self.splits]
        names += [f'videos/{video}.mp4' for videos in self.video_ids.values() for video in videos]
        return all((self.folder / name).is_file() for name in names)

    @property
    def video_ids(self) -> dict[str, list[str]]:
        """Ids of the videos of each split."""
        return {
            name: [f'shapes_{index:05d}' for index in part] for name, part in self.splits.items()
        }

    def write(self, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> None:
        """Write what is missing.

        Args:
            workers (int): Processes that render. Default: 2.
            progress (Callable | None): Called with (videos done, videos in all).
        """
        total = self.manifest['num_videos']
        if self.complete:
            if progress:
                progress(total, total)
            return
        (self.folder / 'videos').mkdir(parents=True, exist_ok=True)
        self._write_manifest(complete=False)
        jobs = [
            (index, video, name == 'train')
            for name, part in self.splits.items()
            for index, video in zip(part, self.video_ids[name], strict=True)
        ]
        make = partial(_make_video, self.sampler, self.size, self.folder / 'videos')
        entries: dict[str, dict] = {}
        for done, (job, entry) in enumerate(run_parallel(make, jobs, workers), 1):
            entries[job[1]] = entry
            if progress:
                progress(done, total)
        self._write_annotations(entries)
        self._write_tubes(entries)
        self._write_manifest(complete=True)

    def _write_annotations(self, entries: dict[str, dict]) -> None:
        splits = {
            name: {video: entries[video]['annotation'] for video in videos}
            for name, videos in self.video_ids.items()
        }
        files = {f'annotations/{name}.json': split for name, split in splits.items()}
        several = 'absent_and_repeated' in self.manifest
        subsets = self._places(entries, ('seen', 'unseen', *(OCCURRENCES if several else ())))
        files['annotations/test_subsets.json'] = subsets
        if several:
            files['annotations/test_absent.json'] = self._places(entries, ABSENCES)
        else:
            files |= _parts(splits, subsets['unseen'])
        for name, content in files.items():
            write_json(content, self.folder / name, indent=None)
        sentences = [s for entry in splits['train'].values() for s in entry['sentences']]
        vocabulary = build_vocabulary([*sentences, BLANK_SENTENCE])
        write_atomically(self.folder / 'vocab.txt', '\n'.join(vocabulary) + '\n')

    def _places(self, entries: dict[str, dict], names: Iterable[str]) -> dict[str, dict]:
        """Name -> video of test -> places of the sentences that bear it."""
        found = {
            name: {
                video: [i for i, borne in enumerate(entries[video]['names']) if name in borne]
                for video in self.video_ids['test']
            }
            for name in names
        }
        return {
            name: {video: places for video, places in videos.items() if places}
            for name, videos in found.items()
        }

    def _write_tubes(self, entries: dict[str, dict]) -> None:
        with (
            replacing(self.folder / 'tubes.h5') as unfinished,
            h5py.File(unfinished, 'w', libver='latest') as file,
        ):
            for video in sorted(entries):
                group = file.create_group(video)
                group.attrs['event_objects'] = entries[video]['event_objects']
                for i, (color, shape, tube) in enumerate(entries[video]['tubes']):
                    dataset = group.create_dataset(str(i), data=tube)
                    dataset.attrs.update(color=color, shape=shape)

    def _write_manifest(self, complete: bool) -> None:
        write_json({**self.manifest, 'complete': complete}, self.folder / 'manifest.json')


def _parts(splits: dict[str, dict], unseen: dict[str, list[int]]) -> dict[str, dict]:
    """Files of annotations with some of the sentences, or of their words."""
    files = {
        'annotations/test_unseen.json': {
            video: dict(
                duration=splits['test'][video]['duration'],
                timestamps=[splits['test'][video]['timestamps'][i] for i in places],
                sentences=[splits['test'][video]['sentences'][i] for i in places],
            )
            for video, places in unseen.items()
        }
    }
    for keep, (name, split) in product(('blank', *WORD_CLASSES), splits.items()):
        files[f'ablations/{keep}/{name}.json'] = {
            video: dict(entry, sentences=[mask_sentence(s, [keep]) for s in entry['sentences']])
            for video, entry in split.items()
        }
    return files


def sampler_of(manifest: dict) -> SceneSampler:
    """What draws the scenes of a corpus again, by its manifest."""
    kind = WindowsSampler if manifest.get('absent_and_repeated') else SceneSampler
    return kind(manifest['seed'])


def check_one_moment(folder: str | Path, manifest: dict) -> None:
    """Raise a CorpusError where sentences of a corpus have no moment or several ones."""
    if manifest.get('absent_and_repeated'):
        raise CorpusError(
            f'sentences of {folder} have no moment or several ones, and this needs one of each: '
            'take a corpus made without --absent-and-repeated'
        )


def read_events(folder: str | Path, split: str) -> dict[str, list[Event]]:
    """Events of the videos of a written corpus, in the order of their sentences.

    They are drawn again from the corpus' seed; no file holds them.

    Args:
        folder (str | Path): The corpus.
        split (str): ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        dict[str, list[Event]]: By video id.

    Raises:
        FileNotFoundError: If the folder holds no corpus.
        CorpusError: If its sentences have no moment or several ones.
    """
    path = Path(folder) / 'manifest.json'
    manifest = read_json(path, f'{folder} holds no Shapes corpus: {path} is missing', CorpusError)
    check_one_moment(folder, manifest)
    sampler, (first, last) = sampler_of(manifest), manifest['scene_seeds'][split]
    return {
        video: sampler.sample(index, video, split == 'train').events
        for index in range(first, last + 1)
        for video in [f'shapes_{index:05d}']
    }


def _make_video(sampler: SceneSampler, size: int, folder: Path, job: tuple) -> dict:
    """Render a scene, unless its video is there, and tell what the corpus says of it."""
    index, video_id, training = job
    scene = sampler.sample(index, video_id, training)
    path = folder / f'{video_id}.mp4'
    if not path.is_file():
        write_video(path, SceneRenderer(size).render(scene), scene.fps)
    known = ['unseen' if one in sampler.held_out else 'seen' for one in scene.asked]
    return dict(
        annotation=scene.annotation(),
        event_objects=scene.event_objects(),
        names=[
            [kind, seen] if kind in OCCURRENCES else [kind]
            for kind, seen in zip(scene.kinds, known, strict=True)
        ],
        tubes=[(item.color, item.shape, item.tube(size)) for item in scene.objects],
    )
