"""Every tool with a config of tubes, of weak supervision and of moments: it works, or says what to
use instead in one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.made_up_tubes import write_tube_config, write_tubes
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import save_checkpoint
from helpers.tiny_weak import write_weak_config
from matplotlib.image import imread

from mmn_plugin.cli import web
from mmn_plugin.features import VideoWriter
from mmn_plugin.visualization.canvas import PREDICTION, TRUTH


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
    """Config and checkpoint of each kind, and a folder with videos."""
    folder = tmp_path_factory.mktemp('kinds')
    corpus, tubes = write_corpus(folder / 'corpus', train=4, test=5), write_tubes(folder / 'tubes')
    made = SimpleNamespace(folder=folder, corpus=corpus, tube_files=tubes)
    for name, config in (
        ('moments', write_config(folder / 'moments.py', corpus)),
        ('weak', write_weak_config(folder / 'weak.py', corpus)),
        ('tubes', write_tube_config(folder / 'tubes.py', tubes)),
    ):
        checkpoint = save_checkpoint(config, folder / f'{name}.pth')
        setattr(made, name, SimpleNamespace(config=config, checkpoint=checkpoint))
    (folder / 'videos').mkdir()
    for name, count in (('test_0', 100), ('test_1', 12)):  # test_1's tubes are longer than it
        with VideoWriter(folder / f'videos/{name}.mp4', 10) as writer:
            for _ in range(count):
                writer.add(np.full((64, 80, 3), 200, np.uint8))
    return made


def one_line(code, output):
    """The only line of a tool's error."""
    assert code == 1, output
    assert 'Traceback' not in output
    lines = [line for line in output.splitlines() if line.lower().startswith('error')]
    assert len(lines) == 1, output
    return lines[0]


ASK_TUBES = 'is of tubes, and this is for moments: ask with `mmn ground --config`'
CONFIGURED = 'CHECKPOINT --config CONFIG'
INSTEAD = [  # kind of the config, tool with its arguments, message
    ('tubes', f'mmn web {CONFIGURED}', ASK_TUBES),
    ('tubes', f'analysis_tools/calibrate_presence.py {CONFIGURED} --out out', ASK_TUBES),
    ('tubes', f'deployment/export_onnx.py {CONFIGURED} --out out', ASK_TUBES),
    ('tubes', 'analysis_tools/draw_score_curves.py CONFIG CHECKPOINT', 'tools/test.py --show-dir'),
    ('tubes', 'analysis_tools/benchmark.py CONFIG', 'models of moments are measured here'),
    ('tubes', 'mmn extract VIDEOS --config mmn_shapes_tubes.py --out x.h5', 'describes tubes, not'),
    ('tubes', 'test.py CONFIG CHECKPOINT --dump x.json', '--submission FILE.json'),
    ('weak', 'test.py CONFIG CHECKPOINT --submission x.json', '--dump FILE.json writes'),
    ('weak', 'analysis_tools/benchmark.py CONFIG --conv-mode sparse', 'convolutions of FrameNeck'),
]


@pytest.mark.parametrize(('kind', 'line', 'message'), INSTEAD)
def test_a_tool_for_another_kind_says_what_to_use_instead(
    kinds, tmp_path, monkeypatch, kind, line, message
):
    monkeypatch.chdir(tmp_path)
    made = getattr(kinds, kind)
    paths = dict(CONFIG=made.config, CHECKPOINT=made.checkpoint, VIDEOS=kinds.folder / 'videos')
    tool, *arguments = [paths.get(word, word) for word in line.split()]
    monkeypatch.setattr(web, 'find_spec', bool)  # the page's package need not be installed
    assert message in one_line(*run_tool(tool, *arguments))
    assert not {path.name for path in tmp_path.iterdir()} & {'out', 'x.h5', 'x.json'}


def test_the_files_of_the_other_kind_are_refused(kinds, tmp_path):
    (tmp_path / 'tubes.json').write_text('{}')
    (tmp_path / 'moments.json').write_text(json.dumps(dict(format='mmn_plugin/predictions')))
    assert 'is not a file of predictions' in one_line(
        *run_tool('mmn', 'eval', tmp_path / 'tubes.json', kinds.corpus / 'test.json')
    )
    assert 'holds predicted moments, not tubes' in one_line(
        *run_tool('mmn', 'eval', tmp_path / 'moments.json', kinds.tube_files / 'test.h5')
    )


def has(picture, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.rint(255 * picture[..., :3]) == wanted).all(-1).any()


def test_tubes_are_browsed(kinds, tmp_path):
    output = output_of(
        'analysis_tools/browse_dataset.py {} --split test --number 5 --out',
        kinds.tubes.config,
        tmp_path,
    )
    for word in ('truth (frames)', 'best vIoU', 'test_2', '3x32x7', '0x32x7'):
        assert word in output
    # test_2 has no tube: there is nothing to draw
    assert sorted(path.name for path in tmp_path.glob('*.png')) == sorted(
        f'test_{i}_0{end}.png' for i in (0, 1, 3, 4) for end in ('', '_boxes')
    )
    boxes = imread(tmp_path / 'test_0_0_boxes.png')
    assert has(boxes, TRUTH)
    assert has(boxes, PREDICTION)
    assert has(imread(tmp_path / 'test_0_0.png'), TRUTH)  # the frame of the best cell


def test_a_test_draws_tubes_in_their_videos_or_on_gray(kinds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = output_of(
        'test.py {} {} --show-dir pictures --interval 1 --video-dir {}/videos',
        kinds.tubes.config,
        kinds.tubes.checkpoint,
        kinds.folder,
    )
    pictures = {path.stem: imread(path) for path in tmp_path.glob('pictures/*.png')}
    assert sorted(pictures) == [f'test_{i}_tubes' for i in range(5)]
    assert all(has(picture, TRUTH) for picture in pictures.values())
    assert not has(pictures['test_2_tubes'], PREDICTION)  # it has no tube, hence no answer
    assert has(pictures['test_0_tubes'], '#C8C8C8')  # its video
    assert has(pictures['test_1_tubes'], '#E0E0E0')
    assert 'drawn without the video' in output
    assert 'test_1.mp4 has a box in frame' in output
    assert 'no video test_4 in' in output


def test_the_hook_draws_tubes_while_training(kinds, tmp_path):
    config = write_tube_config(tmp_path / 'tubes.py', kinds.tube_files)
    with config.open('a') as file:
        file.write("custom_hooks = [dict(type='GroundingVisualizationHook', interval=3)]\n")
    output_of('train.py', config, '--work-dir', tmp_path / 'work')
    names = sorted(path.name for path in (tmp_path / 'work').rglob('*.png'))
    assert names == ['val_test_0_tubes_1.png', 'val_test_3_tubes_1.png']
    output_of('analysis_tools/plot_logs.py', tmp_path / 'work', '--out', tmp_path / 'curves.png')


def test_further_tools_take_tubes_and_weak_models(kinds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weak, tubes = kinds.weak, kinds.tubes
    for line, *paths in (
        ('analysis_tools/print_config.py', tubes.config),
        ('analysis_tools/print_config.py', weak.config),
        (
            'analysis_tools/draw_score_curves.py {} {} --out curves.png',
            weak.config,
            weak.checkpoint,
        ),
        (
            'analysis_tools/calibrate_presence.py --config {} {} --out calibrated',
            weak.config,
            weak.checkpoint,
        ),
        ('mmn check', weak.config),
    ):
        output_of(line, *paths)
