"""Networks on a GPU, for which something stands in, and in mixed precision."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers.tiny_extractors import write_recognizer, write_vision_model
from torch import nn

from mmn_plugin.features import EXTRACTORS, FeatureFileError, SlidingWindowExtractor, extract_videos
from mmn_plugin.features.feature_file import differences
from mmn_plugin.shapes.corpus import write_video

SIDE, FRAMES = 8, 4


class Projected(SlidingWindowExtractor):
    """Products of a clip's pixels with random vectors."""

    def __init__(self, device='cpu', amp=None):
        super().__init__(8.0, FRAMES, FRAMES, 1, 2, device, amp)

    def build_model(self):
        torch.manual_seed(0)
        return nn.Linear(FRAMES * SIDE * SIDE * 3, 5)

    def prepare(self, frame):
        return frame[:SIDE, :SIDE]

    def describe(self, clips):
        return self.model(clips.flatten(1).float() / 255)

    def describe_settings(self):
        return {}


class Gpu:
    """What PyTorch does with a GPU: copies that end only when an event has been waited for."""

    def __init__(self, monkeypatch):
        self.pinned, self.copied, self.orders = set(), [], []
        self._empty, self._to = torch.empty, torch.Tensor.to
        monkeypatch.setattr(torch, 'empty', self.empty)
        monkeypatch.setattr(
            torch.Tensor, 'to', lambda tensor, *to, **how: self.to(tensor, *to, **how)
        )
        monkeypatch.setattr(torch.cuda, 'device', lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: device)
        monkeypatch.setattr(torch.cuda, 'Event', lambda blocking: Event(self))

    def empty(self, *shape, pin_memory=False, **kind):
        tensor = self._empty(*shape, **kind)
        if pin_memory:
            self.pinned.add(tensor.data_ptr())
        return tensor

    def to(self, tensor, *to, non_blocking=False, **how):
        if 'cuda' in str(to[:1]):
            if tensor.dtype == torch.uint8:  # a batch rather than a weight
                self.copied.append((tensor.data_ptr() in self.pinned, non_blocking))
            return tensor
        if not (to == ('cpu',) and non_blocking):
            return self._to(tensor, *to, non_blocking=non_blocking, **how)
        late = torch.full_like(tensor, torch.nan)
        self.orders.append((late, tensor))
        return late


class Event:
    def __init__(self, gpu):
        self.gpu, self.stream = gpu, None

    def record(self, stream):
        self.stream, self.until = stream, len(self.gpu.orders)

    def synchronize(self):
        assert self.stream == 'cuda:0'
        for late, tensor in self.gpu.orders[: self.until]:
            late.copy_(tensor)


@pytest.fixture
def videos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'videos').mkdir()
    for name in 'abc':
        write_video(
            tmp_path / 'videos' / f'{name}.mp4',
            rng.integers(0, 255, (30, 48, 32), dtype=np.uint8),
            fps=8,
        )
    return sorted((tmp_path / 'videos').iterdir())


def test_batches_for_a_gpu_are_pinned_and_copied_without_waiting(videos, monkeypatch):
    frames = [np.stack(list(Projected().reader(video))) for video in videos]
    expected = [Projected()(video) for video in frames]
    gpu, extractor = Gpu(monkeypatch), Projected('cuda:0')
    for video, features in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(extractor(video), features)  # NaN unless waited for
    assert gpu.copied == [(True, True)] * 3 * 4  # 30 frames, 4 a clip, 2 clips a batch


def test_a_gpu_is_fed_by_threads_and_the_cpu_by_processes(videos, tmp_path, monkeypatch):
    assert (Projected().threads, Projected().workers) == (False, 0)
    extract_videos(Projected(), videos, tmp_path / 'cpu.h5', workers=0)
    Gpu(monkeypatch)
    extractor = Projected('cuda:0')
    assert extractor.threads
    assert extractor.workers > 1
    report = extract_videos(extractor, videos, tmp_path / 'gpu.h5', extractor.workers)
    assert not report.failures
    assert (tmp_path / 'gpu.h5').read_bytes() == (tmp_path / 'cpu.h5').read_bytes()


def test_the_network_runs_in_the_precision_asked_for():
    frames = np.zeros((9, 48, 32, 3), np.uint8)
    for amp, dtype in ((None, torch.float32), ('bf16', torch.bfloat16), ('auto', torch.bfloat16)):
        extractor, seen = Projected(amp=amp), []
        extractor.model.register_forward_hook(lambda *_, seen=seen: seen.append(_[2].dtype))
        assert extractor(frames).dtype == np.float32
        assert set(seen) == {dtype}
    with pytest.raises(ValueError, match='fp16 needs a GPU'):
        Projected(amp='fp16')
    assert Projected('cuda:0', 'auto').amp == 'fp16'


@pytest.mark.parametrize(
    'write', [write_recognizer, lambda folder: write_vision_model(folder, 'siglip')]
)
def test_features_of_two_precisions_are_not_mixed(videos, tmp_path, write):
    settings = write(tmp_path / 'model')
    full, mixed = (EXTRACTORS.build(dict(settings, **more)) for more in ({}, dict(amp='bf16')))
    assert 'amp' not in json.loads(full.identity)  # as before there was a choice
    assert differences(full.fingerprint, mixed.fingerprint) == ['amp None, here bf16']
    extract_videos(full, videos[:1], tmp_path / 'f.h5', workers=0)
    with pytest.raises(FeatureFileError, match=r'f\.h5 holds features made with .*bf16'):
        extract_videos(mixed, videos, tmp_path / 'f.h5', workers=0)
    rows, near = full(videos[0]), mixed(videos[0])
    assert not np.array_equal(rows, near)
    assert np.abs(near - rows).max() < 0.1 * np.abs(rows).max()
