"""A checkpoint belongs to an architecture, a tokenizer and the extractor of its features."""

import json
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from helpers.tiny_corpus import VOCABULARY, write_config, write_corpus
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from mmn_plugin.engine import CheckpointIdentity, CheckpointIdentityHook
from mmn_plugin.features.feature_file import differences, read_fingerprint, require_same_extractor
from mmn_plugin.models import GroundingDataPreprocessor

GRID = dict(extractor='grid v1 size=48', stride=6, fps=8.0)
LAYER = dict(type='RecognizerFeatureExtractor', layer='backbone.fc6', weights='sha256:1')


def write_features(path, settings=GRID, size=6, videos=('a', 'b'), key=None, **more):
    with h5py.File(path, 'w') as file:
        file.attrs.update(settings, **more)
        for video in videos:
            holder = file.create_group(video) if key else file
            holder[key or video] = np.zeros((3, size), np.float32)
    return str(path)


def loop_of(*files):
    dataset = SimpleNamespace(feature_files=list(files), feature_keys=[None] * len(files))
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))


class Model(nn.Module):
    """What of a localizer its identity is made of."""

    def __init__(self, vocabulary=VOCABULARY, num_clips=8, size=2):
        super().__init__()
        self.layer, self.text_encoder = nn.Linear(size, 1), nn.Module()
        self.text_encoder.language_model = dict(model_type='distilbert')
        self.head, self.tower = nn.Module(), None
        self.head.tower_spaces = ()
        self.architecture = dict(num_clips=num_clips)
        vocabulary = vocabulary if isinstance(vocabulary, str) else list(vocabulary)
        self.data_preprocessor = GroundingDataPreprocessor(
            dict(type='SentenceTokenizer', vocab=vocabulary)
        )


def saved(path=None):
    """A checkpoint of a model, from the disk if there is a path."""
    model = Model()
    meta = CheckpointIdentity.collect(model).entries()
    checkpoint = dict(meta=meta, state_dict=model.state_dict())
    if path is None:
        return checkpoint
    torch.save(checkpoint, path)
    return torch.load(path, weights_only=True)


def runner_of(train=None, val=None, test=None, resume=False, load_from='epoch_9.pth'):
    return SimpleNamespace(
        model=Model(),
        train_loop=train,
        _train_loop={},
        val_loop=val,
        test_loop=test,
        _resume=resume,
        _load_from=load_from,
    )


def checkpoint_of(*files):
    """What a training on these files saves."""
    hook, checkpoint = CheckpointIdentityHook(), dict(meta={}, state_dict=Model().state_dict())
    runner = runner_of(loop_of(*files))
    hook.before_train(runner)
    hook.before_save_checkpoint(runner, checkpoint)
    return checkpoint


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(
        'mmn_plugin.engine.identity.print_log', lambda message, *_: lines.append(message)
    )
    return lines


def test_a_file_tells_which_extractor_made_it(tmp_path):
    path = write_features(tmp_path / 'a.h5', config=json.dumps(dict(type='Grid')))
    assert read_fingerprint(path) == dict(GRID, feature_size=6, config=dict(type='Grid'))
    nested = write_features(tmp_path / 'n.h5', key='c3d')
    assert read_fingerprint(nested, 'c3d') == dict(GRID, feature_size=6)
    assert read_fingerprint(nested) is None
    assert read_fingerprint(write_features(tmp_path / 'b.h5', {})) is None
    assert read_fingerprint(write_features(tmp_path / 'c.h5', videos=())) is None
    assert read_fingerprint(tmp_path) is None
    assert read_fingerprint(tmp_path / 'none.h5') is None


def test_a_checkpoint_carries_the_fingerprints_of_its_files(tmp_path, logged):
    files = [write_features(tmp_path / 'a.h5'), write_features(tmp_path / 'b.h5', size=4)]
    torch.save(checkpoint_of(*files), tmp_path / 'c.pth')
    found = torch.load(tmp_path / 'c.pth', weights_only=True)['meta']['extractor']
    assert found == [dict(GRID, feature_size=6), dict(GRID, feature_size=4)]
    assert logged == []


