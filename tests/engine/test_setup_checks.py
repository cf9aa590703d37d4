"""What cannot work ends before the first iteration, in one message; NaN ends at once."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from helpers.made_up_tubes import write_tube_config, write_tubes
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import FEATURE_SIZE, write_config, write_corpus


def train(config, *options, flags=()):
    options = ('--cfg-options', *options) if options else ()
    work = config.parent / 'work'
    code, output = run_tool('train.py {} --work-dir {}', config, work, *flags, *options)
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
    return write_config(tmp_path / 'tiny.py', corpus, epochs=1)


def change_features(corpus, change, written=True):
    with h5py.File(corpus / 'features.h5', 'a') as file:
        for video_id in sorted(file):
            array = change(file[video_id][()])
            del file[video_id]
            dataset = file.create_dataset(video_id, array.shape, array.dtype)
            if written:
                dataset[:] = array


def test_features_that_do_not_fit_the_model_are_named_with_file_and_video(corpus, config):
    with h5py.File(corpus / 'wide.h5', 'w') as file:
        for video in json.loads((corpus / 'test.json').read_text()):
            file[video] = np.zeros((9, FEATURE_SIZE + 1), np.float32)
    message = refused(config, 'val_dataloader.dataset.data_prefix.features=wide.h5')
    assert re.search(r'video test_0 have size 7, but model.backbone.in_channels is 6', message)
    assert 'wide.h5' in message
    message = refused(config, 'val_dataloader.dataset.pipeline.1.num_segments=24')
    assert '24 feature rows of video test_0 give 12 clips, but model.grid.num_clips is 8' in message


@pytest.mark.parametrize(
    ('written', 'message'),
    [
        (True, r'features\.h5: of 4 videos that were looked at, 4 tell nothing.*all zero'),
        (False, r"features\.h5: video '\w+' was never written"),
    ],
)
def test_features_that_are_zero_or_were_never_written_are_refused(corpus, config, written, message):
    change_features(corpus, np.zeros_like, written)
    assert re.search(message, refused(config))


@pytest.mark.parametrize('sentence', ['', '猫'])
def test_a_validation_sentence_that_cannot_be_encoded_is_named(corpus, config, sentence):
    edit(
        corpus / 'test.json', lambda videos: videos['test_1']['sentences'].__setitem__(0, sentence)
    )
    assert re.search(r"test\.json: video 'test_1', sentence 0 ", refused(config))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.head.top_n=3', 'model.head.top_n=3'),
        ('default_hooks.checkpoint.save_best=grounding/R1@0.55', 'grounding/R1@0.5,'),
        ('model.neck.embed_channels=4', 'must be one size'),
        ('model.head.loss_matching.num_positive=99', 'fewer moments'),
        ('model.head.negatives.videos_per_step=5', 'more than the 4 videos of the training set'),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(config, option, message):
    assert message in refused(config, option)


def test_a_vocabulary_larger_than_the_language_models_is_refused(corpus, config):
    with (corpus / 'vocab.txt').open('a') as file:
        file.writelines(f'word{i}\n' for i in range(40))
    assert 'do not belong together' in refused(config)


def two_datasets(config, corpus, kind, name=None):
    """The validation on two folders with the same ids."""
    shutil.copytree(corpus, corpus.with_name('other'))
    parts = [dict(data_root=str(corpus)), dict(data_root=str(corpus.with_name('other')))]
    if name:
        parts = [dict(part, corpus=name + str(place)) for place, part in enumerate(parts)]
    with config.open('a') as file:
        file.write(f"""
_inner = dict(val_dataloader['dataset'], type='TemporalGroundingDataset', test_mode=True)
val_dataloader['dataset'] = dict(_delete_=True, type={kind!r}, datasets=[
    dict(_inner, **part) for part in {parts}])
