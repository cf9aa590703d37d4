"""Libraries: what a search finds, what adding and removing leave, what is refused."""

import shutil
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from helpers.small_library import SECONDS, SENTENCES, small_library, write_features
from helpers.tiny_grounder import GRID_SIZE, write_scene
from helpers.zero_shot_config import SENTENCES as TOWER_SENTENCES
from helpers.zero_shot_config import write_zero_shot
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.long_video import VideoEncoder
from mmn_plugin.errors import InputError, MissingFileError, OperationError, UserError
from mmn_plugin.library import MomentLibrary, answers


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """A library that no test changes; float32, as what it is compared with."""
    return small_library(tmp_path_factory.mktemp('small'), dtype='float32')


@pytest.fixture
def copied(small, tmp_path):
    """A copy that a test may change, and its folder."""
    shutil.copytree(small.library.folder, tmp_path / 'LIB')
    return MomentLibrary(tmp_path / 'LIB', small.model, readonly=False)


def spans(hits):
    return [[hit.start, hit.end] for hit in hits]


def test_in_each_video_a_library_finds_what_the_model_finds(small):
    for video in ('v0', 'v4'):
        encoded = small.model.encode(f'{small.features}::{video}')
        found = small.library.search(SENTENCES, top=5, videos=video)
        for answer, hits in zip(small.model.ground(encoded, SENTENCES, 5), found, strict=True):
            assert {hit.video_id for hit in hits} == {video}
            assert spans(hits) == answer['moments']
            np.testing.assert_allclose([hit.score for hit in hits], answer['scores'], rtol=1e-5)
            assert {hit.duration for hit in hits} == {SECONDS}


def test_all_videos_are_ranked_together_and_suppressed_each_on_its_own(small):
    everything = []
    for video in small.library.store.snapshot().by_id:
        encoded = small.model.encode(f'{small.features}::{video}')
        (answer,) = small.model.ground(encoded, [SENTENCES[1]], 100)
        pairs = zip(answer['scores'], answer['moments'], strict=True)
        everything += [(score, video, moment) for score, moment in pairs]
    best = sorted(everything, reverse=True)[:30]
    (hits,) = small.library.search(SENTENCES[1], top=30)
    assert [(hit.video_id, [hit.start, hit.end]) for hit in hits] == [one[1:] for one in best]


@pytest.mark.parametrize('group', ['moment', 'video'])
@pytest.mark.parametrize('first', [1, 8])  # moments asked for at first: more until there are enough
def test_pages_are_the_parts_of_one_ranking(small, group, first, monkeypatch):
    monkeypatch.setitem(answers.FIRST, group, first)
    whole = small.library.search(SENTENCES, top=6, group=group)
    assert [len(hits) for hits in whole] == [6] * 3
    parts = [small.library.search(SENTENCES, top=2, group=group, page=k) for k in (1, 2, 3)]
    assert [first + second + third for first, second, third in zip(*parts, strict=True)] == whole
    left = small.library.search(SENTENCES, top=1000, group=group)
    assert [hits[:6] for hits in left] == whole
    beyond = small.library.search(SENTENCES, top=1000, group=group, page=2)
    assert beyond == [[], [], []]


def test_by_video_each_one_stands_once_with_its_best_moment(small):
    (moments,) = small.library.search(SENTENCES[0], top=1000)
    best = {hit.video_id: hit for hit in reversed(moments)}
    (videos,) = small.library.search(SENTENCES[0], top=1000, group='video')
    assert videos == sorted(best.values(), key=lambda hit: -hit.score)


def test_filters_choose_videos_before_the_search(small):
    library = small.library
    (hits,) = library.search(SENTENCES[0], top=50, where="id in ('v1', 'v3') and duration < 30")
    assert {hit.video_id for hit in hits} == {'v1', 'v3'}
    assert library.search(SENTENCES, where="folder = 'elsewhere'") == [[], [], []]
    (hits,) = library.search(SENTENCES[0], videos=['v1', 'v2'], where="id > 'v1'", group='video')
    assert [hit.video_id for hit in hits] == ['v2']
    with pytest.raises(InputError, match="'v9'"):
        library.search(SENTENCES, videos=['v1', 'v9'])


