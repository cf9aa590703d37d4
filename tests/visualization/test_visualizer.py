"""Where the pictures go."""

import numpy as np
import pytest
import torch
from helpers.bad_videos import encode
from mmaction.registry import VISUALIZERS
from mmengine.structures import InstanceData

from mmn_plugin.features import VideoReadError, sample_frames
from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.structures import GroundingDataSample, TubeDataSample


@pytest.fixture
def sample():
    sample = GroundingDataSample(
        metainfo=dict(video_id='v', duration=8.0, sentences=['a dog runs'], sentence_index=[0])
    )
    sample.gt_instances = InstanceData(moments=torch.tensor([[1.0, 3.0]]))
    return sample


@pytest.fixture
def visualizer(tmp_path):
    return VISUALIZERS.build(
        dict(
            type='GroundingVisualizer',
            name=str(tmp_path),
            save_dir=str(tmp_path),
            vis_backends=[dict(type='LocalVisBackend')],
        )
    )


@pytest.fixture
def video(tmp_path):
    """8 s at 8 fps, each second brighter than the one before."""
    frames = np.full((64, 48, 32), 128, np.uint8)
    frames[:, :32] = (40 + np.arange(64) // 8 * 20)[:, None, None]
    write_video(tmp_path / 'v.mp4', frames, fps=8)
    return tmp_path / 'v.mp4'


def test_a_sample_of_tubes_is_drawn_in_its_video_a_row_per_sentence(visualizer, video, tmp_path):
    tube = np.array([[t, 3, 4, 20, 22] for t in range(20)], np.float32)
    sample = TubeDataSample(
        metainfo=dict(
            video_id='v',
            sentences=['a dog runs', 'a cat sits'],
            sentence_index=[0, 1],
            tubes=[tube],
            tube_index=[0],
        )
    )
    sample.gt_instances = InstanceData(tubes=[tube[5:], tube])
    sample.pred_instances = InstanceData(
        tubes=[tube[:0], tube], tube_index=torch.tensor([-1, 0]), scores=torch.tensor([0.0, 0.9])
    )
    colors = np.array([[0xE6, 0x9F, 0x00], [0x00, 0x72, 0xB2]])  # truth, answer

    def drawn(**how):
        visualizer.add_datasample('v', video, sample, out_path=tmp_path / 'v.png', **how)
        image = visualizer.get_image()
        return len(image), [
            [bool((half == color).all(-1).any()) for color in colors]
            for half in np.array_split(image, 2)
        ]

    height, found = drawn(draw_gt=False)
    assert found == [[False, False], [False, True]]
    assert drawn(draw_pred=False) == (height, [[True, False], [True, False]])
    sample.set_metainfo(dict(sentences=['a dog runs']))
    del sample.pred_instances
    assert drawn()[0] == height // 2


def test_a_sample_goes_to_the_back_ends(visualizer, sample, video, tmp_path):
    visualizer.add_datasample('first', video, sample, step=3)
    assert (tmp_path / 'vis_data/vis_image/first_3.png').is_file()
    plain = visualizer.draw_timeline(sample)
    assert visualizer.get_image().shape[0] > plain.shape[0]  # with thumbnails


def test_a_path_takes_the_picture_instead(visualizer, sample, tmp_path):
    visualizer.add_datasample('first', None, sample, out_path=tmp_path / 'deep' / 'x.png')
    assert (tmp_path / 'deep' / 'x.png').stat().st_size > 1000
    assert not (tmp_path / 'vis_data/vis_image').exists()


def test_without_a_sample_there_is_nothing_to_draw(visualizer):
    with pytest.raises(ValueError, match="'first'"):
        visualizer.add_datasample('first')


def test_frames_are_the_middles_of_equal_parts(video):
    frames = sample_frames(video, count=8, height=16)
    assert frames.shape == (8, 16, 16, 3)
    brightness = frames.mean((1, 2, 3))
    expected = (40 + np.arange(8) * 20 - 16) * 255 / 219
    assert brightness == pytest.approx(expected, abs=5)


def test_a_real_video_keeps_the_ratio_of_its_sides(shared):
    frames = sample_frames(shared / 'media' / 'arm_wrestling.mp4', count=3, height=60)
    assert frames.shape[:2] == (3, 60)
    assert frames.shape[2] > 60
    assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 0.1  # three different ones


@pytest.mark.parametrize(
    ('rotation', 'shape', 'corner'),
    [
        (0, (3, 20, 30, 3), (slice(2, 8), slice(2, 12))),
        (-90, (3, 20, 13, 3), (slice(2, 8), slice(-5, -1))),
        (180, (3, 20, 30, 3), (slice(-8, -2), slice(-12, -2))),
    ],
)
def test_thumbnails_of_a_rotated_video_are_upright(tmp_path, rotation, shape, corner):
    encode(tmp_path / 'phone.mp4', rotation=rotation)  # red in its upper left quarter
    frames = sample_frames(tmp_path / 'phone.mp4', count=3, height=20)
    assert frames.shape == shape
    red = frames[(0, *corner)].mean((0, 1))
    assert red[0] > 180
    assert red[1:].max() < 100


def test_an_unreadable_video_is_named(tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    with pytest.raises(VideoReadError, match=r'broken\.mp4'):
        sample_frames(tmp_path / 'broken.mp4')
    with pytest.raises(VideoReadError, match=r'absent\.mp4: no such file'):
        sample_frames(tmp_path / 'absent.mp4')


def test_tensorboard_takes_the_pictures(sample, tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    visualizer = VISUALIZERS.build(
        dict(
            type='GroundingVisualizer',
            name=str(tmp_path),
            save_dir=str(tmp_path),
            vis_backends=[dict(type='TensorboardVisBackend')],
        )
    )
    visualizer.add_datasample('first', None, sample, step=3)
    visualizer.close()
    events = accumulator.EventAccumulator(str(tmp_path / 'vis_data')).Reload()
    (image,) = events.Images('first')
    assert (image.step, image.width) == (3, 960)
