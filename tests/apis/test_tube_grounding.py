"""Training, testing and asking a model of tubes, through the tools."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.made_up_tubes import write_asked_config, write_tube_config, write_tubes
from helpers.run_tool import run_tool
from helpers.tiny_grounder import save_checkpoint, write_scene

from mmn_plugin.apis import TubeGroundingInferencer
from mmn_plugin.datasets import TubeError, TubeVideo, read_tracks, write_tube_file
from mmn_plugin.shapes.features import TubeFeatureExtractor


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """One epoch on made-up tubes, then a test with a submission."""
    folder = tmp_path_factory.mktemp('tubes')
    corpus = write_tubes(folder / 'corpus')
    config = write_tube_config(folder / 'tiny.py', corpus)
    code, output = run_tool('train.py', config, '--work-dir', folder / 'run')
    assert code == 0, output
    [checkpoint] = (folder / 'run').glob('best_tubes_m_vIoU_epoch_1.pth')
    code, test = run_tool(
        'test.py {} {} --work-dir {}/test --submission {}/answers.json',
        config,
        checkpoint,
        folder,
        folder,
    )
    assert code == 0, test
    return SimpleNamespace(folder=folder, corpus=corpus, train=output, test=test)


def test_training_and_test_run_through_the_tools(trained):
    answers = json.loads((trained.folder / 'answers.json').read_text())
    assert len(answers) == 5
    assert answers['test_2'] == dict(st_frame=-1, ed_frame=-1, bbox={})  # it has no tube
    one = answers['test_0']
    assert list(map(int, one['bbox'])) == list(range(one['st_frame'], one['ed_frame'] + 1))


def test_the_standalone_scorer_finds_the_figures_of_the_test(trained):
    figures = next(trained.folder.glob('test/*/*.json')).read_text()
    figures = json.loads(figures.splitlines()[-1])
    code, output = run_tool(
        'mmn eval {}/answers.json {}/test.h5 --json {}/scores.json',
        trained.folder,
        trained.corpus,
        trained.folder,
    )
    assert code == 0, output
    for name, value in json.loads((trained.folder / 'scores.json').read_text()).items():
        assert figures[name] == pytest.approx(value, rel=1e-9)


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    """A model with random weights whose features are those of the built-in extractor."""
    folder = tmp_path_factory.mktemp('asked')
    config = write_asked_config(folder)
    return SimpleNamespace(
        folder=folder,
        config=config,
        video=write_scene(folder),
        checkpoint=save_checkpoint(config, folder / 'tiny.pth'),
    )


def test_a_raw_video_is_tracked_and_asked(asked):
    inferencer = TubeGroundingInferencer(asked.config, asked.checkpoint, 'cpu')
    answers = inferencer(asked.video, ['a red box', 'the blue door'])
    assert [answer['sentence'] for answer in answers] == ['a red box', 'the blue door']
    for answer in answers:
        start, end = answer['span']
        assert 0 <= start < end <= 24.2
        assert answer['tube'].shape[1] == 5
    again = TubeGroundingInferencer(os.fsencode(asked.config), os.fsencode(asked.checkpoint), 'cpu')
    for video in (os.fsencode(asked.video), np.array(str(asked.video))):
        for answer, other in zip(
            again(video, np.array(['a red box', 'the blue door'])), answers, strict=True
        ):
            assert answer['span'] == other['span']
    with pytest.raises(ValueError, match=r"holds '\\ud83d', which is no character"):
        inferencer(asked.video, ['a red \ud83d box'])
    with pytest.raises(ValueError, match='is empty; say what to look for'):
        inferencer(asked.video, [' '])


def test_tubes_of_any_tracker_are_taken_and_a_video_without_tubes_has_no_answer(asked):
    inferencer = TubeGroundingInferencer(asked.config, asked.checkpoint, 'cpu')
    tube = np.array([[t, 3, 4, 20, 22] for t in range(50, 90)], np.float32)
    [answer] = inferencer(asked.video, 'a red box', [tube])
    assert answer['tube_index'] == 0
    assert set(answer['tube'][:, 0]) <= set(tube[:, 0])
    [answer] = inferencer(asked.video, 'a red box', [])
    assert (len(answer['tube']), answer['span'], answer['tube_index']) == (0, None, -1)
    with pytest.raises(TubeError, match='tube 0'):
        inferencer(asked.video, 'a red box', [tube[::-1]])
    with pytest.raises(TubeError, match=r"no features 'appearance'.*it has \['csn'\]"):
        inferencer.ground(TubeVideo('a', ['a red box'], [], [tube], dict(csn=[tube])))


def test_features_of_a_tube_file_are_used_and_need_no_extractor(asked, tmp_path):
    inferencer = TubeGroundingInferencer(asked.config, asked.checkpoint, 'cpu')
    tubes = [np.array([[t, 3, 4, 20, 22] for t in range(n)], np.float32) for n in (40, 60)]
    rng = np.random.default_rng(0)
    features = {
        stream: [rng.random((5, size), np.float32) for _ in tubes]
        for stream, size in TubeFeatureExtractor.sizes.items()
    }
    video = TubeVideo('scene', ['not asked for'], [], tubes, features)
    write_tube_file(tmp_path / 'x.h5', [video])
    found = read_tracks(tmp_path / 'x.h5', 'scene.mp4', inferencer.streams)
    inferencer.config.pop('extractor')
    inferencer.config.pop('tracker')
    [answer] = inferencer(asked.video, 'a red box', found)
    video.sentences = ['a red box']
    assert answer['score'] == float(inferencer.ground(video).pred_instances.scores[0])
    assert read_tracks(tmp_path / 'x.h5', 'scene.mp4', ['flow', 'csn']).features == {}
    [answer] = inferencer(asked.video, 'a red box', [])
    assert answer['tube_index'] == -1
    with pytest.raises(ValueError, match='the config has no `extractor`'):
        inferencer(asked.video, 'a red box', tubes)
    with pytest.raises(TubeError, match=r"no video 'other\.mp4'; it has scene"):
        read_tracks(tmp_path / 'x.h5', 'other.mp4')


def test_the_tool_writes_pictures_videos_and_answers(asked, tmp_path):
    tracks = tmp_path / 'tracks.json'
    tracks.write_text(json.dumps({'scene': [[[t, 3, 4, 20, 22, 0.9] for t in range(30, 60)]]}))
    code, output = run_tool(
        'mmn ground {} {} --config {} --checkpoint {} --tracks {} --out {}/out',
        asked.video,
        'a red box',
        asked.config,
        asked.checkpoint,
        tracks,
        tmp_path,
        '--device',
        'cpu',
    )
    assert code == 0, output
    assert 'a red box: tube 0' in output
    assert {path.name for path in (tmp_path / 'out').glob('[!.]*')} == {
        'scene_0.png',
        'scene_0.mp4',
        'scene_tubes.json',
    }
    answer = json.loads((tmp_path / 'out/scene_tubes.json').read_text())['scene#0']
    assert 30 <= answer['st_frame'] <= answer['ed_frame'] < 60


def test_files_that_are_not_the_tools_own_stop_it(asked, tmp_path):
    (tmp_path / 'scene_0.mp4').write_text('mine')
    code, output = run_tool(
        'mmn ground {} {} --config {} --checkpoint none.pth --out',
        asked.video,
        'a red box',
        asked.config,
        tmp_path,
    )
    assert code == 1
    assert f'{tmp_path / "scene_0.mp4"} is there and was not written by this program' in output
    assert (tmp_path / 'scene_0.mp4').read_text() == 'mine'


def test_the_box_is_drawn_where_it_is(asked, tmp_path):
    from mmn_plugin.visualization.tubes import draw_tube_frames

    tube = np.array([[t, 4, 8, 27, 23] for t in range(10, 20)], np.float32)
    picture = draw_tube_frames(asked.video, 'a red box', tube, count=2)
    blue = (picture == [0x00, 0x72, 0xB2]).all(-1)
    side = picture.shape[1] // 2
    scale = side // 32
    rows, columns = np.nonzero(blue[:, :side])
    assert (rows.min(), rows.max() + 1) == (8 * scale, 24 * scale)
    assert (columns.min(), columns.max() + 1) == (4 * scale, 28 * scale)
    assert len(picture) > side  # the caption is below
    assert draw_tube_frames(asked.video, 'nothing', tube[:0]).ndim == 3


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'not a JSON object'),
        ('{"a": []}', "no video 'scene.mp4'"),
        ('x', 'not a JSON file'),
        (f'{{"scene": [[[1{400 * "0"}, 1, 1, 2, 2]]]}}', 'track 0 is not a list'),
        ('{"scene": [[[1, 2]]]}', 'track 0'),
        ('{"scene": [5]}', 'track 0 is not a list'),
        ('{"scene": [[[1, 9, 9, 3, 3]]]}', 'ends before'),
    ],
)
def test_unfit_track_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(TubeError, match=message):
        read_tracks(tmp_path / 'x.json', 'scene.mp4')


def test_published_weights_with_layers_that_nothing_uses_are_converted(shared, tmp_path):
    with np.load(shared / 'golden/hcstvg_pool.npz') as golden:
        state = {
            key.removeprefix('state/'): torch.from_numpy(golden[key])
            for key in golden.files
            if key.startswith('state/')
        }
    assert 'featpool.fc1.weight' in state
    torch.save(dict(model=state), tmp_path / 'a.pth')
    code, output = run_tool(
        'model_converters/mmn_to_mmengine.py', tmp_path / 'a.pth', tmp_path / 'b.pth'
    )
    assert code == 0, output
    converted = torch.load(tmp_path / 'b.pth')['state_dict']
    assert len(converted) == len(state) - 4
    shutil.rmtree(tmp_path)
