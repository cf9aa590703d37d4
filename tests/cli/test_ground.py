"""`mmn ground` on a rendered video."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from helpers.run_tool import run_tool
from helpers.tiny_grounder import write_grounder, write_scene

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.evaluation import read_predictions
from mmn_plugin.features import probe_video
from mmn_plugin.shapes import GridFeatureExtractor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('ground'))
    grounder.video = write_scene(grounder.folder)
    grounder.annotations = grounder.folder / 'scene.json'
    return grounder


def ground(grounder, *arguments, video=None):
    return run_tool(
        'mmn ground {} --config {} --checkpoint {} --device cpu',
        video or grounder.video,
        grounder.config,
        grounder.checkpoint,
        *arguments,
    )


def table_rows(output):
    """The answers, without the lines of the log, which tell the time of day."""
    return [line for line in output.splitlines() if re.search(r'\d+\.\d\d - \d+\.\d\d', line)]


def test_sentences_give_a_table(grounder):
    code, output = ground(grounder, 'a red box', 'the door', '--top-n', '2')
    assert code == 0, output
    assert 'IoU' not in output
    assert len(re.findall(r'\d+\.\d\d - \d+\.\d\d', output)) == 4
    assert 'a red box' in output


def test_the_videos_own_sentences_come_with_truth_and_files(grounder, tmp_path):
    code, output = ground(
        grounder, '--annotations', grounder.annotations, '--out', tmp_path, '--top-n', '3'
    )
    assert code == 0, output
    assert '2.00 - 8.00' in output
    assert 'IoU' in output
    assert 'reversed' not in output
    assert sorted(path.name for path in tmp_path.glob('[!.]*')) == [
        'scene.json',
        'scene.vtt',
        'scene_map.png',
        'scene_timeline.png',
    ]
    chapters = (tmp_path / 'scene.vtt').read_text()
    assert chapters.startswith('WEBVTT\n\n1\n00:00:')
    assert 'a person opens the door' in chapters
    found = read_predictions(tmp_path / 'scene.json')['scene']
    assert found['duration'] == 24.0
    assert sorted(found['sentences']) == [0, 2]  # places in the annotation file
    assert 1 <= len(found['sentences'][0]['moments']) <= 3


@pytest.fixture(scope='module')
def posix(grounder):
    """Runs the tool in a process of its own, where the locale knows ASCII alone."""

    def run(*arguments, **environment):
        environment = {**os.environ, 'LC_ALL': 'C', 'PYTHONPATH': str(ROOT), **environment}
        environment.pop('PYTHONIOENCODING', None)
        done = subprocess.run(
            [
                sys.executable,
                '-m',
                'mmn',
                'ground',
                *arguments,
                '--config',
                grounder.config,
                '--checkpoint',
                grounder.checkpoint,
                '--device',
                'cpu',
            ],
            capture_output=True,
            env=environment,
            check=False,
            cwd=grounder.folder,
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    return run


def test_names_and_sentences_in_a_posix_locale(grounder, posix, tmp_path):
    video = grounder.folder / 'séance.mp4'
    video.write_bytes(grounder.video.read_bytes())
    (grounder.folder / 'own.json').write_text(
        json.dumps(
            {'séance': dict(duration=24.0, timestamps=[[2.0, 8.0]], sentences=['the red café box'])}
        )
    )
    arguments = (video.name, 'the red café box', '--annotations', 'own.json')
    code, output = posix(*arguments, '--out', tmp_path / 'là')
    assert code == 0, output
    assert '2.00 - 8.00' in output
    assert 'the red café box' in output
    (found,) = read_predictions(tmp_path / 'là' / 'séance.json').values()
    assert found['sentences'][0]['sentence'] == 'the red café box'
    assert (tmp_path / 'là' / 'séance_timeline.png').stat().st_size > 1000

    ascii_alone = dict(PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    code, output = posix(*arguments, **ascii_alone)
    assert code == 0, output
    assert '2.00 - 8.00' in output
    assert r'the red caf\xe9 box' in output
    code, output = posix(*arguments, '--out', tmp_path / 'là', **ascii_alone)
    assert code == 1
    assert r"Error: '\xe9' cannot be part of a name in this locale" in output
    assert 'Traceback' not in output


def test_bytes_that_are_no_text_end_in_one_message(grounder, posix, tmp_path):
    video = os.fsencode(grounder.folder) + b'/s\xe9ance.mp4'
    with open(video, 'wb') as file:
        file.write(grounder.video.read_bytes())
    code, output = posix(video, b'a red caf\xe9', '--out', tmp_path)
    assert code == 1
    assert r"Error: the sentence 'a red caf\udce9' holds '\udce9', which is no character" in output
    assert 'Traceback' not in output
    code, output = posix(video, 'a red box', '--out', tmp_path)
    assert code == 0, output
    assert list(tmp_path.glob('*_timeline.png'))


def test_the_files_can_be_scored(grounder, tmp_path):
    ground(grounder, '--annotations', grounder.annotations, '--out', tmp_path)
    annotations = json.loads(grounder.annotations.read_text())
    (tmp_path / 'ann.json').write_text(json.dumps({'scene': annotations['scene']}))
    code, output = run_tool('mmn', 'eval', tmp_path / 'scene.json', tmp_path / 'ann.json')
    assert code == 0, output


def test_a_typed_sentence_that_is_annotated_has_its_truth(grounder, tmp_path):
    code, output = ground(
        grounder,
        'a blue box',
        'a red box',
        '--annotations',
        grounder.annotations,
        '--out',
        tmp_path,
    )
    assert code == 0, output
    assert '9.00 - 20.00' in output
    found = read_predictions(tmp_path / 'scene.json')['scene']['sentences']
    assert {index: s['sentence'] for index, s in found.items()} == {2: 'a red box', 3: 'a blue box'}


def test_max_sentences_limits_the_videos_own(grounder):
    code, output = ground(grounder, '--annotations', grounder.annotations, '--max-sentences', '1')
    assert code == 0, output
    assert 'opens' in output
    assert 'red box' not in output


def test_moments_are_cut_out_as_clips(grounder, tmp_path):
    code, output = ground(grounder, 'a red box', 'the door', '--out', tmp_path, '--clips', '2')
    assert code == 0, output
    found = read_predictions(tmp_path / 'scene.json')['scene']['sentences']
    for sentence in (1, 2):
        for rank in (1, 2):
            start, end = found[sentence - 1]['moments'][rank - 1]
            seconds = probe_video(tmp_path / f'scene_{sentence}_{rank}.mp4').duration
            assert seconds == pytest.approx(end - start, abs=0.13)


def test_a_sentence_that_does_not_occur_comes_back_empty(grounder, tmp_path):
    code, output = ground(grounder, 'a red box', '--threshold', '2', '--out', tmp_path)
    assert code == 0, output
    assert 'no such moment' in output
    assert read_predictions(tmp_path / 'scene.json')['scene']['sentences'][0]['moments'] == []
    assert (tmp_path / 'scene.vtt').read_text() == 'WEBVTT\n'


def test_without_config_the_checkpoint_or_folder_brings_it(grounder, tmp_path):
    GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu').save_pretrained(tmp_path)
    expected = table_rows(ground(grounder, 'a red box')[1])
    code, output = run_tool(
        'mmn', 'ground', grounder.video, 'a red box', '--checkpoint', tmp_path, '--device', 'cpu'
    )
    assert code == 0, output
    assert table_rows(output) == expected


def test_features_are_grounded_without_video(grounder, tmp_path):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file['scene'] = GridFeatureExtractor()(grounder.video)
    code, output = ground(
        grounder,
        'a red box',
        '--duration',
        '24',
        '--out',
        tmp_path / 'out',
        video=f'{tmp_path / "f.h5"}::scene',
    )
    assert code == 0, output
    rows = table_rows(output)
    assert len(rows) == 5
    assert rows == table_rows(ground(grounder, 'a red box')[1])
    assert (tmp_path / 'out' / 'scene.json').is_file()


ARGUMENTS = {'--clips', '--pad', '--cfg-options', '--top-n'}  # wrong by themselves


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a box', '--clips', '1'], '--clips needs --out'),
        (['a box', '--clips', '-1'], "argument --clips: '-1' is not"),
        (['a box', '--pad', '-1'], '--pad -1'),
        (['a box', '--pad', '1'], '--pad needs --clips'),
        (['a box', '--cfg-options', 'word'], "'word' is not key=value"),
        (['a box', '--cfg-options', 'a=[(1]'], 'argument --cfg-options: a=[(1]: '),
        ([], 'give a sentence, or --annotations'),
        (['zzz'], "'zzz' holds no word"),
        ([''], "'' is empty"),
        (['a box', '--top-n', '0'], '--top-n 0'),
        (['a box', '--annotations', 'none.json'], 'none.json does not exist'),
        (['a box', '--checkpoint', 'none.pth'], 'no checkpoint none.pth'),
        (['a box', '--config', 'none.py'], "nor does 'none.py' lie in the current folder"),
        (['a box', '--device', 'cuda:99'], "the device 'cuda:99' cannot be used here"),
    ],
)
def test_mistakes_end_in_one_message(grounder, arguments, message):
    code, output = ground(grounder, *arguments)
    assert code == (2 if set(arguments) & ARGUMENTS else 1)
    assert message in output
    assert output.splitlines()[-1].startswith('Error: ')
    assert 'Traceback' not in output


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds a list and is no checkpoint'),
        (dict(state_dict={}, meta=None), "its 'meta' is None"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_one_message(grounder, tmp_path, content, message):
    torch.save(content, tmp_path / 'bad.pth')
    code, output = ground(grounder, 'a box', '--checkpoint', tmp_path / 'bad.pth')
    assert code == 1
    assert f'{tmp_path / "bad.pth"}' in output
    assert message in output
    assert 'Traceback' not in output


def test_a_config_without_model_is_named_with_the_setting(grounder, tmp_path):
    (tmp_path / 'empty.py').write_text('a = 1\n')
    code, output = ground(grounder, 'a box', '--config', tmp_path / 'empty.py')
    assert code == 1
    assert f'{tmp_path / "empty.py"} lacks the setting `model`' in output


def test_a_file_in_the_place_of_the_folder_is_one_message(grounder, tmp_path):
    (tmp_path / 'file').write_text('')
    for out in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        code, output = ground(grounder, 'a box', '--out', out)
        assert code == 2
        assert re.search(r'argument --out: .*file', output)
        assert 'Traceback' not in output


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.glob('[!.]*') if path.is_file()}


def test_files_that_are_not_its_own_stop_it_before_the_work(grounder, tmp_path, monkeypatch):
    monkeypatch.setattr('mmn_plugin.cli.ground.GroundingInferencer', None)  # no work is done
    for name in ('scene.vtt', 'scene_2_1.mp4', 'scene_map.png'):
        (tmp_path / name).write_text('mine')
        code, output = ground(grounder, 'a red box', 'the door', '--out', tmp_path, '--clips', '1')
        assert code == 1
        assert f'{tmp_path / name} is there and was not written by this program' in output
        assert 'Move it away, or choose another folder' in output
        assert tree(tmp_path) == {name: b'mine'}
        (tmp_path / name).unlink()


def test_its_own_files_are_replaced_unless_someone_changed_them(grounder, tmp_path):
    for sentence in ('a red box', 'the door'):
        code, output = ground(grounder, sentence, '--out', tmp_path)
        assert code == 0, output
    assert len(tree(tmp_path)) == 4
    chapters = tmp_path / 'scene.vtt'
    assert 'the door' in chapters.read_text()
    chapters.write_text(chapters.read_text().replace('door', 'gate'))
    before = tree(tmp_path)
    code, output = ground(grounder, 'a red box', '--out', tmp_path)
    assert code == 1
    assert f'{chapters} has been changed since it was written' in output
    assert tree(tmp_path) == before


def test_another_video_of_the_same_name_has_files_of_its_own(grounder, tmp_path):
    other = tmp_path / 'other' / 'scene.mp4'
    other.parent.mkdir()
    other.write_bytes(grounder.video.read_bytes())
    out = tmp_path / 'out'
    for video in (grounder.video, other, grounder.video):
        code, output = ground(grounder, 'a red box', '--out', out, video=video)
        assert code == 0, output
    ends = ('.json', '.vtt', '_map.png', '_timeline.png')
    assert sorted(tree(out)) == sorted(
        f'{name}{end}' for name in ('scene', 'scene-2') for end in ends
    )
    listed = json.loads((out / '.mmn_outputs.json').read_text())['files']
    assert listed.keys() == tree(out).keys()
    assert listed['scene-2.vtt']['source'] == str(other)
    assert listed['scene-2.vtt']['size'] == (out / 'scene-2.vtt').stat().st_size


def test_a_name_that_is_no_utf8_is_grounded(grounder, tmp_path):
    video = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.mp4'))
    video.write_bytes(grounder.video.read_bytes())
    code, output = ground(grounder, 'a red box', '--out', tmp_path / 'out', video=video)
    assert code == 0, output
    assert r'caf\xe9' in output
    assert 'caf_xe9.vtt' in tree(tmp_path / 'out')


def test_bad_videos_end_in_one_message(grounder, tmp_path):
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 200)
    for path in (tmp_path / 'bad.mp4', tmp_path / 'absent.mp4'):
        code, output = ground(grounder, 'a box', video=path)
        assert code == 1
        assert path.name in output
        assert 'Traceback' not in output
    code, output = ground(
        grounder, '--annotations', grounder.annotations, video=tmp_path / 'absent.mp4'
    )
    assert code == 1
    assert "has no video 'absent'" in output
