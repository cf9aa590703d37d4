import av
import numpy as np
import pytest

from mmn_plugin.shapes import COLORS, SHAPES, Scene, SceneObject, SceneRenderer
from mmn_plugin.shapes.corpus import write_video


def _still(shape, color, frames=3):
    full = np.ones(frames)
    item = SceneObject(
        color,
        shape,
        x=0.4 * full,
        y=0.6 * full,
        radius=0.15 * full,
        present=full > 0,
        lit=np.arange(frames) != 1,
    )
    return Scene('v', frames / 8, 8, [item], [], [], background=(40, 40))


@pytest.mark.parametrize('shape', SHAPES)
def test_drawing_fills_the_box_of_the_tube(shape):
    scene = _still(shape, 'yellow')
    luma = SceneRenderer(96).render(scene)[0, :96].astype(int)
    rows, columns = np.nonzero(luma > 120)
    _, x1, y1, x2, y2 = scene.objects[0].tube(96)[0]
    assert abs(columns.min() - x1) <= 1
    assert abs(columns.max() + 1 - x2) <= 1
    assert abs(rows.min() - y1) <= 1
    assert abs(rows.max() + 1 - y2) <= 1


def test_a_dark_frame_shows_only_the_background():
    frames = SceneRenderer(64).render(_still('circle', 'red'))
    assert np.ptp(frames[1, :64]) == 0
    assert np.ptp(frames[0, :64]) > 30


@pytest.mark.parametrize('color', COLORS)
def test_video_keeps_color_place_and_length(tmp_path, color):
    scene = _still('square', color, frames=16)
    write_video(tmp_path / 'v.mp4', SceneRenderer(96).render(scene), fps=8)
    with av.open(str(tmp_path / 'v.mp4')) as file:
        pictures = [frame.to_ndarray(format='rgb24') for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == 8
    assert len(pictures) == 16
    assert np.abs(pictures[0][57, 38].astype(int) - COLORS[color]).max() < 25
    assert list(tmp_path.iterdir()) == [tmp_path / 'v.mp4']


def test_an_object_in_front_hides_the_one_behind():
    scene = _still('square', 'red')
    scene.objects.append(_still('square', 'blue').objects[0])
    both, blue = (SceneRenderer(64).render(s)[0] for s in (scene, _still('square', 'blue')))
    np.testing.assert_array_equal(both[34:44, 20:30], blue[34:44, 20:30])