@pytest.mark.parametrize(
    ('sentences', 'options', 'message'),
    [
        (['a red box', ''], {}, 'is empty'),
        ('...', {}, 'holds no word'),
        ([], {}, 'no sentence'),
        ('a red box', dict(top=0), 'top=0'),
        ('a red box', dict(page=0), 'page=0'),
        ('a red box', dict(group='folder'), "group='folder'"),
        ('a red box', dict(where='1; DROP TABLE videos'), 'the filter'),
        ('a red box', dict(rerank=lambda hits: 3), 'rerank must return a list of hits'),
    ],
)
def test_questions_that_have_no_answer_are_refused(small, sentences, options, message):
    with pytest.raises(InputError, match=message):
        small.library.search(sentences, **options)


def test_a_callable_reranks_the_hits_of_each_sentence(small):
    plain = small.library.search(SENTENCES, top=4)
    asked = []

    def rerank(hits):
        asked.append(hits)
        return [replace(hits[2], score=0.99), hits[0]]

    found = small.library.search(SENTENCES, top=4, rerank=rerank)
    assert asked == plain
    assert found == [[replace(hits[2], score=0.99), hits[0]] for hits in plain]


def test_the_folder_alone_answers_and_gives_the_same(small, tmp_path):
    shutil.copytree(small.library.folder, tmp_path / 'moved')
    found = MomentLibrary(tmp_path / 'moved', device='cpu').search(SENTENCES, top=3)
    assert found == small.library.search(SENTENCES, top=3)


def test_what_is_there_is_not_embedded_again(copied, small):
    report = copied.add(small.features)
    assert (len(report.unchanged), report.added, report.replaced) == (6, [], [])
    assert copied.store.snapshot().moments == small.library.store.snapshot().moments


def test_changed_and_missing_files_are_told_and_updated(small, tmp_path):
    folder = tmp_path / 'features'
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in 'abc':
        np.save(folder / f'{name}.npy', rng.random((32, GRID_SIZE), dtype=np.float32))
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    refused = library.add(folder)
    assert sorted(refused.failures) == ['a', 'b', 'c']
    assert 'duration=' in refused.failures['a']
    library.add(folder, durations=dict.fromkeys('abc', 30.0))
    before = library.search(SENTENCES[0], top=3, videos='b')
    np.save(folder / 'b.npy', rng.random((40, GRID_SIZE), dtype=np.float32))
    (folder / 'c.npy').unlink()
    report = library.add(folder)
    assert (report.unchanged, report.changed) == (['a'], ['b'])
    assert library.search(SENTENCES[0], top=3, videos='b') == before
    report = library.update()
    assert (report.unchanged, report.replaced, report.missing) == (['a'], ['b'], ['c'])
    assert library.search(SENTENCES[0], top=3, videos='b') != before
    assert library.update(remove_missing=True).removed == ['c']
    assert sorted(library.store.snapshot().by_id) == ['a', 'b']
    assert library.remove('a') == 1
    with pytest.raises(InputError, match="'a'"):
        library.remove('a')


def test_a_changed_file_tells_how_long_its_video_is_now(small, tmp_path):
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    path = write_features(tmp_path / 'f.h5', ['a'])
    library.add(path)
    write_features(path, ['a'], rows=40)
    assert library.update().replaced == ['a']
    assert library.store.snapshot().by_id['a'].duration == SECONDS * 40 / 32


def test_a_video_without_a_file_keeps_its_name(small, tmp_path):
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    video = small.model.encode(f'{small.features}::v0')
    library.add_encoded([video, replace(video, video_id='other')])
    place = small.features.parent.name
    report = library.add([f'{small.features}::v0', f'{small.features}::v1'])
    assert report.added == [f'{place}/v0', 'v1']


