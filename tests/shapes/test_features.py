"""Features of a grid of cells."""

import numpy as np
import pytest
from helpers.alive import Alive

from mmn_plugin.features import VideoReader
from mmn_plugin.shapes import (
    COLORS,
    SHAPES,
    GridFeatureExtractor,
    Scene,
    SceneObject,
    SceneRenderer,
)
from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.shapes.features import PER_HUE

HUES = ('red', 'yellow', 'green', 'cyan', 'blue', 'purple')
THREEFOLD, FOURFOLD, LENGTH = 5, 6, 10  # Im of harmonic 3, Re of harmonic 4, outline length
LEFT, RIGHT, UP, DOWN, GROW, SHRINK = range(11, 17)


def shown(color='red', shape='circle', x=0.5, y=0.5, radius=0.14):
    """An object in 48 frames."""
    full = np.ones(48)
    return SceneObject(color, shape, x * full, y * full, radius * full, full > 0, full > 0)


def describe(*objects):
    """Features by step, and those of the hues and of all: (steps, D), (steps, 7, PER_HUE)."""
    frames = SceneRenderer(96).render(Scene('v', 6.0, 8, list(objects), [], [], (40, 60)))
    half = frames[:, 96:].reshape(len(frames), 2, 48, 48)
    luma = frames[:, :96].reshape(-1, 48, 2, 48, 2).mean((2, 4)).round().astype(np.uint8)
    features = GridFeatureExtractor()(np.concatenate([luma[:, None], half], 1))
    return features, features[:, : 7 * PER_HUE].reshape(len(features), 7, PER_HUE)


def inner(*objects, hue=0):
    """Mean of a hue's numbers over the steps but the first and the last."""
    return describe(*objects)[1][1:-1, hue].mean(0)


@pytest.mark.parametrize(('color', 'place'), zip(HUES, range(6), strict=True))
def test_each_color_has_its_own_numbers(color, place):
    amount = describe(shown(color))[1][:, :6, 0].mean(0)
    assert amount.argmax() == place
    assert np.delete(amount, place).max() < 0.3 * amount[place]


@pytest.mark.parametrize(
    ('axis', 'way', 'expected'),
    [('x', -1, LEFT), ('x', 1, RIGHT), ('y', -1, UP), ('y', 1, DOWN)],
)
@pytest.mark.parametrize('color', COLORS)
def test_direction_of_motion_is_told_per_color(axis, way, expected, color):
    moving = shown(color, **{axis: np.linspace(0.25, 0.75, 48)[::way]})
    flow = inner(moving, hue=HUES.index(color))[LEFT : DOWN + 1]
    assert flow.argmax() == expected - LEFT
    assert np.sort(flow)[-2] < 0.5 * flow.max()


def test_growing_and_shrinking_are_told_apart():
    radius = np.linspace(0.09, 0.18, 48)
    grown, shrunk = (inner(shown(radius=r)) for r in (radius, radius[::-1]))
    assert grown[GROW] > 5 * grown[SHRINK]
    assert shrunk[SHRINK] > 5 * shrunk[GROW]


def test_outlines_are_told_apart_and_are_of_the_moving_object():
    moving = dict(x=np.linspace(0.3, 0.7, 48), y=0.22)
    found = {shape: inner(shown(shape=shape, **moving)) for shape in SHAPES}
    assert found['square'][FOURFOLD] > found['circle'][FOURFOLD] + 0.2
    assert found['diamond'][FOURFOLD] < found['circle'][FOURFOLD] - 0.2
    assert abs(found['triangle'][THREEFOLD]) > abs(found['circle'][THREEFOLD]) + 0.2
    assert found['cross'][LENGTH] > found['square'][LENGTH] + 0.1
    beside = inner(shown(shape='square', **moving), shown(shape='diamond', y=0.8))
    assert beside[FOURFOLD] == pytest.approx(found['square'][FOURFOLD], abs=0.1)


def test_a_standing_picture_shows_no_motion():
    features, hues = describe(shown())
    assert features.shape == (8, GridFeatureExtractor().num_features)
    assert features.dtype == np.float32
    assert hues[:, 0, 0].min() > 0.3
    assert np.abs(hues[:, :, 1:]).max() == 0


@pytest.mark.parametrize(
    ('frames', 'steps'), [(1, 1), (6, 1), (7, 2), (96, 16), (97, 17), (205, 35)]
)
def test_any_length_gives_one_row_per_started_step(frames, steps):
    video = np.random.default_rng(0).integers(0, 255, (frames, 3, 48, 48), dtype=np.uint8)
    features = GridFeatureExtractor()(video)
    assert len(features) == steps
    assert np.isfinite(features).all()


def test_blocks_leave_no_seam(monkeypatch):
    video = np.random.default_rng(0).integers(90, 166, (130, 3, 48, 48), dtype=np.uint8)
    whole = GridFeatureExtractor()(video)
    monkeypatch.setattr('mmn_plugin.shapes.features.BLOCK', 3)
    np.testing.assert_allclose(GridFeatureExtractor()(video), whole, rtol=1e-4, atol=1e-5)


def test_long_videos_are_streamed():
    """At no time are more frames held than a block and its surroundings."""
    alive = Alive()
    frames = alive.watch(np.full((3, 16, 16), 128, np.uint8) for _ in range(2000))
    assert len(GridFeatureExtractor(size=16)(frames)) == 334
    assert alive.most < 150


def test_reader_gives_the_asked_rate_from_any_other(tmp_path):
    frames = np.full((60, 96, 64), 128, np.uint8)
    frames[:, :64] = np.linspace(20, 230, 60)[:, None, None]
    write_video(tmp_path / 'fast.mp4', frames, fps=20)  # 3 s
    read = np.stack(list(VideoReader(tmp_path / 'fast.mp4', fps=8, size=16)))
    assert read.shape == (24, 3, 16, 16)
    shown = np.floor(np.arange(24) / 8 * 20 + 1e-6)  # the last frame begun by each time
    np.testing.assert_allclose(
        read[:, 0].mean((1, 2)), np.linspace(20, 230, 60)[shown.astype(int)], atol=3
    )
    slow = np.stack(list(VideoReader(tmp_path / 'fast.mp4', fps=40, size=16)))
    assert len(slow) == 120


@pytest.mark.parametrize('name', ['arm_wrestling', 'basketball'])
def test_real_videos(shared, name):
    features = GridFeatureExtractor()(shared / 'media' / f'{name}.mp4')
    assert len(features) == 14  # 10 s in steps of 0.75 s
    assert np.isfinite(features).all()
    assert np.ptp(features, axis=0).max() > 0.1


@pytest.mark.parametrize('arguments', [dict(fps=0), dict(stride=0), dict(size=20), dict(size=8)])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match='multiple of 8'):
        GridFeatureExtractor(**arguments)
