"""The corpus of Shapes on the disk."""

import hashlib
import json

import h5py
import numpy as np
import pytest

from mmn_plugin.shapes import COLORS, CorpusError, ShapesCorpus, held_out_combinations
from mmn_plugin.structures.annotations import read_annotations

ARGUMENTS = dict(num_videos=20, seed=5, size=32)


def digests(folder):
    files = [*folder.glob('a*/**/*.json'), folder / 'vocab.txt', folder / 'manifest.json']
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    corpus = ShapesCorpus(tmp_path_factory.mktemp('corpus') / 'out', **ARGUMENTS)
    corpus.write(workers=0)
    return corpus


def test_everything_is_there_and_in_the_published_format(corpus):
    for split, count in dict(train=16, val=2, test=2).items():
        videos = read_annotations(corpus.folder / 'annotations' / f'{split}.json')
        assert len(videos) == count
        for video in videos:
            assert video.duration == 24
            assert (corpus.folder / 'videos' / f'{video.video_id}.mp4').is_file()
    entries = json.loads((corpus.folder / 'annotations/train.json').read_text())
    assert set(next(iter(entries.values()))) == {'duration', 'timestamps', 'sentences'}
    assert not list(corpus.folder.rglob('*.part'))
    assert corpus.complete
    manifest = json.loads((corpus.folder / 'manifest.json').read_text())
    ranges = [set(range(a, b + 1)) for a, b in manifest['scene_seeds'].values()]
    assert sum(map(len, ranges)) == len(set.union(*ranges)) == 20, 'splits share no seed'
    assert manifest['seed'] == 5
    assert {tuple(triple) for triple in manifest['held_out']} == held_out_combinations(5)


def test_subsets_divide_the_sentences_of_test(corpus):
    folder = corpus.folder / 'annotations'
    subsets, unseen, test = (
        json.loads((folder / f'{name}.json').read_text())
        for name in ('test_subsets', 'test_unseen', 'test')
    )
    for video, entry in test.items():
        known, new = (subsets[name].get(video, []) for name in ('seen', 'unseen'))
        assert sorted(known + new) == list(range(len(entry['sentences'])))
        assert (video in unseen) == bool(new)
        for key in ('timestamps', 'sentences') if new else ():
            assert unseen[video][key] == [entry[key][i] for i in new]


def test_tubes_name_the_object_of_each_sentence(corpus):
    annotations = json.loads((corpus.folder / 'annotations/train.json').read_text())
    with h5py.File(corpus.folder / 'tubes.h5') as file:
        assert len(file) == 20
        for video, entry in annotations.items():
            objects = file[video].attrs['event_objects']
            for i, (start, end) in zip(objects, entry['timestamps'], strict=True):
                tube = file[video][str(i)]
                assert tube.shape[1] == 5
                assert np.isin(np.arange(round(start * 8), round(end * 8)), tube[:, 0]).all()
                assert tube.attrs['color'] in COLORS


def test_an_interrupted_run_goes_on_and_the_same_seed_gives_the_same_bytes(corpus, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, _):
        if done == 7:
            raise StopError

    with pytest.raises(StopError):
        ShapesCorpus(tmp_path, **ARGUMENTS).write(workers=0, progress=stop)
    made = times(tmp_path / 'videos')
    assert len(made) == 7
    again = ShapesCorpus(tmp_path, **ARGUMENTS)
    assert not again.complete
    again.write(workers=2)
    assert times(tmp_path / 'videos').items() >= made.items()
    assert again.complete
    assert digests(tmp_path) == digests(corpus.folder)
    assert len(digests(tmp_path)) == 5 + 12 + 2


def test_a_second_run_makes_only_what_is_lost(corpus):
    before, calls = times(corpus.folder), []
    again = ShapesCorpus(corpus.folder, **ARGUMENTS)
    again.write(workers=0, progress=lambda *done: calls.append(done))
    assert times(corpus.folder) == before
    assert calls == [(20, 20)]
    lost = corpus.folder / 'videos' / 'shapes_00003.mp4'
    lost.unlink()
    assert not corpus.complete
    corpus.write(workers=0)
    assert lost.is_file()


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(seed=6), 'another corpus.*seed=5 instead of 6.*new folder'),
        (dict(num_videos=30), 'another corpus.*num_videos=20 instead of 30.*new folder'),
        (dict(size=64), 'another corpus.*size=32 instead of 64.*new folder'),
        (dict(num_videos=9), 'at least 10'),
        (dict(size=33), 'even'),
        (dict(seed=-1), 'negative'),
    ],
)
def test_another_corpus_in_the_folder_and_impossible_ones_are_refused(corpus, changed, message):
    with pytest.raises(CorpusError, match=message):
        ShapesCorpus(corpus.folder, **{**ARGUMENTS, **changed})


@pytest.mark.parametrize(
    ('name', 'message'), [('thesis.doc', 'not empty'), ('manifest.json', 'not a manifest')]
)
def test_a_folder_with_other_things_is_refused(tmp_path, name, message):
    (tmp_path / name).write_text('{')
    with pytest.raises(CorpusError, match=message):
        ShapesCorpus(tmp_path)
