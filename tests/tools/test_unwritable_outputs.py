"""Outputs that cannot be written end every tool before its work."""

import re
from pathlib import Path

import pytest
from helpers.run_tool import ROOT, run_tool
from helpers.tiny_corpus import write_config, write_corpus

# Arguments of each tool that writes; of what it reads nothing exists, so that only a check before
# the work can find the output first. OUT stands for it.
CASES = {
    'analysis_tools/benchmark.py': 'absent.py --json OUT',
    'analysis_tools/browse_dataset.py': 'absent.py --out OUT',
    'analysis_tools/calibrate_presence.py': 'absent.pth --out OUT',
    'analysis_tools/draw_score_curves.py': 'absent.py absent.pth --out OUT',
    'analysis_tools/plot_logs.py': 'absent --out OUT',
    'analysis_tools/print_config.py': 'absent.py --save-path OUT',
    'analysis_tools/verify_reference.py': 'absent.npz --json OUT',
    'data/activitynet/convert_activitynet.py': '--annotations absent --out OUT',
    'data/build_vocabulary.py': 'absent.json --out OUT',
    'data/charades_sta/convert_charades_sta.py': '--annotations absent --out OUT',
    'data/hcstvg/convert.py': '--annotations absent.json --tubes absent.pkl --out OUT',
    'data/make_shapes.py': 'OUT --videos 1',
    'data/make_shapes_tubes.py': 'absent --out OUT',
    'data/tacos/convert_tacos.py': '--annotations absent --out OUT',
    'deployment/export_onnx.py': 'absent.pth --out OUT',
    'model_converters/mmn_to_mmengine.py': 'absent.pth OUT',
}
OUTPUT = re.compile(r"\badd(?:_argument)?\(\s*'(--out|--json|--save-path|--dump|out)'")


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('outputs')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus', 2, 2))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()


def assert_found_first(code, output, path='file/x'):
    assert code != 0
    assert 'Traceback' not in output
    assert re.search(f'{re.escape(path)} cannot be written(?: into)?: Not a directory', output)
    assert 'absent' not in output.splitlines()[-1]
    assert {path.name for path in Path().iterdir()} == {'file'}


@pytest.mark.parametrize('name', CASES)
def test_a_tool_looks_at_its_output_first(name):
    arguments = CASES[name].replace('OUT', 'file/x').split()
    assert_found_first(*run_tool(name, *arguments))


@pytest.mark.parametrize(
    'arguments',
    [
        'eval absent.json absent.json --json OUT.json',
        'extract absent.mp4 --out OUT',
        'extract absent.mp4 --out a.h5 --json OUT.json',
        'check absent.py --json OUT.json',
        'web absent.pth --json OUT.json',
        'ground absent.mp4 sentence --checkpoint absent.pth --out OUT',
        'ground absent.mp4 sentence --checkpoint absent.pth --json OUT.json',
    ],
)
def test_a_command_looks_at_its_output_first(arguments):
    path = 'file/x.json' if '.json' in arguments.split()[-1] else 'file/x'
    arguments = arguments.replace('OUT', 'file/x').split()
    assert_found_first(*run_tool('mmn', *arguments), path)


def test_no_tool_that_writes_is_forgotten():
    scripts = [path for path in (ROOT / 'tools').rglob('*.py') if 'reproduction' not in path.parts]
    writing = {
        str(path.relative_to(ROOT / 'tools')) for path in scripts if OUTPUT.search(path.read_text())
    }
    of_all = {'test.py'} | {
        str(path.relative_to(ROOT / 'tools'))
        for path in scripts
        if 'prepare_parser' in path.read_text()
    }
    assert writing | of_all == {*CASES, 'test.py'}


@pytest.mark.parametrize(
    ('tool', 'option', 'path'),
    [
        ('train.py', '--work-dir', 'file/x'),
        ('test.py', '--work-dir', 'file/x'),
        ('test.py', '--dump', 'file/x.json'),
        ('test.py', '--dump', 'file/x.pkl'),
        ('test.py', '--submission', 'file/x.json'),
        ('test.py', '--show-dir', 'file/x'),
    ],
)
def test_a_run_looks_at_its_outputs_first(config, tool, option, path):
    checkpoint = ['file'] if tool == 'test.py' else []  # read after that, and no checkpoint
    work = [] if option == '--work-dir' else ['--work-dir', 'work']
    code, output = run_tool(tool, config, *checkpoint, option, path, *work)
    assert code == 1
    assert f'{path} cannot be written' in output.splitlines()[-1]
    assert 'Traceback' not in output


def test_checkpoints_elsewhere_are_looked_at_before_training(config):
    code, output = run_tool(
        'train.py {} --work-dir work --cfg-options',
        config,
        'default_hooks.checkpoint.out_dir=file/x',
    )
    assert code == 1
    assert re.search(
        'file/x/work cannot be written into: Not a directory', output.splitlines()[-1]
    ), output[-2000:]
    assert 'Epoch(train)' not in output


def test_what_is_there_stays_and_nothing_is_made(tmp_path):
    from mmn_plugin.files import OutputError, writable_file, writable_folder

    (tmp_path / 'file').write_text('kept')
    assert writable_file(tmp_path / 'file') == tmp_path / 'file'
    assert (tmp_path / 'file').read_text() == 'kept'
    writable_file(tmp_path / 'a/b/c.json')
    writable_folder(tmp_path / 'a/b')
    writable_file('/dev/null')
    assert [path.name for path in tmp_path.iterdir()] == ['file']
    (tmp_path / 'dangling').symlink_to(tmp_path / 'a/b')
    for path, message in (
        ('', 'is a folder: name a file'),
        ('x' * 300, 'name too long'),
        ('dangling/c', 'cannot be written'),
    ):
        with pytest.raises(OutputError, match=message):
            writable_file(tmp_path / path)
    with pytest.raises(OutputError, match='is a file, and a folder is needed'):
        writable_folder(tmp_path / 'file')
