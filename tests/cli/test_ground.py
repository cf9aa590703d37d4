"""`mmn ground` on a rendered video."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from helpers.run_tool import ROOT, output_of
from helpers.tiny_grounder import write_grounder, write_scene

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.evaluation import read_predictions
from mmn_plugin.features import probe_video
from mmn_plugin.shapes import GridFeatureExtractor

ENDS = ('.json', '.vtt', '_map.png', '_timeline.png')


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('ground'))
    grounder.video = write_scene(grounder.folder)
    grounder.annotations = grounder.folder / 'scene.json'
    model = ['--config', grounder.config, '--checkpoint', grounder.checkpoint, '--device', 'cpu']
    grounder.model = list(map(str, model))
    return grounder


def ground(grounder, *arguments, video=None, code=0):
    return output_of('mmn ground', video or grounder.video, *grounder.model, *arguments, code=code)


def table_rows(output):
    """The answers, without the lines of the log, which tell the time of day."""
    return [line for line in output.splitlines() if re.search(r'\d+\.\d\d - \d+\.\d\d', line)]


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.glob('[!.]*') if path.is_file()}


def test_the_videos_own_sentences_come_with_truth_and_files_that_can_be_scored(grounder, tmp_path):
    output = ground(
        grounder, '--annotations', grounder.annotations, '--out', tmp_path, '--top-n', '3'
    )
    assert '2.00 - 8.00' in output
    assert 'IoU' in output
    assert 'reversed' not in output
    assert sorted(tree(tmp_path)) == [f'scene{end}' for end in ENDS]
    chapters = (tmp_path / 'scene.vtt').read_text()
    assert chapters.startswith('WEBVTT\n\n1\n00:00:')
    assert 'a person opens the door' in chapters
    found = read_predictions(tmp_path / 'scene.json')['scene']
    assert found['duration'] == 24.0
    assert sorted(found['sentences']) == [0, 2]  # places in the annotation file
    assert 1 <= len(found['sentences'][0]['moments']) <= 3
    annotations = json.loads(grounder.annotations.read_text())
    (tmp_path / 'ann.json').write_text(json.dumps({'scene': annotations['scene']}))
    output_of('mmn', 'eval', tmp_path / 'scene.json', tmp_path / 'ann.json')


def test_all_true_windows_are_listed_and_a_sentence_without_one_says_so(grounder, tmp_path):
    content = json.loads(grounder.annotations.read_text())
    content['scene']['timestamps'] = [[[2.0, 8.0], [12.0, 13.5]], [], [9.0, 20.0]]
    content['scene']['sentences'][1] = 'a blue box'
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    output = ground(
        grounder, '--annotations', tmp_path / 'ann.json', '--out', tmp_path, '--top-n', '2'
    )
    truth = [line.split('truth')[1].split()[:4] for line in output.splitlines() if 'truth' in line]
    words = [' '.join(one).strip('│ ') for one in truth]
    assert words == ['2.00 - 8.00', '12.00 - 13.50', 'does not occur', '9.00 - 20.00']
    found = tmp_path / 'figures.json'
    del content['other']
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    output_of('mmn eval', tmp_path / 'scene.json', tmp_path / 'ann.json', '--json', found)
    figures = json.loads(found.read_text())
    assert figures['grounding/num_sentences'] == 2
    assert figures['grounding/absent/num_sentences'] == 1
    assert {'grounding/mAP', 'grounding/absent/AUROC'} <= figures.keys()


def test_sentences_are_answered_numbered_and_cut_out_as_clips(grounder, tmp_path):
    output = ground(
        grounder, 'a blue box', 'a red box', 'a red box', '--annotations', grounder.annotations,
        '--out', tmp_path, '--clips', '2', '--top-n', '2',
    )  # fmt: skip
    assert '9.00 - 20.00' in output  # the truth of one that is annotated
    assert len(table_rows(output)) == 6 + 2
    found = read_predictions(tmp_path / 'scene.json')['scene']['sentences']
    texts = {index: sentence['sentence'] for index, sentence in found.items()}
    assert texts == {2: 'a red box', 3: 'a blue box', 4: 'a red box'}
    for sentence, index in ((1, 3), (2, 2)):
        for rank in (1, 2):
            start, end = found[index]['moments'][rank - 1]
            clip = found[index]['clips'][rank - 1]
            assert clip == dict(
                file=f'scene_{sentence}_{rank}.mp4',
                offset=start,
                duration=pytest.approx(end - start),
            )
            seconds = probe_video(tmp_path / clip['file']).duration
            assert seconds == pytest.approx(end - start, abs=0.13)
    output = ground(grounder, '--annotations', grounder.annotations, '--max-sentences', '1')
    assert 'opens' in output
    assert 'red box' not in output
    assert re.search(r'1 of \d annotated sentences', output)


def test_clips_are_longer_by_the_padding_where_the_video_is(grounder, tmp_path):
    ground(
        grounder, 'a red box', '--clips', 7, '--pad', 2.5, '--out', tmp_path,
        '--json', tmp_path / 'answer.json',
    )  # fmt: skip
    content = json.loads((tmp_path / 'scene.json').read_text())
    assert json.loads((tmp_path / 'answer.json').read_text()) == content
    (sentence,) = content['videos']['scene']['sentences']
    schema = json.loads((ROOT / 'docs/predictions.schema.json').read_text())
    known = schema['$defs']['sentence']['properties']
    assert sentence.keys() == known.keys() - {'reading'}
    assert -1 <= sentence['presence'] <= 1
    duration = probe_video(grounder.video).duration
    assert len(sentence['clips']) == len(sentence['moments']) > 5  # more than --top-n
    for clip, (start, end) in zip(sentence['clips'], sentence['moments'], strict=True):
        assert clip.keys() == known['clips']['items']['properties'].keys()
        assert clip['offset'] == pytest.approx(max(start - 2.5, 0))
        assert clip['offset'] + clip['duration'] == pytest.approx(min(end + 2.5, duration))
        seconds = probe_video(tmp_path / clip['file']).duration
        assert seconds == pytest.approx(clip['duration'], abs=0.13)


def test_a_sentence_that_does_not_occur_comes_back_empty(grounder, tmp_path):
    options = ('--threshold', '1', '--out', tmp_path)
    assert 'probably not in this video' in ground(grounder, 'a red box', *options)
    assert read_predictions(tmp_path / 'scene.json')['scene']['sentences'][0]['moments'] == []
    assert (tmp_path / 'scene.vtt').read_text() == 'WEBVTT\n'


def test_words_that_the_model_does_not_know_are_named(grounder):
    sentence = 'a rde box'
    said = ground(grounder, sentence, 'a red box')
    assert f"Warning: the model does not know 'rde' of the sentence {sentence!r}, and looks" in said
    assert said.count('Warning: ') == 1


def test_features_and_models_without_config_give_the_same_answers(grounder, tmp_path):
    expected = table_rows(ground(grounder, 'a red box'))
    assert len(expected) == 5
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file['scene'] = GridFeatureExtractor()(grounder.video)
    features = f'{tmp_path / "f.h5"}::scene'
    options = ('--duration', '24', '--out', tmp_path / 'out')
    assert table_rows(ground(grounder, 'a red box', *options, video=features)) == expected
    assert (tmp_path / 'out' / 'scene.json').is_file()
    model = tmp_path / 'model'
    GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu').save_pretrained(model)
    given = (grounder.video, model, 'a red box')
    assert table_rows(output_of('mmn ground {} --checkpoint {} --', *given)) == expected


# One process for several questions, which stand between bars.
QUESTIONS = """
import itertools, sys, mmn
for bar, words in itertools.groupby(sys.argv[1:], '|'.__eq__):
    sys.argv[1:] = words
    try: bar or mmn.main()
    except SystemExit as end: print('exit code', end.code, flush=True)
