"""Several corpora as one dataset: names, ids, and the share of each."""

from collections import Counter
from itertools import chain

import pytest
from helpers.tiny_corpus import PIPELINE, write_corpus
from mmaction.registry import DATA_SAMPLERS, DATASETS

from mmn_plugin.datasets import CorpusSampler


@pytest.fixture(scope='module')
def joint(tmp_path_factory):
    """Three videos of one corpus and ten of another, with the same ids."""
    parts = []
    for number, (corpus, count) in enumerate((('kitchen', 3), ('street', 10))):
        folder = write_corpus(tmp_path_factory.mktemp(corpus), train=count, seed=number)
        parts.append(
            dict(
                type='TemporalGroundingDataset',
                corpus=corpus,
                ann_file='train.json',
                data_root=str(folder),
                data_prefix=dict(features='features.h5'),
                pipeline=PIPELINE,
            )
        )
    return DATASETS.build(dict(type='JointDataset', datasets=parts))


def epochs(dataset, number, **settings):
    """Corpus and id of every video of some epochs."""
    sampler = DATA_SAMPLERS.build(
        dict(type='CorpusSampler', seed=1, **settings), default_args=dict(dataset=dataset)
    )
    ids = [dataset.get_data_info(i)['video_id'] for i in range(len(dataset))]
    result = []
    for epoch in range(number):
        sampler.set_epoch(epoch)
        result.append([ids[place] for place in sampler])
        assert len(result[-1]) == len(sampler)
    return sampler, result


def sentences(dataset, corpus=None):
    infos = map(dataset.get_data_info, range(len(dataset)))
    return [len(info['sentences']) for info in infos if corpus in (None, info['corpus'])]


def test_the_same_id_in_two_corpora_is_two_videos(joint):
    samples = [joint[i]['data_samples'] for i in range(len(joint))]
    ids = [sample.video_id for sample in samples]
    assert len({*ids}) == 13
    assert {'kitchen/train_0', 'street/train_0'} < {*ids}
    assert all(sample.video_id.startswith(f'{sample.corpus}/') for sample in samples)
    assert not (joint[0]['inputs'] == joint[3]['inputs']).all()  # each from its own file


@pytest.mark.parametrize('name', ['a/b', '', 'mean', 'chance', 3.5])
def test_a_name_of_a_corpus_that_figures_could_not_have_is_refused(name):
    with pytest.raises(ValueError, match='corpus='):
        DATASETS.build(dict(type='TemporalGroundingDataset', ann_file='a.json', corpus=name))


@pytest.mark.parametrize('shares', [None, dict(kitchen=1, street=1), dict(kitchen=0.2, street=0.8)])
def test_each_corpus_has_its_share_of_an_epochs_sentences_whatever_its_size(joint, shares):
    _, drawn = epochs(joint, 30, shares=shares, num_sentences=60)
    wanted = dict(shares or dict(kitchen=1, street=1))
    per_video = dict(zip((i['video_id'] for i in map(joint.get_data_info, range(13))),
                         sentences(joint), strict=True))  # fmt: skip
    found = Counter()
    for video_id in chain(*drawn):
        found[video_id.partition('/')[0]] += per_video[video_id]
    for corpus, share in wanted.items():
        wanted_share = share / sum(wanted.values())
        # whole videos: half a video's sentences (1.5) of 60 per corpus and epoch
        assert found[corpus] / found.total() == pytest.approx(wanted_share, abs=2 * 1.5 / 60)


def test_an_epoch_has_as_many_sentences_as_the_corpora_together_by_default(joint):
    sampler, _ = epochs(joint, 1)
    half = sum(sentences(joint)) / 2
    for corpus, size in (('kitchen', 3), ('street', 10)):
        per_video = sum(sentences(joint, corpus)) / size
        assert sampler.counts[corpus] == round(half / per_video)


def test_no_video_comes_again_before_all_of_its_corpus_have_come(joint):
    sampler, drawn = epochs(joint, 9, num_sentences=20)
    for corpus, size in (('kitchen', 3), ('street', 10)):
        assert sampler.counts[corpus] % size  # so that epochs do not end where passes do
        own = [[v for v in epoch if v.startswith(corpus)] for epoch in drawn]
        seen = Counter()
        for epoch in own:
            seen.update(epoch)
            assert max(seen.values()) - min(seen[v] for v in {*chain(*own)}) <= 1
        assert len(seen) == size
        assert len({*map(tuple, own)}) == len(own)  # in another order each time


def test_the_order_follows_from_seed_and_epoch_and_corpora_are_mixed(joint):
    _, first = epochs(joint, 3)
    sampler, second = epochs(joint, 3)
    assert first == second
    assert len({*map(tuple, first)}) == 3
    corpora = [video_id.partition('/')[0] for video_id in first[0]]
    assert corpora not in (sorted(corpora), sorted(corpora, reverse=True))
    sampler.seed = 2  # as a resumed run sets it
    assert [*sampler] != [*epochs(joint, 3)[0]]


@pytest.mark.parametrize('world_size', [2, 4])
def test_processes_share_an_epoch_out_evenly(joint, monkeypatch, world_size):
    _, (whole,) = epochs(joint, 1)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr(
            'mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, world_size)
        )
        _, (part,) = epochs(joint, 1)
        parts.append(part)
    assert len({*map(len, parts)}) == 1
    dealt = [video_id for row in zip(*parts, strict=True) for video_id in row]
    assert dealt[: len(whole)] == whole
    assert dealt[len(whole) :] == whole[: len(dealt) - len(whole)]


def test_a_corpus_of_a_single_video_and_a_tiny_share_is_still_drawn(joint):
    sampler, (drawn,) = epochs(joint, 1, shares=dict(kitchen=1e-6, street=1))
    assert sampler.counts['kitchen'] == 1
    assert sum(video_id.startswith('kitchen') for video_id in drawn) == 1


@pytest.mark.parametrize(
    'settings',
    [
        dict(shares=dict(kitchen=1)),
        dict(shares=dict(kitchen=1, street=1, garden=1)),
        dict(shares=dict(kitchen=1, street=0)),
        dict(num_sentences=0),
    ],
)
def test_shares_of_other_corpora_and_no_share_are_refused(joint, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CorpusSampler(joint, **settings)


def test_a_dataset_without_a_corpus_and_a_dataset_of_one_corpus_are_refused(tmp_path):
    folder = write_corpus(tmp_path)
    part = dict(type='TemporalGroundingDataset', ann_file=str(folder / 'train.json'))
    with pytest.raises(ValueError, match=r'train\.json has no corpus'):
        DATASETS.build(dict(type='JointDataset', datasets=[part]))
    with pytest.raises(ValueError, match='not TemporalGroundingDataset'):
        CorpusSampler(DATASETS.build(part))
