import hashlib
import json

import h5py
import numpy as np
import pytest

from mmn_plugin.shapes import CorpusError, ShapesCorpus, held_out_combinations
from mmn_plugin.structures.annotations import read_annotations


def _digests(folder, pattern):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
    }


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    corpus = ShapesCorpus(tmp_path_factory.mktemp('corpus') / 'out', num_videos=20, seed=5, size=32)
    corpus.write(workers=0)
    return corpus


def test_everything_is_there_and_in_the_published_format(corpus):
    counts = {}
    for split in ('train', 'val', 'test'):
        videos = read_annotations(corpus.folder / 'annotations' / f'{split}.json')
        counts[split] = len(videos)
        for video in videos:
            assert video.duration == 24
            assert (corpus.folder / 'videos' / f'{video.video_id}.mp4').is_file()
    assert counts == dict(train=16, val=2, test=2)
    entry = next(iter(json.loads((corpus.folder / 'annotations/train.json').read_text()).values()))
    assert set(entry) == {'duration', 'timestamps', 'sentences'}
    assert not list(corpus.folder.rglob('*.part'))
    assert corpus.complete


def test_splits_share_no_video_and_no_seed(corpus):
    manifest = json.loads((corpus.folder / 'manifest.json').read_text())
    ranges = [set(range(a, b + 1)) for a, b in manifest['scene_seeds'].values()]
    assert sum(map(len, ranges)) == len(set.union(*ranges)) == 20
    assert manifest['seed'] == 5
    assert {tuple(triple) for triple in manifest['held_out']} == held_out_combinations(5)


def test_same_seed_gives_the_same_bytes_of_annotation(corpus, tmp_path):
    ShapesCorpus(tmp_path, 20, 5, 32).write(workers=2)
    for pattern in ('annotations/*', 'ablations/*/*', 'vocab.txt', 'manifest.json'):
        expected = _digests(corpus.folder, pattern)
        assert expected
        assert _digests(tmp_path, pattern) == expected


def test_subsets_divide_the_sentences_of_test(corpus):
    folder = corpus.folder / 'annotations'
    subsets = json.loads((folder / 'test_subsets.json').read_text())
    unseen = json.loads((folder / 'test_unseen.json').read_text())
    for video, entry in json.loads((folder / 'test.json').read_text()).items():
        known, new = (subsets[name].get(video, []) for name in ('seen', 'unseen'))
        assert sorted(known + new) == list(range(len(entry['sentences'])))
        if new:
            assert unseen[video]['sentences'] == [entry['sentences'][i] for i in new]


def test_tubes_name_the_object_of_each_sentence(corpus):
    annotations = json.loads((corpus.folder / 'annotations/train.json').read_text())
    with h5py.File(corpus.folder / 'tubes.h5') as file:
        assert len(file) == 20
        for video, entry in annotations.items():
            objects = file[video].attrs['event_objects']
            assert len(objects) == len(entry['sentences'])
            for i, (start, end) in zip(objects, entry['timestamps'], strict=True):
                tube = file[video][str(i)]
                assert tube.shape[1] == 5
                inside = np.arange(round(start * 8), round(end * 8))
                assert np.isin(inside, tube[:, 0]).all()
                assert file[video][str(i)].attrs['color'] in (
                    'red',
                    'yellow',
                    'green',
                    'cyan',
                    'blue',
                    'purple',
                )


def test_a_second_run_does_nothing_twice(corpus):
    before = {p: p.stat().st_mtime_ns for p in corpus.folder.rglob('*')}
    calls = []
    ShapesCorpus(corpus.folder, 20, 5, 32).write(workers=0, progress=lambda *a: calls.append(a))
    assert {p: p.stat().st_mtime_ns for p in corpus.folder.rglob('*')} == before
    assert calls == [(20, 20)]


def test_an_interrupted_run_goes_on_and_ends_the_same(corpus, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, _):
        if done == 7:
            raise StopError

    with pytest.raises(StopError):
        ShapesCorpus(tmp_path, 20, 5, 32).write(workers=0, progress=stop)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / 'videos').glob('*.mp4')}
    assert len(made) == 7
    again = ShapesCorpus(tmp_path, 20, 5, 32)
    assert not again.complete
    again.write(workers=0)
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert _digests(tmp_path, 'annotations/*') == _digests(corpus.folder, 'annotations/*')
    assert again.complete


def test_a_lost_video_is_made_again(corpus):
    lost = corpus.folder / 'videos' / 'shapes_00003.mp4'
    lost.unlink()
    assert not corpus.complete
    corpus.write(workers=0)
    assert lost.is_file()


@pytest.mark.parametrize(
    ('changed', 'named'),
    [
        (dict(seed=6), 'seed=5 instead of 6'),
        (dict(num_videos=30), 'num_videos=20 instead of 30'),
        (dict(size=64), 'size=32 instead of 64'),
    ],
)
def test_a_folder_with_another_corpus_is_refused(corpus, changed, named):
    with pytest.raises(CorpusError, match=f'another corpus.*{named}.*new folder'):
        ShapesCorpus(corpus.folder, **{**dict(num_videos=20, seed=5, size=32), **changed})


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / 'thesis.doc').touch()
    with pytest.raises(CorpusError, match='not empty'):
        ShapesCorpus(tmp_path)


def test_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / 'manifest.json').write_text('{')
    with pytest.raises(CorpusError, match='not a manifest'):
        ShapesCorpus(tmp_path)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(num_videos=9), 'at least 10'), (dict(size=33), 'even'), (dict(seed=-1), 'negative')],
)
def test_impossible_sizes_are_refused(tmp_path, arguments, message):
    with pytest.raises(CorpusError, match=message):
        ShapesCorpus(tmp_path, **arguments)