@pytest.mark.parametrize(
    ('settings', 'size', 'message'),
    [
        (dict(GRID, stride=4), 6, 'stride 6, here 4'),
        (dict(GRID, extractor='other'), 6, 'extractor grid v1 size=48, here other'),
        (GRID, 9, 'feature_size 6, here 9'),
    ],
)
@pytest.mark.parametrize('use', ['test', 'resume', 'val'])
def test_features_of_another_extractor_are_refused_and_both_are_named(
    tmp_path, settings, size, message, use
):
    ours = write_features(tmp_path / 'train.h5')
    other = write_features(tmp_path / 'other.h5', settings, size)
    hook, theirs = CheckpointIdentityHook(), checkpoint_of(ours)
    if use == 'val':
        run, named = runner_of(loop_of(ours), loop_of(other)), r'train\.h5'
    else:
        run = runner_of(loop_of(other), test=loop_of(other), resume=use == 'resume')
        hook.after_load_checkpoint(run, theirs)
        named = r'epoch_9\.pth'
    with pytest.raises(ValueError, match=f'{named} and .*other.h5 do not belong .*{message}'):
        hook.before_test(run) if use == 'test' else hook.before_train(run)


def test_corpora_of_one_training_have_one_extractor_and_each_file_without_is_named(
    tmp_path, logged
):
    files = [write_features(tmp_path / f'{name}.h5') for name in 'ab']
    files.append(write_features(tmp_path / 'plain.h5', {}))

    def joint(*names):
        loops = [loop_of(name).dataloader.dataset for name in names]
        return SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(datasets=loops)))

    CheckpointIdentityHook().before_train(runner_of(joint(*files), joint(*files)))
    (line,) = logged
    assert line.count('.h5') == line.count('plain.h5') == 1
    other = write_features(tmp_path / 'other.h5', GRID | dict(stride=3))
    with pytest.raises(ValueError, match=r'a\.h5 and .*other\.h5 do not belong together'):
        CheckpointIdentityHook().before_train(runner_of(joint(files[0], other)))


def test_of_settings_only_those_that_differ_are_told_and_as_many_files_are_needed():
    other = dict(GRID, extractor=json.dumps(dict(LAYER, layer='backbone')))
    found = differences(dict(GRID, extractor=json.dumps(LAYER)), other)
    assert found == ['layer backbone.fc6, here backbone']
    with pytest.raises(ValueError, match=r'extractors \(both RecognizerFeatureExtractor\): layer'):
        require_same_extractor([dict(GRID, extractor=json.dumps(LAYER))], [other], 'a', ['b'])
    with pytest.raises(ValueError, match=r'made with 2 feature files joined, here .* 1 \(a\.h5\)'):
        require_same_extractor([GRID, GRID], [GRID], 'c.pth', ['a.h5'])


def test_weights_may_start_a_training_on_other_features(tmp_path, logged):
    hook, checkpoint = CheckpointIdentityHook(), dict(meta={})
    run = runner_of(loop_of(write_features(tmp_path / 'new.h5', dict(GRID, stride=2))))
    hook.after_load_checkpoint(run, checkpoint_of(write_features(tmp_path / 'old.h5')))
    hook.before_train(run)
    (line,) = logged
    assert 'stride 6, here 2' in line
    hook.before_save_checkpoint(run, checkpoint)
    assert checkpoint['meta']['extractor'][0]['stride'] == 2


def test_files_without_attributes_are_accepted_with_one_warning(tmp_path, logged):
    plain = write_features(tmp_path / 'plain.h5', {})
    assert 'extractor' not in checkpoint_of(plain)['meta']
    (line,) = logged
    assert 'plain.h5: no attributes tell' in line
    logged.clear()
    theirs = checkpoint_of(write_features(tmp_path / 'told.h5'))
    hook, run = CheckpointIdentityHook(), runner_of(*[loop_of(plain)] * 3, resume=True)
    hook.after_load_checkpoint(run, theirs)
    hook.before_test(run)
    assert len(logged) == 1
    hook.before_train(run)
    hook.before_save_checkpoint(run, kept := dict(meta={}))
    assert kept['meta']['extractor'] == theirs['meta']['extractor']  # still true of a resumed run
    logged.clear()
    hook.after_load_checkpoint(run, dict(meta={}, state_dict=Model().state_dict()))
    hook.before_test(run)
    assert logged == []  # neither side tells anything


