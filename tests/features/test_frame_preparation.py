"""Preparation of frames in torch, beside the processors that use PIL."""

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from mmn_plugin.features.frame_preparation import CHUNK, FramePreparation

FRAMES = [(48, 64), (64, 48), (33, 97), (20, 24), (240, 320), (32, 32), (31, 400)]
PROCESSORS = dict(
    clip=lambda side: transformers.CLIPImageProcessorPil(
        size=dict(shortest_edge=side), crop_size=dict(height=side, width=side)
    ),
    siglip=lambda side: transformers.SiglipImageProcessorPil(size=dict(height=side, width=side)),
    bilinear=lambda side: transformers.CLIPImageProcessorPil(
        size=dict(shortest_edge=side + 4), crop_size=dict(height=side, width=side - 3), resample=2
    ),
    padded=lambda side: transformers.CLIPImageProcessorPil(
        size=dict(shortest_edge=side), crop_size=dict(height=side + 5, width=side + 40)
    ),
    unscaled=lambda side: transformers.CLIPImageProcessorPil(
        do_resize=False, crop_size=dict(height=side, width=side), do_normalize=False
    ),
)


def picture(height, width, kind):
    """Noise, or a steep and a smooth edge: where filters overshoot and where they do not."""
    if kind == 'noise':
        return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    steep = 255 * ((rows // 5 + columns // 7) % 2)
    return np.stack([steep, 255 - steep, 255 * columns // width], 2).astype(np.uint8)


@pytest.fixture
def _rows_first(monkeypatch):
    """Pillow in the order that all releases before 13 have."""
    resize = PIL.Image.Image.resize

    def rows_first(image, size, resample, **options):
        return resize(resize(image, (size[0], image.height), resample), size, resample)

    monkeypatch.setattr(PIL.Image.Image, 'resize', rows_first)


@pytest.mark.usefixtures('_rows_first')
@pytest.mark.parametrize('kind', PROCESSORS)
@pytest.mark.parametrize('side', [24, 37])
def test_frames_are_those_of_the_processors_with_pil(kind, side):
    processor = PROCESSORS[kind](side)
    preparation = FramePreparation.of_processor(processor.to_dict(), kind)
    for height, width in FRAMES:
        for pattern in ('noise', 'edges'):
            frame = picture(height, width, pattern)
            levels = dict(do_rescale=False, do_normalize=False)
            expected = processor(images=[frame], return_tensors='pt', **levels)['pixel_values']
            prepared = preparation.scale(torch.from_numpy(frame)[None])
            assert prepared.equal(expected)
            expected = processor(images=[frame], return_tensors='pt')['pixel_values']
            found = preparation.normalize(prepared)
            torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('kind', PROCESSORS)
def test_wide_frames_agree_with_any_pillow_within_a_level(kind):
    processor = PROCESSORS[kind](24)
    preparation = FramePreparation.of_processor(processor.to_dict(), kind)
    for height, width in ((48, 64), (33, 97), (240, 320)):
        frame = picture(height, width, 'edges')
        levels = dict(do_rescale=False, do_normalize=False)
        expected = processor(images=[frame], return_tensors='pt', **levels)['pixel_values']
        prepared = preparation.scale(torch.from_numpy(frame)[None])
        assert (prepared.int() - expected.int()).abs().max() <= 1


def test_frames_of_a_stream_come_one_by_one_whatever_their_size():
    preparation = FramePreparation.of_processor(PROCESSORS['clip'](24).to_dict(), 'clip')
    frames = [picture(*size, 'noise') for size in ((48, 64), (48, 64), (64, 48), (48, 64))]
    found = list(preparation.stream(iter(frames), 'cpu'))
    for frame, prepared in zip(frames, found, strict=True):
        assert prepared.equal(preparation.scale(torch.from_numpy(frame)[None])[0])


def test_few_full_frames_are_held_at_once():
    preparation = FramePreparation.of_processor(PROCESSORS['clip'](24).to_dict(), 'clip')
    read = 0

    def frames():
        nonlocal read
        for _ in range(12):
            read += 1
            yield np.zeros((1080, 1920, 3), np.uint8)

    stream = preparation.stream(frames(), 'cpu')
    assert next(stream).shape == (3, 24, 24)
    assert (read - 1) * 1080 * 1920 * 3 * 8 <= CHUNK
    assert sum(1 for _ in stream) == 11


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(do_pad=True), 'do_pad=True'),
        (dict(resample=0), 'resample=0'),
        (dict(size=dict(shortest_edge=3, longest_edge=4)), 'longest_edge'),
        (dict(size=None), "no 'size'"),
        (dict(rescale_factor=None), "no 'rescale_factor'"),
    ],
)
def test_what_cannot_be_followed_is_named(changes, message):
    settings = PROCESSORS['clip'](24).to_dict() | changes
    with pytest.raises(ValueError, match=message):
        FramePreparation.of_processor(settings, 'the model')
