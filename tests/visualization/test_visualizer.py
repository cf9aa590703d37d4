"""Where the pictures go."""

import numpy as np
import pytest
import torch
from helpers.tiny_models import sample_of
from mmaction.registry import VISUALIZERS
from mmengine.structures import InstanceData

from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.structures import TubeDataSample


@pytest.fixture
def sample():
    return sample_of('v', ['a dog runs'], 8.0)


def built(folder, backend='LocalVisBackend'):
    back_ends = [dict(type=backend)]
    settings = dict(name=str(folder), save_dir=str(folder), vis_backends=back_ends)
    return VISUALIZERS.build(dict(type='GroundingVisualizer', **settings))


@pytest.fixture
def visualizer(tmp_path):
    return built(tmp_path)


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


def test_a_sample_goes_to_the_back_ends_or_to_a_path(visualizer, sample, video, tmp_path):
    visualizer.add_datasample('first', None, sample, out_path=tmp_path / 'deep' / 'x.png')
    assert (tmp_path / 'deep' / 'x.png').stat().st_size > 1000
    assert not (tmp_path / 'vis_data/vis_image').exists()
    visualizer.add_datasample('first', video, sample, step=3)
    assert (tmp_path / 'vis_data/vis_image/first_3.png').is_file()
    plain = visualizer.draw_timeline(sample)
    assert visualizer.get_image().shape[0] > plain.shape[0]  # with thumbnails
    with pytest.raises(ValueError, match="'first'"):
        visualizer.add_datasample('first')


def test_tensorboard_takes_the_pictures(sample, tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    visualizer = built(tmp_path, 'TensorboardVisBackend')
    visualizer.add_datasample('first', None, sample, step=3)
    visualizer.close()
    events = accumulator.EventAccumulator(str(tmp_path / 'vis_data')).Reload()
    (image,) = events.Images('first')
    assert (image.step, image.width) == (3, 960)