def test_two_videos_of_one_name_get_two_ids(small, tmp_path):
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    (tmp_path / 'one').mkdir()
    (tmp_path / 'two').mkdir()
    first = write_features(tmp_path / 'one' / 'f.h5', ['a'])
    second = write_features(tmp_path / 'two' / 'f.h5', ['a'], seed=1)
    assert library.add([first, f'{second}::a']).added == ['a', 'two/a']
    assert library.add([second, first]).unchanged == ['two/a', 'a']
    second.rename(tmp_path / 'two' / 'g.h5')
    # not a third one: the first of the name is there, and the second is gone
    assert library.add(tmp_path / 'two' / 'g.h5').replaced == ['two/a']


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """A folder with two good videos, one in a folder of its own, and a bad one."""
    folder = tmp_path_factory.mktemp('videos')
    (folder / 'kitchen').mkdir()
    scene = write_scene(folder / 'kitchen', 'scene')
    (folder / 'kitchen' / 'scene.json').unlink()
    shutil.copyfile(scene, folder / 'scene.mp4')
    (folder / 'bad.mp4').write_bytes(bytes(100))
    (folder / 'notes.txt').write_text('no video')
    return folder


def test_videos_are_added_a_bad_one_is_reported_and_a_kill_costs_nothing_twice(
    small, videos, tmp_path, monkeypatch
):
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(VideoEncoder, '__call__', killed)
        with pytest.raises(KeyboardInterrupt):
            library.add(videos)
    assert library.store.snapshot().videos == {}
    assert list((tmp_path / 'LIB').glob('incoming*'))  # features of the good videos wait
    report = library.add(videos, workers=0)
    assert sorted(report.added) == ['scene', f'{videos.name}/scene']
    assert list(report.failures) == ['bad']
    assert 'bad.mp4' in report.failures['bad']
    assert report.extraction.speed['frames'] == 0  # of the good ones nothing is computed again
    assert not list((tmp_path / 'LIB').glob('incoming*'))
    found = {row.video_id: row.folder for row in library.store.snapshot().videos.values()}
    assert found == {'scene': 'kitchen', f'{videos.name}/scene': videos.name}
    encoded = small.model.encode(videos / 'scene.mp4')
    (answer,) = small.model.ground(encoded, [SENTENCES[0]], 3)
    (hits,) = library.search(SENTENCES[0], top=3, videos='scene')
    assert spans(hits) == answer['moments']


def test_clips_of_hits_go_to_a_callable(small, videos, tmp_path):
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    shutil.copyfile(videos / 'scene.mp4', tmp_path / 'mine.mp4')
    library.add([tmp_path / 'mine.mp4', f'{small.features}::v0'])
    asked = []

    def refine(clip, sentence):
        asked.append((clip.is_file(), sentence))
        return 0.5, 1.0, 0.75

    options = dict(n=1, pad=1.0, videos='mine')
    (found,) = library.candidates(SENTENCES[0], out_dir=tmp_path / 'C', refine=refine, **options)
    (hit,) = library.search(SENTENCES[0], top=1, videos='mine')[0]
    assert asked == [(True, SENTENCES[0])]
    assert found.offset == max(hit.start - 1, 0)
    assert (found.start, found.end) == (found.offset + 0.5, found.offset + 1.0)
    with pytest.raises(MissingFileError, match='was added as features'):
        library.candidates(SENTENCES[0], n=1, videos='v0', out_dir=tmp_path / 'C')
    (tmp_path / 'mine.mp4').unlink()
    with pytest.raises(MissingFileError, match=r'mine\.mp4 any more'):
        library.candidates(SENTENCES[0], out_dir=tmp_path / 'C', **options)


def test_another_model_is_refused(small, copied, tmp_path):
    other = Config.fromfile(small.config)
    other.model.head.score_power = 0.25
    model = GroundingInferencer(other, small.checkpoint, device='cpu')
    with pytest.raises(InputError, match=r'another model: head\.score_power 0\.5, here 0\.25'):
        MomentLibrary(copied.folder, model)
    loaded = torch.load(small.checkpoint)
    loaded['state_dict'] = {name: value + 1 for name, value in loaded['state_dict'].items()}
    torch.save(loaded, tmp_path / 'other.pth')
    model = GroundingInferencer(small.config, tmp_path / 'other.pth', device='cpu')
    with pytest.raises(InputError, match=r'another model: weights sha256:'):
        MomentLibrary(copied.folder, model)


