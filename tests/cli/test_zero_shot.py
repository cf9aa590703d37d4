"""`mmn` with models that need no training: their names, towers from a folder, what is missing."""

import json

import h5py
import pytest
from helpers.run_tool import output_of
from helpers.tiny_grounder import write_scene
from helpers.zero_shot_config import SENTENCES, write_zero_shot

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.features import probe_video


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A video, and a config of each kind of tower with the folder of their models."""
    home = tmp_path_factory.mktemp('home')
    write_scene(home)
    for kind in ('clip', 'videoprism'):
        write_zero_shot(home, kind)
    return home


@pytest.mark.parametrize('kind', ['clip', 'videoprism'])
def test_one_command_answers_about_a_video(home, tmp_path, kind):
    given = (home / f'zero_shot_{kind}.py', home / 'models')
    output = output_of(
        'mmn ground {} {} {} --model {} --model-root {} --threshold 0 --clips 2 --pad 1 --out {}',
        home / 'scene.mp4', *SENTENCES[:2], *given, tmp_path,
    )  # fmt: skip
    assert SENTENCES[0] in output
    inferencer = GroundingInferencer(str(given[0]), device='cpu', model_root=given[1])
    expected = inferencer(home / 'scene.mp4', SENTENCES[:2])
    written = json.loads((tmp_path / 'scene.json').read_text())['videos']['scene']['sentences']
    for sentence, answer in zip(written, expected, strict=True):
        assert sentence['moments'] == answer['moments']
        clip, (start, _) = sentence['clips'][0], sentence['moments'][0]
        assert clip['offset'] == max(start - 1, 0)
        assert probe_video(tmp_path / clip['file']).duration == pytest.approx(
            clip['duration'], abs=0.13
        )
    assert (tmp_path / 'scene_timeline.png').stat().st_size > 1000
    assert (tmp_path / 'scene_map.png').stat().st_size > 1000


def test_what_is_below_the_models_own_threshold_is_said(home):
    given = (home / 'scene.mp4', SENTENCES[0], home / 'zero_shot_clip.py', home / 'models')
    output = output_of(
        'mmn ground {} {} --model {} --model-root {} --cfg-options presence.threshold=2', *given
    )
    assert 'probably not in this video' in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--model', 'mmn_taco'], "there is no model 'mmn_taco'; did you mean 'mmn_tacos'?"),
        (['--model', 'CONFIG'], 'no folder of models is given'),
        (['--model', 'CONFIG', '--model-root', 'EMPTY'], 'does not hold it'),
        (['--model', 'CONFIG', '--model-root', 'EMPTY/none'], 'none is no folder'),
        (['--model', 'mmn_tacos'], "no weights of 'mmn_tacos' are published"),
        (['--device', 'cpu'], 'no checkpoint was given'),
        (
            ['--model', 'CONFIG', '--cfg-options', 'model.tower.rewrite=os.getcwd'],
            "'a dog' could not be rewritten (TypeError",
        ),
        (['--checkpoint', 'none.pth', '--model', 'CONFIG'], 'there is no checkpoint none.pth'),
        (
            ['--model', 'mmn_shapes_tubes', '--checkpoint', 'x', '--model-root', 'EMPTY'],
            'of no use',
        ),
    ],
)
def test_mistakes_end_in_one_message(home, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.delenv('MMN_MODEL_ROOT', raising=False)
    (tmp_path / 'empty').mkdir()
    names = dict(CONFIG=home / 'zero_shot_clip.py', EMPTY=tmp_path / 'empty')
    names['EMPTY/none'] = tmp_path / 'empty' / 'none'
    arguments = [names.get(word, word) for word in arguments]
    output = output_of('mmn ground {} {}', home / 'scene.mp4', 'a dog', *arguments, code=1)
    assert message in output
    assert output.splitlines()[-1].startswith('Error: ')


def test_features_are_extracted_with_towers_of_a_folder(home, tmp_path):
    for kind in ('clip', 'videoprism'):
        given = (home / 'scene.mp4', tmp_path / f'{kind}.h5', home / f'zero_shot_{kind}.py')
        output_of('mmn extract {} --out {} --config {} --model-root {}', *given, home / 'models')
        with h5py.File(given[1]) as file:
            assert len(file['scene']) == pytest.approx(24 * 4 / 2, abs=1)
            assert kind in file['scene'].attrs['extractor']
    output = output_of(
        'mmn extract {} --out {} --model-root {}', *given[:2], home / 'models', code=1
    )
    assert 'is of no use' in output
