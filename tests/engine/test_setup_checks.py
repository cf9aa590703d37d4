"""What cannot work ends before the first iteration, in one message; NaN ends at once."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from helpers.made_up_tubes import write_tube_config, write_tubes
from helpers.run_tool import run_tool
from helpers.tiny_corpus import FEATURE_SIZE, write_config, write_corpus


def train(config, *options):
    code, output = run_tool('train.py', config, '--work-dir', config.parent / 'work', *options)
    return code, ' '.join(output.split())


def refused(config, *options) -> str:
    """The message of a training that must end before its first iteration."""
    code, output = train(config, *options)
    assert code == 1
    assert 'Epoch(train)' not in output
    assert 'Traceback' not in output
    assert not list((config.parent / 'work').glob('*.pth'))
    return output[output.rindex('Error: ') :]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / 'corpus', train=4, test=3)


@pytest.fixture
def config(tmp_path, corpus):
    return write_config(tmp_path / 'tiny.py', corpus)


def test_validation_features_of_another_size_are_named_with_file_and_video(corpus, config):
    with h5py.File(corpus / 'wide.h5', 'w') as file:
        for video in json.loads((corpus / 'test.json').read_text()):
            file[video] = np.zeros((9, FEATURE_SIZE + 1), np.float32)
    message = refused(
        config, '--cfg-options', 'val_dataloader.dataset.data_prefix.features=wide.h5'
    )
    assert re.search(r'video test_0 have size 7, but model.backbone.in_channels is 6', message)
    assert 'wide.h5' in message


def change_features(corpus, change, written=True):
    with h5py.File(corpus / 'features.h5', 'a') as file:
        for video_id in sorted(file):
            array = change(file[video_id][()])
            del file[video_id]
            dataset = file.create_dataset(video_id, array.shape, array.dtype)
            if written:
                dataset[:] = array


def test_features_that_were_never_written_are_refused(corpus, config):
    change_features(corpus, np.zeros_like, written=False)
    assert re.search(r"features\.h5: video '\w+' was never written", refused(config))


def test_features_that_are_all_zero_are_refused(corpus, config):
    change_features(corpus, np.zeros_like)
    assert re.search(
        r'features\.h5: of 4 videos that were looked at, 4 tell nothing.*all zero', refused(config)
    )


def test_features_that_never_change_are_warned_of(corpus, config):
    change_features(corpus, lambda array: np.repeat(array[:1], len(array), axis=0))
    code, output = train(config, '--cfg-options', 'train_cfg.max_epochs=1')
    assert code == 0
    assert 'never change' in output
    assert output.index('never change') < output.index('Epoch(train)')


def test_a_number_of_segments_that_does_not_fit_the_grid_is_refused(config):
    message = refused(config, '--cfg-options', 'val_dataloader.dataset.pipeline.1.num_segments=24')
    assert '24 feature rows of video test_0 give 12 clips, but model.grid.num_clips is 8' in message


@pytest.mark.parametrize('sentence', ['', '猫'])
def test_a_validation_sentence_that_cannot_be_encoded_is_named(corpus, config, sentence):
    edit(
        corpus / 'test.json', lambda videos: videos['test_1']['sentences'].__setitem__(0, sentence)
    )
    message = refused(config)
    assert 'test.json' in message
    assert "video 'test_1', sentence 0" in message


def test_a_vocabulary_larger_than_the_language_models_is_refused(corpus, config):
    with (corpus / 'vocab.txt').open('a') as file:
        file.writelines(f'word{i}\n' for i in range(40))
    assert 'do not belong together' in refused(config)


def test_more_ranks_than_the_head_keeps_are_refused(config):
    assert 'model.head.top_n=3' in refused(config, '--cfg-options', 'model.head.top_n=3')


def test_a_best_checkpoint_by_an_unknown_metric_is_refused(config):
    message = refused(
        config, '--cfg-options', 'default_hooks.checkpoint.save_best=grounding/R1@0.55'
    )
    assert 'grounding/R1@0.5,' in message


OPTIMISTIC = 'chooses the checkpoint on the test split'


def test_choosing_the_best_epoch_on_the_test_split_is_warned_of(corpus, config):
    code, output = train(config)
    assert code == 0
    assert (
        f'save_best=grounding/R1@0.5 {OPTIMISTIC}: validation reads {corpus / "test.json"}'
        in output
    )
    assert output.index(OPTIMISTIC) < output.index('Epoch(train)')


def test_a_copy_of_the_test_annotations_is_the_test_split_too(corpus, config):
    shutil.copy(corpus / 'test.json', corpus / 'copy.json')
    _, output = train(config, '--cfg-options', 'val_dataloader.dataset.ann_file=copy.json')
    assert OPTIMISTIC in output


def test_tubes_in_wrappers_chosen_on_the_test_split_are_warned_of(tmp_path):
    tubes = write_tube_config(tmp_path / 'tubes.py', write_tubes(tmp_path / 'tubes'))
    with tubes.open('a') as file:
        file.write("""