def test_features_of_another_size_are_reported_and_the_rest_is_added(copied, tmp_path):
    path = write_features(tmp_path / 'mixed.h5', ['x', 'y'], seed=5)
    with h5py.File(path, 'a') as file:
        attributes = dict(file['x'].attrs)
        del file['x']
        file['x'] = np.ones((32, 3), np.float32)
        file['x'].attrs.update(attributes)
    report = copied.add(path)
    assert report.added == ['y']
    assert 'feature_size' in report.failures['x']


def test_presence_is_a_percentile_among_sentences_that_are_in_no_video(copied, small):
    unrelated = copied.presence.measured()
    (hits,) = copied.search(SENTENCES[0], top=1000)
    for hit in (hits[0], hits[-1]):
        below = (unrelated < hit.score).sum()
        assert hit.presence == (below + hit.score) / (len(unrelated) + 1)
    assert copied.store.get('unrelated')['scores']
    # measured in what was added alone, and as if in everything
    video = small.model.encode(f'{small.features}::v0')
    shown = copied.embed_statements(['a box runs'])  # as every moment of a new video is
    spaces = {space: rows.expand(len(video.spans), -1) for space, rows in shown.items()}
    copied.add_encoded([replace(video, video_id='w', embeddings=spaces)])
    grown = copied.presence.measured()
    assert (grown >= unrelated).all()
    assert (grown > unrelated).any()
    copied.store.set('unrelated', None)
    again = MomentLibrary(copied.folder, copied.model)
    np.testing.assert_allclose(again.presence.measured(), grown, rtol=1e-12)
    copied.remove('w')
    np.testing.assert_allclose(copied.presence.measured(), unrelated, rtol=1e-12)


def test_presence_that_cannot_be_kept_or_read_is_measured_again(copied, monkeypatch):
    unrelated = copied.presence.measured()
    with sqlite3.connect(copied.folder / 'library.sqlite') as connection:
        connection.execute("UPDATE settings SET value = '{}' WHERE key = 'unrelated'")
    connection.close()
    again = MomentLibrary(copied.folder, copied.model, readonly=False)

    def full(*_):
        raise OperationError('the library could not be written')

    with monkeypatch.context() as patched:
        patched.setattr(again.store, 'set', full)
        assert again.remove('v5') == 1
        (hits,) = again.search(SENTENCES[0])
        assert hits[0].presence is not None
    np.testing.assert_allclose(copied.presence.measured(), again.presence.measured(), rtol=1e-12)
    assert (again.presence.measured() <= unrelated).all()
    assert copied.verify() == []


def test_a_model_that_knows_no_unrelated_sentences_tells_no_presence(copied, monkeypatch):
    copied.store.set('unrelated', None)
    monkeypatch.setattr(
        copied.model.model, 'inspect_sentences', lambda texts: [(1, 'unknown')] * len(texts)
    )
    assert copied.presence.measured() is None
    assert copied.presence.of(np.array([0.5])) is None


def test_a_damaged_file_of_the_model_is_found(copied):
    assert copied.verify() == []
    weights = copied.folder / 'model' / 'model.safetensors'
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (copied.folder / 'model' / 'tokenizer.json').unlink()
    changed, gone = sorted(copied.verify())
    assert 'model.safetensors: has changed' in changed
    assert 'tokenizer.json: is gone' in gone


def test_exported_moments_are_those_that_were_embedded(small, tmp_path):
    small.library.export(tmp_path / 'all.h5')
    with h5py.File(tmp_path / 'all.h5') as file:
        ids = file['video_ids'].asstr()[()].tolist()
        rows = file['video'][()] == ids.index('v2')
        encoded = small.model.encode(f'{small.features}::v2')
        np.testing.assert_array_equal(file['spans'][()][rows], encoded.spans.numpy())
        for space, vectors in encoded.embeddings.items():
            found = file[f'embeddings/{space}'][()][rows]
            np.testing.assert_allclose(found, vectors.numpy(), atol=1e-5)
        assert file['durations'][()].tolist() == [SECONDS] * 6


