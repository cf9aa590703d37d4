"""Pictures of some videos, during training and in a test."""

import re
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from helpers.run_tool import output_of, page_lines
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import save_checkpoint
from matplotlib.image import imread
from mmaction.registry import DATASETS, MODELS, VISUALIZERS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from mmn_plugin.engine import GroundingVisualizationHook
from mmn_plugin.files import OutputError
from mmn_plugin.shapes.corpus import write_video


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A config with its corpus and a checkpoint, and a video of one of five test videos."""
    folder = tmp_path_factory.mktemp('tiny')
    corpus = write_corpus(folder / 'corpus', train=4, test=5)
    config = write_config(folder / f'{folder.name}.py', corpus)
    (folder / 'videos').mkdir()
    frames = np.full((40, 48, 32), 128, np.uint8)
    write_video(folder / 'videos' / 'test_0.mp4', frames, fps=8)
    (folder / 'videos' / 'test_2.mp4').write_bytes(b'no video')
    return SimpleNamespace(
        folder=folder,
        corpus=corpus,
        config=config,
        videos=folder / 'videos',
        checkpoint=save_checkpoint(config, folder / 'tiny.pth'),
    )


@pytest.fixture(scope='module')
def batches(tiny):
    """Batches of two videos with what the model predicts for them."""
    dataset = DATASETS.build(Config.fromfile(tiny.config).test_dataloader.dataset)
    model = MODELS.build(Config.fromfile(tiny.config).model).eval()
    packed = [dataset[i] for i in range(5)]
    batches = [pseudo_collate(packed[i : i + 2]) for i in (0, 2, 4)]
    return model, [(batch, model.test_step(batch)) for batch in batches]


@pytest.fixture
def draw(batches, tmp_path):
    """Feed one validation to a hook; returns the names of the pictures."""
    visualizer = VISUALIZERS.build(
        dict(
            type='GroundingVisualizer',
            name=str(tmp_path),
            save_dir=str(tmp_path),
            vis_backends=[dict(type='LocalVisBackend')],
        )
    )

    def run(hook, model=batches[0], done=batches[1]):
        runner = SimpleNamespace(
            model=model,
            val_dataloader=SimpleNamespace(dataset=()),
            visualizer=visualizer,
            epoch=1,
            iter=9,
            logger=mock.Mock(),
            log_processor=SimpleNamespace(by_epoch=True),
        )
        hook.before_val_epoch(runner)
        for i, (batch, outputs) in enumerate(done):
            hook.after_val_iter(runner, i, batch, outputs)
        return sorted(path.name for path in tmp_path.rglob('*.png'))

    return run


def test_losses_metrics_and_pictures_of_a_training_reach_the_back_ends(tiny, tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    hook = page_lines('GroundingVisualizationHook').replace('data/shapes/videos', str(tiny.videos))
    extra = hook + page_lines('TensorboardVisBackend')
    config = write_config(tmp_path / f'{tmp_path.name}.py', tiny.corpus, extra=extra)
    output_of('train.py', config, '--work-dir', tmp_path / 'work')
    name = 'val_test_0_timeline'
    local = sorted(p.name for p in (tmp_path / 'work').rglob('*.png') if name in p.name)
    assert local == [f'{name}_1.png', f'{name}_2.png']  # one per epoch
    folder = next((tmp_path / 'work').glob('*/vis_data'))
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Images(name)] == [1, 2]
    assert [event.step for event in events.Scalars('grounding/R1@0.5')] == [1, 2]
    assert len(events.Scalars('loss')) == 2


def test_the_test_tool_writes_pictures(tiny, tmp_path):
    line = 'test.py {} {} --work-dir {} --show-dir {} --interval 2 --video-dir {}'
    folders = (tmp_path / 'work', tmp_path / 'pictures', tiny.videos)
    output = output_of(line, tiny.config, tiny.checkpoint, *folders)
    names = sorted(path.name for path in (tmp_path / 'pictures').glob('[!.]*'))
    assert names == [f'test_{i}_{kind}.png' for i in (0, 2, 4) for kind in ('map1', 'timeline')]
    assert 'no video test_4 in' in output
    assert re.search(r'test_2\.mp4.*cannot be decoded', output)
    assert not list((tmp_path / 'work').rglob('*.png'))


def test_a_wrong_folder_is_one_message(tiny, tmp_path):
    (tmp_path / 'file').write_text('')
    for option, value, message in (
        ('--video-dir', 'no_such', 'no_such with videos does not exist'),
        ('--interval', '0', 'interval=0; it must be at least 1'),
        ('--show-dir', tmp_path / 'file', 'file is a file, and a folder is needed'),
    ):
        line = 'test.py {} {} --work-dir {} --show-dir {}'
        given = (tiny.config, tiny.checkpoint, tmp_path / 'work', tmp_path, option, value)
        output = output_of(line, *given, code=1)
        assert message in output


def test_files_of_someone_else_stop_a_test_and_its_own_are_replaced(tiny, tmp_path):
    folder = tmp_path / 'pictures'
    line = 'test.py {} {} --work-dir {} --show-dir {} --interval 4'
    given = (line, tiny.config, tiny.checkpoint, tmp_path / 'work', folder)
    for _ in range(2):
        output = output_of(*given)
    (folder / 'test_4_map1.png').write_bytes(b'mine')
    output = output_of(*given, code=1)
    assert f'{folder / "test_4_map1.png"} has been changed since it was written' in output
    assert 'Epoch(test)' not in output  # before the work
    assert (folder / 'test_4_map1.png').read_bytes() == b'mine'


def test_all_ranks_refuse_what_one_of_them_would_have_to_replace(tiny, tmp_path):
    dataset = DATASETS.build(Config.fromfile(tiny.config).test_dataloader.dataset)
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    (tmp_path / 'test_3_timeline.png').write_bytes(b'mine')
    module = 'mmn_plugin.engine.visualization_hook'
    for rank in range(2):
        with (
            mock.patch(f'{module}.get_world_size', return_value=2),
            mock.patch(f'{module}.get_rank', return_value=rank),
        ):
            hook = GroundingVisualizationHook(interval=1, out_dir=str(tmp_path))
            with pytest.raises(OutputError, match=r'test_3_timeline\.png is there'):
                hook.before_test_epoch(runner)


def test_ids_in_other_scripts_have_pictures_of_their_own(batches, draw):
    batch, outputs = batches[1][0]
    outputs = [sample.detach() for sample in outputs]  # copies
    for sample, name in zip(outputs, ['видео', 'βίντεο'], strict=True):
        sample.set_metainfo(dict(video_id=name))
    hook = GroundingVisualizationHook(interval=1, max_maps=0)
    assert draw(hook, done=[(batch, outputs)]) == [
        'val_βίντεο_timeline_1.png',
        'val_видео_timeline_1.png',
    ]


def test_every_nth_video_is_drawn_and_no_more_than_told_and_with_thumbnails_taller(
    draw, tiny, tmp_path
):
    heights = []
    for settings in ({}, dict(video_dir=str(tiny.videos))):
        hook = GroundingVisualizationHook(interval=2, max_videos=2, max_maps=0, **settings)
        names = draw(hook)
        assert names == ['val_test_0_timeline_1.png', 'val_test_2_timeline_1.png']
        heights.append(len(imread(next(tmp_path.rglob(names[0])))))
    assert heights[1] > heights[0]


def test_ranks_share_the_videos_as_the_sampler_does(draw, tmp_path):
    module = 'mmn_plugin.engine.visualization_hook'
    with (
        mock.patch(f'{module}.get_world_size', return_value=2),
        mock.patch(f'{module}.get_rank', return_value=1),
    ):
        # of the whole dataset's 0, 1, 2 ... this rank has 1, 3, 5, 7, 9; 3 and 9 are due
        assert draw(GroundingVisualizationHook(interval=3)) == []  # the first rank's back ends
        assert draw(GroundingVisualizationHook(interval=3, max_maps=0, out_dir=str(tmp_path))) == [
            'test_1_timeline.png',
            'test_4_timeline.png',
        ]


def test_a_model_that_scores_no_moments_has_no_maps(draw, batches):
    with mock.patch.object(batches[0].head, 'moment_map', None):
        assert draw(GroundingVisualizationHook(max_videos=1)) == ['val_test_0_timeline_1.png']


def test_numbers_that_draw_nothing_are_refused():
    for name, value in dict(interval=0, top_n=0, max_sentences=0, max_maps=-1).items():
        with pytest.raises(ValueError, match=f'GroundingVisualizationHook.{name}={value}'):
            GroundingVisualizationHook(**{name: value})