_inner = dict(type='TubeGroundingDataset', ann_file='test.h5', test_mode=True, **{
    key: value for key, value in val_dataloader['dataset'].items()}, pipeline=[
        dict(type='LoadTubes'), dict(type='PoolTubeFeatures', num_segments=32),
        dict(type='PackTubeInputs')])
val_dataloader['dataset'] = dict(_delete_=True, type='ConcatDataset', datasets=[_inner])
""")
    code, output = train(tubes)
    assert code == 0, output
    assert f'save_best=tubes/m_vIoU {OPTIMISTIC}' in output


def test_a_validation_split_of_its_own_is_not_warned_of(corpus, config):
    shutil.copy(corpus / 'test.json', corpus / 'val.json')
    edit(corpus / 'val.json', lambda videos: videos.pop('test_0'))
    code, output = train(config, '--cfg-options', 'val_dataloader.dataset.ann_file=val.json')
    assert code == 0
    assert OPTIMISTIC not in output


def test_validating_on_the_test_split_without_choosing_is_not_warned_of(config):
    code, output = train(config, '--cfg-options', 'default_hooks.checkpoint.save_best=None')
    assert code == 0
    assert OPTIMISTIC not in output
    assert not list((config.parent / 'work').glob('best_*'))


def test_a_batch_size_to_which_the_learning_rate_does_not_belong_is_warned_of(config):
    options = ('--cfg-options', 'auto_scale_lr.base_batch_size=8', 'train_cfg.max_epochs=1')
    _, output = train(config, *options)
    warning = 'a step has 2 videos (1 x 2), and the learning rate belongs to 8'
    assert output.index(warning) < output.index('Epoch(train)')
    assert '--auto-scale-lr multiplies it by 0.25' in output
    _, output = train(config, '--resume', *options[:-1], 'train_cfg.max_epochs=2')
    assert f'{warning} (auto_scale_lr.base_batch_size): the resumed run keeps the rate' in output


@pytest.mark.parametrize(
    'options',
    [
        ['--cfg-options', 'auto_scale_lr.base_batch_size=2'],
        ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=8'],
    ],
)
def test_a_learning_rate_that_belongs_to_the_batch_size_is_not_warned_of(config, options):
    code, output = train(config, *options, 'train_cfg.max_epochs=1')
    assert code == 0
    assert 'the learning rate belongs to' not in output


def test_sizes_of_the_joint_space_that_differ_are_refused(config):
    assert 'must be one size' in refused(config, '--cfg-options', 'model.neck.embed_channels=4')


def test_more_positives_than_moments_are_refused(config):
    assert 'fewer moments' in refused(
        config, '--cfg-options', 'model.head.loss_matching.num_positive=99'
    )


def test_a_loss_that_is_nan_ends_the_run_and_names_the_videos(corpus, config):
    code, output = train(config, '--cfg-options', 'optim_wrapper.optimizer.lr=1e30')
    assert code == 1
    assert 'Traceback' not in output
    assert re.search(r'Error: loss.*(nan|inf) at epoch \d, iteration \d.*videos .*train_\d', output)


def test_a_checkpoint_of_other_moments_is_refused_although_its_weights_fit(config):
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1')[0] == 0
    checkpoint = config.parent / 'work' / 'epoch_1.pth'
    other = (
        '--cfg-options',
        'model.grid.num_clips=16',
        'model.grid.pooling_counts=[7]',
        'model.backbone.kernel_size=1',
        'model.backbone.stride=1',
    )
    code, output = run_tool(
        'test.py', config, checkpoint, '--work-dir', config.parent / 'test', *other
    )
    assert code == 1
    assert 'num_clips: 8, here 16' in ' '.join(output.split())
    assert 'Grounding (percent)' not in output
    code, output = train(config, '--resume', *other)
    assert code == 1
    assert 'num_clips: 8, here 16' in output
