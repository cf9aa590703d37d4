"""Extraction of features beside a device that is simulated, and with towers on this CPU."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.features import FeatureExtractor, build_extractor, extract_videos

from .gpu_parts import clip
from .running import shared_folder
from .tables import table

REAL = ('basketball', 'arm_wrestling')  # 10 s each, in the reference material
COPIES = 2  # of each
BATCH = 8  # of the 20 frames that CLIP looks at in 10 s: several batches a video
THREADED = {0: 'one step after the other', 1: 'a thread ahead', 2: 'two threads ahead'}
ON_CPU = {0: 'one step after the other', 1: 'a thread ahead', 2: 'two processes'}


class SimulatedDevice(FeatureExtractor):
    """Another extractor's frames, described by a device that takes so many seconds a batch.

    As a GPU it works on one batch after the other beside the host, and needs no core.
    """

    threads = True
    identity, num_features = 'simulated device', 1

    def __init__(self, frames_of: FeatureExtractor, seconds: float) -> None:
        self.frames_of, self.seconds = frames_of, seconds
        self.fps, self.stride = frames_of.fps, frames_of.stride
        self._device = ThreadPoolExecutor(1)

    def reader(self, video: str | Path):
        """As of the other extractor."""
        return self.frames_of.reader(video)

    def batches(self, frames):
        """Likewise."""
        return self.frames_of.batches(frames)

    def start_batch(self, batch: torch.Tensor) -> Callable[[], np.ndarray]:
        """Order rows of zeros."""
        return self._device.submit(self._describe, len(batch)).result

    def describe_batch(self, batch: torch.Tensor) -> np.ndarray:
        """The same, waited for."""
        return self.start_batch(batch)()

    def _describe(self, count: int) -> np.ndarray:
        time.sleep(self.seconds)
        return np.zeros((count, self.num_features), np.float32)


def extraction(repeats: int) -> dict:
    """Time beside a simulated device, and frames per second of towers on this CPU, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        videos = [Path(folder, f'{name}{copy}.mp4') for name in REAL for copy in range(COPIES)]
        for video in videos:
            shutil.copy(shared_folder('media') / f'{video.stem[:-1]}.mp4', video)
        settings = dict(clip(Path(folder, 'clip')), device='cpu', batch_size=BATCH)
        towers = {
            'CLIP ViT-B/32, random weights': build_extractor(settings),
            'shapes_grid': build_extractor(dict(type='GridFeatureExtractor')),
        }
        frames_of = next(iter(towers.values()))
        return dict(
            videos=len(videos),
            simulated=[simulated(frames_of, videos) for _ in range(repeats)],
            towers={name: in_turns(tower, videos, repeats) for name, tower in towers.items()},
        )


def simulated(frames_of: FeatureExtractor, videos: list[Path]) -> dict:
    """Seconds of decoding alone, of a device alone that is as fast, and of both together."""
    began, batches = time.perf_counter(), 0
    for video in videos:
        batches += sum(1 for _ in frames_of.batches(frames_of.reader(video)))
    decode = time.perf_counter() - began
    device = SimulatedDevice(frames_of, decode / batches)
    speeds = {mode: speed_of(device, videos, workers) for workers, mode in THREADED.items()}
    return dict(batches=batches, decode=decode, device=decode, speeds=speeds)


def speed_of(extractor: FeatureExtractor, videos: list[Path], workers: int) -> dict[str, float]:
    """`ExtractionReport.speed` of an extraction into a new file, in which no video may fail."""
    with tempfile.TemporaryDirectory() as folder:
        report = extract_videos(extractor, videos, Path(folder, 'features.h5'), workers)
    if report.failures:
        raise RuntimeError(str(report.failures))
    return report.speed


def in_turns(
    tower: FeatureExtractor, videos: list[Path], repeats: int
) -> dict[str, list[dict[str, float]]]:
    """Speeds of each way to work."""
    speed_of(tower, videos[:1], 0)  # loads the model
    runs: dict[str, list] = {mode: [] for mode in ON_CPU.values()}
    for _ in range(repeats):
        for workers, mode in ON_CPU.items():
            runs[mode].append(speed_of(tower, videos, workers))
    return runs


def render_extraction(result: dict) -> str:
    """Seconds beside the simulated device, and frames per second on the CPU, as medians."""
    rounds, rows = result['simulated'], []
    for mode in THREADED.values():
        seconds = statistics.median(run['speeds'][mode]['seconds'] for run in rounds)
        longer, both = (
            statistics.median(
                run['speeds'][mode]['seconds'] / of(run['decode'], run['device']) for run in rounds
            )
            for of in (max, lambda *parts: sum(parts))
        )
        rows.append([mode, f'{seconds:.2f} s', f'{longer:.2f}x', f'{both:.2f}x'])
    header = ['simulated device, as fast as decoding', 'time', 'of the longer part', 'of the sum']
    text, rows = table(header, rows), []
    for name, runs in result['towers'].items():
        first = next(iter(runs.values()))
        for mode, speeds in runs.items():
            ratios = (
                one['frames_per_second'] / other['frames_per_second']
                for one, other in zip(speeds, first, strict=True)
            )
            fps, waiting = (
                statistics.median(speed[key] for speed in speeds)
                for key in ('frames_per_second', 'waiting')
            )
            figures = [f'{fps:.1f}', f'{statistics.median(ratios):.2f}x', f'{100 * waiting:.0f} %']
            rows.append([name, mode, *figures])
    header = ['on the CPU', '', 'frames per second', 'ratio', 'waiting for frames']
    return f'{text}\n\n{table(header, rows)}'
