"""Networks on a GPU, for which something stands in, and in mixed precision."""

import json
from contextlib import contextmanager, nullcontext

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
        self.described = []

    def build_model(self):
        torch.manual_seed(0)
        return nn.Linear(FRAMES * SIDE * SIDE * 3, 5)

    def prepare(self, frame):
        return frame[:SIDE, :SIDE]

    def describe(self, clips):
        self.described.append(clips.data_ptr())
        return self.model(clips.flatten(1).float() / 255)

    def describe_settings(self):
        return {}


class Mirrored(Projected):
    """Arrays that PyTorch does not take as they are."""

    def prepare(self, frame):
        made = frame[:SIDE, SIDE - 1 :: -1]
        made.flags.writeable = False
        return made


class Gpu:
    """What PyTorch does with a GPU: copies that end only when they have been waited for."""

    def __init__(self, monkeypatch):
        self.pinned, self.copied, self.orders, self.coming = set(), [], [], []
        self.used = set()
        self._empty, self._to = torch.empty, torch.Tensor.to
        monkeypatch.setattr(torch, 'empty', self.empty)
        monkeypatch.setattr(
            torch.Tensor, 'to', lambda tensor, *to, **how: self.to(tensor, *to, **how)
        )
        monkeypatch.setattr(torch.cuda, 'device', lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, 'current_stream', lambda device: Stream(device, self))
        monkeypatch.setattr(torch.cuda, 'Stream', lambda device: Stream('copies', self))
        monkeypatch.setattr(torch.cuda, 'stream', self.on)
        monkeypatch.setattr(
            torch.Tensor,
            'record_stream',
            lambda tensor, stream: self.used.add((tensor.data_ptr(), stream.name)),
        )
        monkeypatch.setattr(torch.cuda, 'Event', lambda blocking: Event(self))

    def empty(self, *shape, pin_memory=False, **kind):
        tensor = self._empty(*shape, **kind)
        if pin_memory:
            self.pinned.add(tensor.data_ptr())
        return tensor

    @contextmanager
    def on(self, stream):
        self.stream = stream.name
        yield
        self.stream = None

    def to(self, tensor, *to, non_blocking=False, **how):
        if 'cuda' in str(to[:1]):
            if tensor.dtype != torch.uint8:  # a weight rather than a batch
                return tensor
            self.copied.append((tensor.data_ptr() in self.pinned, non_blocking, self.stream))
            late = torch.zeros_like(tensor)
            self.coming.append((late, tensor))
            return late
        if not (to == ('cpu',) and non_blocking):
            return self._to(tensor, *to, non_blocking=non_blocking, **how)
        late = torch.full_like(tensor, torch.nan)
        self.orders.append((late, tensor))
        return late


class Stream:
    def __init__(self, name, gpu):
        self.name, self.gpu = name, gpu

    def wait_stream(self, other):
        assert (self.name, other.name) == ('cuda:0', 'copies')
        for late, tensor in self.gpu.coming:
            late.copy_(tensor)
        self.gpu.coming.clear()


class Event:
    def __init__(self, gpu):
        self.gpu, self.stream = gpu, None

    def record(self, stream):
        self.stream, self.until = stream.name, len(self.gpu.orders)

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
        np.testing.assert_array_equal(extractor(video), features)  # others unless waited for
    # 30 frames, 4 a clip, 2 clips a batch; copied while the network has the one before
    assert gpu.copied == [(True, True, 'copies')] * 3 * 4
    assert {(batch, 'cuda:0') for batch in extractor.described} == gpu.used


def test_a_gpu_is_fed_by_threads(videos, tmp_path, monkeypatch):
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


def test_frames_may_be_prepared_as_views_of_any_strides_and_read_only():
    frames = np.random.default_rng(0).integers(0, 256, (2 * FRAMES, 12, 16, 3), np.uint8)
    (batch,) = Mirrored().batches(iter(frames))
    assert (
        batch.numpy().tolist()
        == frames.reshape(2, FRAMES, 12, 16, 3)[:, :, :SIDE, SIDE - 1 :: -1].tolist()
    )
    (plain,) = Projected().prepared(iter(frames[:1]))
    assert plain.base is None