"""


@pytest.fixture
def posix(grounder):
    """What each question is answered in a process whose locale knows ASCII alone."""

    def run(*questions, **environment):
        environment = {**os.environ, 'LC_ALL': 'C', 'PYTHONPATH': str(ROOT), **environment}
        environment.pop('PYTHONIOENCODING', None)
        words = [('|', 'ground', *question, *grounder.model) for question in questions]
        done = subprocess.run(
            [sys.executable, '-u', '-c', QUESTIONS, *itertools.chain(*words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            check=True,
            cwd=grounder.folder,
        )
        output = done.stdout.decode()
        assert 'Traceback' not in output
        *answers, rest = re.split(r'(?<=exit code \d)\n', output)
        assert not rest
        return answers

    return run


def test_names_and_sentences_in_a_posix_locale(grounder, posix, tmp_path):
    video, out = grounder.folder / 'séance.mp4', ('--out', tmp_path / 'là')
    video.write_bytes(grounder.video.read_bytes())
    own = dict(duration=24.0, timestamps=[[2.0, 8.0]], sentences=['the red café box'])
    (grounder.folder / 'own.json').write_text(json.dumps({'séance': own}))
    arguments = (video.name, 'the red café box', '--annotations', 'own.json')
    answer, refused = posix((*arguments, *out), (video.name, b'a red caf\xe9'))
    for text in ('2.00 - 8.00', 'the red café box', 'exit code 0'):
        assert text in answer
    (found,) = read_predictions(tmp_path / 'là' / 'séance.json').values()
    assert found['sentences'][0]['sentence'] == 'the red café box'
    assert (tmp_path / 'là' / 'séance_timeline.png').stat().st_size > 1000
    assert r"Error: the sentence 'a red caf\udce9' holds '\udce9', which is no character" in refused
    assert 'exit code 1' in refused

    ascii_alone = dict(PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    answer, refused = posix(arguments, (*arguments, *out), **ascii_alone)
    for text in ('2.00 - 8.00', r'the red caf\xe9 box', 'exit code 0'):
        assert text in answer
    assert r"Error: '\xe9' cannot be part of a name in this locale" in refused
    assert 'exit code 1' in refused


def test_a_name_that_is_no_utf8_is_grounded(grounder, tmp_path):
    video = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.mp4'))
    video.write_bytes(grounder.video.read_bytes())
    output = ground(grounder, 'a red box', '--out', tmp_path / 'out', video=video)
    assert r'caf\xe9' in output
    assert 'caf_xe9.vtt' in tree(tmp_path / 'out')


CLIPS = ['--clips', '1', '--out', 'NEW']


@pytest.mark.parametrize(
    ('code', 'arguments', 'message'),
    [
        (2, ['a box', '--clips', '1'], '--clips needs --out'),
        (2, ['a box', '--clips', '-1'], "argument --clips: '-1' is not"),
        (2, ['a box', '--threshold', 'nan'], '--threshold nan: give a presence from -1 (none) to'),
        (2, ['a box', '--threshold', '95'], '--threshold 95: give a presence'),
        (2, ['a box', *CLIPS, '--pad', '-1'], '--pad -1: give seconds of 0 or more'),
        (2, ['a box', *CLIPS, '--pad', 'nan'], '--pad nan: give seconds of 0 or more'),
        (2, ['a box', *CLIPS, 'FEATURES'], 'cut out of a video file, and f.h5::scene is features'),
        (2, ['a box', '--pad', '1'], '--pad needs --clips'),
        (2, ['a box', '--cfg-options', 'word'], "'word' is not key=value"),
        (2, ['a box', '--cfg-options', 'a=[(1]'], 'argument --cfg-options: a=[(1]: '),
        (2, ['a box', '--top-n', '0'], "argument --top-n: '0' is not a whole number of 1"),
        (2, ['a box', '--out', 'FILE'], 'argument --out: '),
        (2, ['a box', '--out', 'FILE/below'], 'argument --out: '),
        (1, [], 'give a sentence, or --annotations'),
        (1, ['zzz'], "'zzz' holds no word"),
        (1, [''], "'' is empty"),
        (1, ['a box', '--config', 'EMPTY'], 'empty.py lacks the setting `model`'),
        (1, ['a box', '--checkpoint', 'LIST'], 'list.pth holds a list and is no checkpoint'),
        (1, ['a box', '--checkpoint', 'META'], "its 'meta' is None"),
        (1, ['a box', 'BAD'], 'bad.mp4'),
        (1, ['a box', 'ABSENT'], 'absent.mp4: no such file'),
        (1, ['ABSENT', '--annotations', 'OWN'], "has no video 'absent'"),
    ],
)
def test_mistakes_end_in_one_message_and_leave_nothing(
    grounder, tmp_path, code, arguments, message
):
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 200)
    (tmp_path / 'empty.py').write_text('a = 1\n')
    torch.save([1, 2], tmp_path / 'list.pth')
    torch.save(dict(state_dict={}, meta=None), tmp_path / 'meta.pth')
    names = dict(
        FILE=tmp_path / 'bad.mp4',
        NEW=tmp_path / 'out',
        EMPTY=tmp_path / 'empty.py',
        LIST=tmp_path / 'list.pth',
        META=tmp_path / 'meta.pth',
        OWN=grounder.annotations,
    )
    names['FILE/below'] = names['FILE'] / 'below'
    videos = {name: tmp_path / f'{name.lower()}.mp4' for name in ('BAD', 'ABSENT')}
    videos['FEATURES'] = 'f.h5::scene'
    (video,) = [videos[word] for word in arguments if word in videos] or [None]
    arguments = [names.get(word, word) for word in arguments if word not in videos]
    out = [] if '--out' in arguments or code == 2 else ['--out', tmp_path / 'out']
    output = ground(grounder, *arguments, *out, video=video, code=code)
    assert message in output
    assert output.splitlines()[-1].startswith('Error: ')
    assert not (tmp_path / 'out').exists()


def test_options_of_a_config_that_is_not_given_are_refused(grounder):
    given = (grounder.video, grounder.checkpoint)
    line = 'mmn ground {} box --checkpoint {} --cfg-options a=1'
    assert '--cfg-options needs --model' in output_of(line, *given, code=1)


def test_files_that_are_not_its_own_stop_it_before_the_work(grounder, tmp_path, monkeypatch):
    monkeypatch.setattr('mmn_plugin.cli.ground.GroundingInferencer', None)  # no work is done
    for name in ('scene.vtt', 'scene_2_1.mp4', 'scene_map.png'):
        (tmp_path / name).write_text('mine')
        output = ground(
            grounder, 'a red box', 'the door', '--out', tmp_path, '--clips', '1', code=1
        )
        assert f'{tmp_path / name} is there and was not written by this program' in output
        assert 'Move it away, or choose another folder' in output
        assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing is left behind
        assert (tmp_path / name).read_text() == 'mine'
        (tmp_path / name).unlink()


def test_its_own_files_are_replaced_unless_someone_changed_them(grounder, tmp_path):
    for sentence in ('a red box', 'the door'):
        ground(grounder, sentence, '--out', tmp_path)
    assert len(tree(tmp_path)) == 4
    chapters = tmp_path / 'scene.vtt'
    assert 'the door' in chapters.read_text()
    chapters.write_text(chapters.read_text().replace('door', 'gate'))
    before = tree(tmp_path)
    output = ground(grounder, 'a red box', '--out', tmp_path, code=1)
    assert f'{chapters} has been changed since it was written' in output
    assert tree(tmp_path) == before


def test_another_video_of_the_same_name_has_files_of_its_own(grounder, tmp_path):
    other, out = tmp_path / 'other' / 'scene.mp4', tmp_path / 'out'
    other.parent.mkdir()
    other.write_bytes(grounder.video.read_bytes())
    for video in (grounder.video, other, grounder.video):
        ground(grounder, 'a red box', '--out', out, video=video)
    assert sorted(tree(out)) == sorted(
        f'{name}{end}' for name in ('scene', 'scene-2') for end in ENDS
    )
    listed = json.loads((out / '.mmn_outputs.json').read_text())['files']
    assert listed.keys() == tree(out).keys()
    assert listed['scene-2.vtt']['source'] == str(other)
    assert listed['scene-2.vtt']['size'] == (out / 'scene-2.vtt').stat().st_size
