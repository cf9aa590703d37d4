"""tools/analysis_tools/print_config.py."""

import pytest
from helpers.run_tool import run_tool
from mmengine.config import Config


def print_config(*arguments):
    return run_tool('analysis_tools/print_config.py', *arguments)


def test_the_whole_config_is_printed_with_the_options(tmp_path):
    path = tmp_path / 'out' / 'config.py'
    code, output = print_config(
        'mmn_tacos.py',
        '--cfg-options',
        'train_cfg.max_epochs=7',
        'model.neck.num_layers=3',
        '--save-path',
        path,
    )
    assert code == 0, output
    assert "type='MMN'" in output  # inherited
    assert 'max_epochs=7' in output
    saved = Config.fromfile(path)
    assert saved.train_cfg.max_epochs == 7
    assert saved.model.neck.num_layers == 3
    assert saved.model.text_encoder.name_or_path == 'distilbert-base-uncased'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(['mmn_nothing.py'], 'mmn_nothing.py'), (['mmn_tacos.py', '--save-path', 'x.txt'], 'x.txt')],
)
def test_mistakes_end_in_one_message(arguments, message):
    code, output = print_config(*arguments)
    assert code == 1
    assert message in output
    assert 'Traceback' not in output
