"""The commands ``library`` and ``search``."""

import json
import re
import shutil

import pytest
from helpers.small_library import SENTENCES, small_library
from helpers.tiny_grounder import write_scene
from PIL import Image

from mmn_plugin.cli.main import main
from mmn_plugin.library import MomentLibrary


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with a library of features and of two videos, made by the command line."""
    folder = tmp_path_factory.mktemp('made')
    made = small_library(folder, videos=3)
    shutil.rmtree(folder / 'LIB')
    (folder / 'videos').mkdir()
    for name in ('red', 'blue'):
        write_scene(folder / 'videos', name)
        (folder / 'videos' / 'scene.json').unlink()
    command = ['library', 'add', str(folder / 'LIB'), str(folder / 'videos'), str(made.features)]
    model = ['--config', str(made.config), '--checkpoint', str(made.checkpoint)]
    report = folder / 'report.json'
    assert main([*command, *model, '--device', 'cpu', '--json', str(report)]) == 0
    assert sorted(json.loads(report.read_text())['added']) == ['blue', 'red', 'v0', 'v1', 'v2']
    made.add, made.named = command, model
    return made


@pytest.fixture
def library(made, tmp_path):
    """A copy of the library, that a test may change."""
    shutil.copytree(made.folder / 'LIB', tmp_path / 'LIB')
    return str(tmp_path / 'LIB')


def answer(capsys, *argv):
    """What a command writes as JSON, and its exit code."""
    capsys.readouterr()
    code = main([*argv, '--json'])
    return json.loads(capsys.readouterr().out), code


def test_adding_again_changes_nothing_with_the_model_or_without(made, capsys):
    for model in ([], made.named):
        report, code = answer(capsys, *made.add, *model)
        assert (code, report['added'], len(report['unchanged'])) == (0, [], 5)


def test_a_search_prints_ranks_videos_times_and_presence(made, capsys):
    folder = str(made.folder / 'LIB')
    assert main(['search', folder, *SENTENCES[:2], '--top', '3', '--page', '2']) == 0
    said = capsys.readouterr().out
    library = MomentLibrary(folder, device='cpu')
    for sentence, hits in zip(SENTENCES, library.search(SENTENCES[:2], 3, page=2), strict=False):
        assert sentence in said
        for rank, hit in enumerate(hits, 4):
            (line,) = [
                line
                for line in said.splitlines()
                if f'{hit.start:.2f} - {hit.end:.2f}' in line and f' {hit.score:.4f} ' in line
                and hit.video_id in line and f' {rank} ' in line
            ]  # fmt: skip
            assert f'{hit.presence:.3f}' in line


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (('--where', 'duration > 1e6', '--page', '2'), r'no video of \S+ fits --where\n'),
        (('--video', 'v0', '--where', 'duration > 1e6'), 'is one of --video and fits --where'),
        (('--page', '900'), 'there is no page 900'),
    ],
)
def test_a_search_without_hits_says_why(library, capsys, options, said):
    assert main(['search', library, SENTENCES[0], *options]) == 0
    assert re.search(said, capsys.readouterr().out)


def test_words_that_the_model_does_not_know_are_named(library, capsys):
    assert main(['search', library, 'a rde box', 'a red box']) == 0
    warning = capsys.readouterr().err
    assert warning.count('Warning: ') == 1
    assert "the model does not know 'rde' of the sentence 'a rde box'" in warning


def test_a_library_has_a_threshold_of_its_own(library, capsys):
    store = MomentLibrary(library, readonly=False).store
    for threshold in (0.0, 1.0):
        store.set('settings', store.get('settings') | dict(presence_threshold=threshold))
        (found,), _ = answer(capsys, 'search', library, SENTENCES[0])
        assert found['present'] is (threshold == 0)
        main(['search', library, SENTENCES[0]])
        said = f'presence {found["hits"][0]["presence"]:.4f}, below {threshold:g}'
        assert (said in capsys.readouterr().out) is (threshold != 0)
        (found,), _ = answer(capsys, 'search', library, SENTENCES[0], '--threshold', '0')
        assert found['present'] is True


def test_json_chapters_and_filters(made, capsys, tmp_path):
    folder, chapters = str(made.folder / 'LIB'), tmp_path / 'hits.vtt'
    options = ['--where', "folder = 'videos'", '--group', 'video', '--vtt', str(chapters)]
    options += ['--picture', str(tmp_path / 'hits.png')]
    (found,), code = answer(capsys, 'search', folder, SENTENCES[0], *options)
    assert code == 0
    assert sorted(hit['video_id'] for hit in found['hits']) == ['blue', 'red']
    assert found['present'] is (found['hits'][0]['presence'] >= 0.95)
    names = ['hits.blue.vtt', 'hits.png', 'hits.red.vtt']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert Image.open(tmp_path / 'hits.png').size[0] == 960
    assert SENTENCES[0] in (tmp_path / 'hits.red.vtt').read_text()
    main(['search', folder, SENTENCES[0], '--video', 'red', '--top', '2', '--vtt', str(chapters)])
    assert chapters.read_text().count('-->') == 2
    capsys.readouterr()
    (found,), code = answer(capsys, 'search', folder, SENTENCES[0], '--where', 'duration > 1e6')
    assert (code, found['hits'], found['present']) == (0, [], None)


def test_clips_of_videos_are_cut_and_others_are_told(made, library, capsys, tmp_path):
    out, video = tmp_path / 'clips', made.folder / 'videos' / 'red.mp4'
    command = ['search', library, SENTENCES[0], '--clips', '2', '--pad', '1', '--out', str(out)]
    (found,), code = answer(capsys, *command, '--video', 'red')
    assert code == 0
    assert [(out / clip['file']).is_file() for clip in found['clips']] == [True, True]
    hit, clip = found['hits'][0], found['clips'][0]
    assert clip['offset'] == max(hit['start'] - 1, 0)
    video.rename(video.with_suffix('.moved'))
    try:
        assert main([*command, '--group', 'video', '--video', 'red', 'blue']) == 1
    finally:
        video.with_suffix('.moved').rename(video)
    said = capsys.readouterr()
    assert "no clip: video 'red' is not at" in said.err
    assert said.out.count('blue_') == 1


def test_what_a_library_holds_is_told_checked_compacted_exported(made, library, capsys, tmp_path):
    info, code = answer(capsys, 'library', 'info', library)
    assert (code, info['videos'], info['moments']) == (0, 5, 5 * 36)
    assert info['model'] == 'MMN'
    assert answer(capsys, 'library', 'remove', library, 'v0', 'v2') == (dict(removed=2), 0)
    main(['library', 'info', library])
    assert '3 videos' in capsys.readouterr().out
    sizes, _ = answer(capsys, 'library', 'compact', library)
    assert sizes['before']['removed_moments'] == 2 * 36
    assert sizes['after']['removed_moments'] == 0
    assert answer(capsys, 'library', 'verify', library) == (dict(problems=[]), 0)
    assert main(['library', 'export', library, str(tmp_path / 'all.h5')]) == 0
    assert (tmp_path / 'all.h5').is_file()
    (segment,) = (tmp_path / 'LIB' / 'segments').iterdir()
    segment.write_bytes(segment.read_bytes()[:-100])
    assert main(['library', 'verify', library]) == 1
    assert answer(capsys, 'library', 'remove', library, '--damaged') == (dict(removed=3), 0)
    assert answer(capsys, 'library', 'verify', library) == (dict(problems=[]), 0)
    with open(f'{library}/model/model.safetensors', 'ab') as file:
        file.write(b'0')
    capsys.readouterr()
    assert main(['library', 'verify', library]) == 1
    assert 'model.safetensors: has changed' in capsys.readouterr().out


def test_a_bad_video_is_told_and_the_exit_code_is_1(made, library, capsys, tmp_path):
    (tmp_path / 'bad.mp4').write_bytes(bytes(100))
    assert main(['library', 'add', library, str(tmp_path / 'bad.mp4')]) == 1
    assert 'bad.mp4' in capsys.readouterr().err
    report, code = answer(capsys, 'library', 'update', library, '--remove-missing')
    assert (code, len(report['unchanged']), report['removed']) == (0, 5, [])


@pytest.mark.parametrize(
    ('argv', 'code', 'message'),
    [
        (['library', 'search', 'LIB'], 2, "invalid choice: 'search'"),
        (['library', 'info', 'nowhere'], 1, 'nowhere is no library'),
        (['search', 'nowhere', 'a red box'], 1, 'nowhere is no library'),
        (['library', 'remove', 'LIB'], 2, 'name the ids of videos, or --damaged'),
        (['search', 'LIB', 'a red box', '--clips', '1'], 2, '--clips and --out need each other'),
        (['search', 'LIB', 'a red box', '--pad', '-1'], 2, '--pad -1'),
        (['search', 'LIB', 'a red box', '--top', '0'], 2, '--top'),
        (['search', 'LIB', 'a red box', '--picture', 'hits.txt'], 2, 'must end in .png'),
        (['search', 'LIB', '...'], 1, 'holds no word'),
        (['search', 'LIB', 'a red box', '--video', 'v9'], 1, "'v9'"),
        (['search', 'LIB', 'a red box', '--where', 'nose = 1'], 1, 'nose'),
    ],
)
def test_mistakes_end_with_one_line(made, capsys, monkeypatch, argv, code, message):
    monkeypatch.chdir(made.folder)
    with pytest.raises(SystemExit) as ended:
        main(argv)
    said = capsys.readouterr().err
    assert ended.value.code == code
    assert said.startswith('Error: ')
    assert message in said
    assert said.count('\n') == 1


def test_help_lists_all_actions(capsys):
    with pytest.raises(SystemExit):
        main(['library', '--help'])
    said = capsys.readouterr().out
    for action in ('add', 'update', 'remove', 'info', 'verify', 'compact', 'export'):
        assert f'mmn library {action}' in said
