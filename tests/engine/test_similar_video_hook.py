"""What the sampler of hard batches knows of the videos, and when."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_models import build_tiny
from mmaction.registry import DATASETS
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmn_plugin.datasets import SimilarVideoSampler, stack_videos
from mmn_plugin.engine import SimilarVideoHook, schedules


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('similar')
    config = Config.fromfile(write_config(folder / 'tiny.py', write_corpus(folder / 'corpus', 7)))
    return DATASETS.build(config.train_dataloader.dataset)


def runner_of(dataset, model, sampler=None):
    sampler = sampler or SimilarVideoSampler(dataset, group_size=4, seed=1)
    loader = DataLoader(dataset, 2, sampler=sampler, collate_fn=stack_videos)
    return SimpleNamespace(epoch=0, model=model, train_dataloader=loader)


def vectors_of(runner, **settings):
    hook = SimilarVideoHook(batch_size=3, **settings)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    return runner.train_dataloader.sampler.vectors


def test_vectors_are_means_of_features_or_of_the_models_contrastive_embeddings(dataset):
    model = build_tiny()
    means = torch.stack([dataset[index]['inputs'].mean(0) for index in range(7)])
    found = vectors_of(runner_of(dataset, model))
    np.testing.assert_allclose(found, F.normalize(means, dim=1), rtol=1e-5, atol=1e-6)
    model.eval()
    samples = [dataset[index] for index in range(7)]
    videos = [model.embed_sample(s['inputs'], s['data_samples'])[0] for s in samples]
    means = torch.stack([video.embeddings['contrastive'].mean(0) for video in videos])
    found = vectors_of(runner_of(dataset, model.train()), by='model')
    np.testing.assert_allclose(found, F.normalize(means, dim=1), rtol=1e-4, atol=1e-5)


def test_processes_embed_the_videos_between_them(dataset, monkeypatch):
    model, parts = build_tiny(), []
    alone = vectors_of(runner_of(dataset, model), by='model')
    monkeypatch.setattr(schedules, 'get_world_size', lambda: 2)

    def gather(part):
        parts.append(part)
        return parts if len(parts) == 2 else [part, part[:3]]

    monkeypatch.setattr(schedules, 'all_gather_object', gather)
    for rank in (0, 1):
        monkeypatch.setattr(schedules, 'get_rank', lambda rank=rank: rank)
        found = vectors_of(runner_of(dataset, model), by='model')
    assert [*map(len, parts)] == [4, 3]
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def test_the_models_vectors_are_made_again_at_their_epochs_and_are_part_of_the_run(dataset):
    hook, runner, seen = SimilarVideoHook(by='model', interval=2), None, []
    runner = runner_of(dataset, build_tiny())
    before = torch.get_rng_state()
    for runner.epoch in range(4):
        hook.before_train_epoch(runner)
        seen.append(runner.train_dataloader.sampler.vectors)
        with torch.no_grad():
            next(runner.model.neck.parameters()).mul_(-1.5)
    assert torch.equal(torch.get_rng_state(), before)
    assert (seen[0] == seen[1]).all()
    assert (seen[2] == seen[3]).all()
    assert (seen[1] != seen[2]).any()
    resumed = SimilarVideoHook(by='model', interval=2)
    resumed.load_common_state(hook.common_state())
    resumed.before_train_epoch(runner)  # inside epoch 3: the model has moved since
    assert (runner.train_dataloader.sampler.vectors == seen[3]).all()
    features = SimilarVideoHook()
    features.load_common_state(hook.common_state())
    assert features.vectors is None
    features.before_train_epoch(runner)
    assert features.common_state() == {}


def test_another_sampler_and_wrong_settings_are_refused(dataset):
    other = torch.utils.data.SequentialSampler(dataset)
    with pytest.raises(ValueError, match=r"type='SimilarVideoSampler'.*not SequentialSampler"):
        SimilarVideoHook().before_train(runner_of(dataset, build_tiny(), other))
    for settings in (dict(by='tower'), dict(interval=0), dict(batch_size=0)):
        with pytest.raises(ValueError, match='SimilarVideoHook: by='):
            SimilarVideoHook(**settings)
    with pytest.raises(ValueError, match=r"interval=2 has no effect with by='features'"):
        SimilarVideoHook(interval=2)


def test_groups_that_begin_in_the_middle_of_a_step_are_refused(dataset, monkeypatch):
    def begin(processes, size):
        monkeypatch.setattr(schedules, 'get_world_size', lambda: processes)
        sampler = SimilarVideoSampler(dataset, group_size=size)
        SimilarVideoHook().before_train(runner_of(dataset, build_tiny(), sampler))

    for processes, size in ((1, 2), (1, 4), (2, 2), (2, 4)):  # batches are of 2 videos
        begin(processes, size)
    for processes, size, step in ((1, 3, 2), (2, 3, 4), (2, 6, 4)):
        with pytest.raises(ValueError, match=rf'group_size={size}, but a step has {step} videos'):
            begin(processes, size)