def test_only_an_empty_folder_becomes_a_library(small, copied, tmp_path):
    with pytest.raises(InputError, match='is a library already'):
        MomentLibrary.create(copied.folder, small.model)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('')
    with pytest.raises(UserError, match=r'thesis\.txt'):
        MomentLibrary.create(tmp_path / 'mine', small.model)
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['thesis.txt']
    with pytest.raises(InputError, match=r'library\.speed'):
        MomentLibrary.create(tmp_path / 'new', small.model, dict(speed=2))
    assert not (tmp_path / 'new').exists()


def test_a_creation_that_was_killed_is_begun_again(small, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr('mmn_plugin.library.library.file_digests', killed)
        with pytest.raises(KeyboardInterrupt):
            MomentLibrary.create(tmp_path / 'LIB', small.model)
    assert not MomentLibrary.exists(tmp_path / 'LIB')
    with pytest.raises(InputError, match='never finished'):
        MomentLibrary(tmp_path / 'LIB')
    library = MomentLibrary.create(tmp_path / 'LIB', small.model)
    assert library.add(small.features).failures == {}


def test_the_configs_settings_of_a_library_are_kept_in_it(small, tmp_path):
    model = GroundingInferencer(small.config, small.checkpoint, device='cpu')
    model.config.library = dict(score_power=2.0)
    library = MomentLibrary.create(tmp_path / 'LIB', model, dict(nms_threshold=0.9))
    expected = dict(nms_threshold=0.9, presence_threshold=0.95, score_power=2.0, tower_weight=0.0)
    assert library.settings == MomentLibrary(library.folder).settings == expected


def test_long_videos_are_found_by_windows(small, tmp_path):
    settings = dict(window=12.0, longest=18.0)
    model = GroundingInferencer(small.config, small.checkpoint, device='cpu', long_video=settings)
    library = MomentLibrary.create(tmp_path / 'LIB', model, dtype='float32')
    path = write_features(tmp_path / 'long.h5', ['long'], rows=80)
    library.add(path)
    encoded = model.encode(f'{path}::long')
    assert encoded.num_windows > 1
    (answer,) = model.ground(encoded, [SENTENCES[0]], 6)
    (hits,) = library.search(SENTENCES[0], top=6)
    assert spans(hits) == answer['moments']
    np.testing.assert_allclose([hit.score for hit in hits], answer['scores'], rtol=1e-5)


@pytest.fixture(scope='module')
def tower(tmp_path_factory):
    """A library of a zero-shot model, without its models' folder, and what it found with it."""
    folder = tmp_path_factory.mktemp('tower')
    model = GroundingInferencer(write_zero_shot(folder), device='cpu', model_root=folder / 'models')
    video = write_scene(folder, 'scene')
    library = MomentLibrary.create(folder / 'LIB', model)
    library.add(video)
    found = library.search(TOWER_SENTENCES, top=2)
    (folder / 'models').rename(folder / 'gone')
    return SimpleNamespace(folder=folder / 'LIB', found=found)


def test_a_tower_lies_in_the_library(tower):
    library = MomentLibrary(tower.folder, device='cpu')
    found = library.search(TOWER_SENTENCES, top=2)
    assert [spans(hits) for hits in found] == [spans(hits) for hits in tower.found]
    assert library.verify() == []
    assert library.info()['model'] == 'ZeroShotGrounding (org/clip)'
    assert library.model.extractor.fingerprint == library.model.model.tower.fingerprint


def test_a_setting_whose_name_is_damaged_is_found(copied):
    with sqlite3.connect(copied.folder / 'library.sqlite') as connection:
        connection.execute("UPDATE settings SET key = 'fires' WHERE key = 'files'")
    connection.close()
    (problem,) = MomentLibrary(copied.folder).verify()
    assert "in settings the row of 'fires' is damaged" in problem
    assert copied.info()['model_bytes'] == 0
