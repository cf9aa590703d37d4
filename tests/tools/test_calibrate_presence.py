"""tools/analysis_tools/calibrate_presence.py on a small corpus."""

import pytest
from helpers.run_tool import run_tool
from helpers.tiny_corpus import FEATURE_SIZE
from helpers.tiny_grounder import write_grounder

from mmn_plugin.apis import GroundingInferencer


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    return write_grounder(tmp_path_factory.mktemp('calibrate'), in_channels=FEATURE_SIZE)


def calibrate(grounder, out, *arguments):
    return run_tool(
        'analysis_tools/calibrate_presence.py {} --config {} --device cpu --out',
        grounder.checkpoint,
        grounder.config,
        out,
        *arguments,
    )


def test_the_threshold_is_in_what_is_written(grounder, tmp_path):
    for out in (tmp_path / 'model', tmp_path / 'new' / 'calibrated.pth'):
        code, output = calibrate(grounder, out, '--keep', '0.8')
        assert code == 0, output
        assert 'keeps 80 % of the present' in output
    folder = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu')
    file = GroundingInferencer(grounder.config, tmp_path / 'new' / 'calibrated.pth', 'cpu')
    assert f'threshold {folder.presence_threshold:.4f}' in output
    assert folder.presence_threshold == file.presence_threshold
    assert file.meta['presence']['keep'] == 0.8


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--keep', '2'], 'keep=2.0'),
        (
            ['--cfg-options', 'val_dataloader.dataset.ann_file=none.json'],
            'none.json does not exist',
        ),
    ],
)
def test_mistakes_end_in_one_message(grounder, tmp_path, arguments, message):
    code, output = calibrate(grounder, tmp_path / 'out', *arguments)
    assert code == 1
    assert message in output
    assert 'Traceback' not in output
    assert not (tmp_path / 'out').exists()


def test_a_folder_cannot_become_a_checkpoint(grounder, tmp_path):
    GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu').save_pretrained(tmp_path)
    code, output = run_tool('analysis_tools/calibrate_presence.py', tmp_path, '--out', 'a.pth')
    assert code == 1
    assert 'name a folder' in output