""")


def test_one_id_in_two_datasets_is_refused_unless_they_are_corpora(corpus, config):
    two_datasets(config, corpus, 'ConcatDataset')
    assert re.search(r"both have a video 'test_0'.*give each dataset a corpus", refused(config))


def test_a_best_mean_over_corpora_is_known_before_training(corpus, config):
    best = 'default_hooks.checkpoint.save_best=grounding/mean/R1@0.5'
    assert 'grounding/mean/R1@0.5' in refused(config, best)
    two_datasets(config, corpus, 'JointDataset', 'part')
    message = refused(config, f'{best}5')
    assert 'grounding/mean/R1@0.5,' in message
    assert 'grounding/part1/R5@0.7,' in message


OPTIMISTIC = 'chooses the checkpoint on the test split'
RATE = 'a step has 2 videos (1 x 2), and the learning rate belongs to 8'


def test_what_is_hardly_meant_is_warned_of_before_training(corpus, config):
    """Constant features; a batch size of another rate; a rate for nothing; a choice on test."""
    change_features(corpus, lambda array: np.repeat(array[:1], len(array), axis=0))
    keys = 'optim_wrapper.paramwise_cfg.custom_keys'
    options = (
        'auto_scale_lr.base_batch_size=8',
        f'{keys}.bret.lr_mult=0.5',
        f'{keys}.neck.lr_mult=0.5',
    )
    code, output = train(config, *options)
    assert code == 0
    chosen = f'save_best=grounding/R1@0.5 {OPTIMISTIC}: validation reads {corpus / "test.json"}'
    unused = f'{keys} sets rates for bret, which no parameter has in its name'
    for text in (chosen, unused, RATE, '--auto-scale-lr multiplies it by 0.25', 'never change'):
        assert output.index(text) < output.index('Epoch(train)'), text
    _, output = train(config, *options, 'train_cfg.max_epochs=2', flags=['--resume'])
    assert f'{RATE} (auto_scale_lr.base_batch_size): the resumed run keeps the rate' in output


def test_a_split_of_its_own_and_a_rate_that_follows_are_not_warned_of(corpus, config):
    shutil.copy(corpus / 'test.json', corpus / 'val.json')
    own = 'val_dataloader.dataset.ann_file=val.json'
    _, output = train(config, own, 'auto_scale_lr.base_batch_size=2')
    assert OPTIMISTIC in output  # a copy is the test split too
    assert 'the learning rate belongs to' not in output
    edit(corpus / 'val.json', lambda videos: videos.pop('test_0'))
    step = ('model.head.negatives.videos_per_step=4', 'model.head.negatives.piece=2')
    options = (own, 'auto_scale_lr.base_batch_size=8', *step)
    code, output = train(config, *options, flags=['--auto-scale-lr'])
    assert code == 0
    assert 'a step has 4 videos: 1 x 4' in output
    assert 'the current batch size is 4. Scaling the original LR by 0.5' in output
    assert OPTIMISTIC not in output
    assert 'the learning rate belongs to' not in output


def test_validating_on_the_test_split_without_choosing_is_not_warned_of(config):
    code, output = train(config, 'default_hooks.checkpoint.save_best=None')
    assert code == 0
    assert OPTIMISTIC not in output
    assert not list((config.parent / 'work').glob('best_*'))


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


def test_a_loss_that_is_nan_ends_the_run_and_names_the_videos(config):
    code, output = train(config, 'optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_epochs=2')
    assert code == 1
    assert 'Traceback' not in output
    assert re.search(r'Error: loss.*(nan|inf) at epoch \d, iteration \d.*videos .*train_\d', output)


def test_a_checkpoint_of_other_moments_is_refused_although_its_weights_fit(config):
    assert train(config)[0] == 0
    checkpoint = config.parent / 'work' / 'epoch_1.pth'
    other = (
        'model.grid.num_clips=16',
        'model.grid.pooling_counts=[7]',
        'model.backbone.kernel_size=1',
        'model.backbone.stride=1',
    )
    line = 'test.py {} {} --work-dir {} --cfg-options'
    output = output_of(line, config, checkpoint, config.parent / 'test', *other, code=1)
    assert 'num_clips: 8, here 16' in ' '.join(output.split())
    assert 'Grounding (percent)' not in output
    code, output = train(config, *other, flags=['--resume'])
    assert code == 1
    assert 'num_clips: 8, here 16' in output