def test_a_checkpoint_carries_its_tokenizer_to_where_the_vocabulary_file_is_absent(tmp_path):
    model = Model(str(tmp_path / 'absent.txt'))
    CheckpointIdentity.check(model, saved(tmp_path / 'x.pth'))
    encoded = [
        one.data_preprocessor.tokenizer.encode(['a red door', 'the box opens'])
        for one in (model, Model())
    ]
    assert encoded[0] == encoded[1]


def test_a_checkpoint_of_another_vocabulary_is_refused_however_it_was_written_down():
    swapped = [*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]
    with pytest.raises(ValueError, match=rf"another vocabulary.* 2 differ, .*'{swapped[-1]}'"):
        CheckpointIdentity.check(Model(swapped), saved())
    checkpoint = saved()
    state = checkpoint['meta']['tokenizer']
    state['tokenizer'] = json.dumps(json.loads(state['tokenizer']), indent=2, sort_keys=True)
    CheckpointIdentity.check(Model(), checkpoint)
    state['tokenizer'] = '{}'
    with pytest.raises(ValueError, match='cannot be read by this release of tokenizers'):
        CheckpointIdentity.check(Model(), checkpoint)


def test_other_moments_are_refused_although_the_weights_fit_and_published_weights_pass():
    with pytest.raises(ValueError, match=r'another architecture .*num_clips: 8, here 16'):
        CheckpointIdentity.check(Model(num_clips=16), saved())
    weights = {f'module.{name}': value for name, value in Model().state_dict().items()}
    assert (
        CheckpointIdentity.check(Model(num_clips=3), weights).keys() == Model().state_dict().keys()
    )


def test_weights_that_do_not_fit_are_named_and_may_start_a_training_but_for_all_of_them():
    checkpoint = saved()
    del checkpoint['state_dict']['layer.bias']
    CheckpointIdentity.check(Model(), checkpoint, strict=False)
    checkpoint['state_dict']['other'] = torch.ones(1)
    with pytest.raises(ValueError, match=r'c\.pth .*1 missing: layer\.bias; 1 unknown: other\.'):
        CheckpointIdentity.check(Model(), checkpoint, 'c.pth')
    with pytest.raises(ValueError, match=r'1 of another shape: layer\.weight \(1x2, here 1x3\)'):
        CheckpointIdentity.check(Model(size=3), checkpoint, strict=False)
    with pytest.raises(ValueError, match=r'bad\.pth holds a list'):
        CheckpointIdentityHook().after_load_checkpoint(runner_of(load_from='bad.pth'), [1])


def test_training_stores_it_and_testing_compares_it(tmp_path):
    """The whole way, through MMEngine's Runner and a config of this package."""
    corpus = write_corpus(tmp_path / 'corpus')
    with h5py.File(corpus / 'features.h5', 'a') as file:
        file.attrs.update(GRID)
    config = Config.fromfile(write_config(tmp_path / 'tiny.py', corpus, epochs=1))
    config.work_dir, config.experiment_name = str(tmp_path / 'work'), 'extractor_train'
    Runner.from_cfg(config).train()
    checkpoint = tmp_path / 'work' / 'epoch_1.pth'
    meta = torch.load(checkpoint, weights_only=True)['meta']
    assert meta['extractor'] == [dict(GRID, feature_size=6)]
    assert meta['settings']['model'] == config.to_dict()['model']
    shutil.copyfile(corpus / 'features.h5', corpus / 'other.h5')
    with h5py.File(corpus / 'other.h5', 'a') as file:
        file.attrs['stride'] = 4
    config.load_from, config.experiment_name = str(checkpoint), 'extractor_test'
    config.test_dataloader.dataset.data_prefix.features = 'other.h5'
    with pytest.raises(ValueError, match=r'epoch_1\.pth and .*other\.h5 do not belong together'):
        Runner.from_cfg(config).test()
