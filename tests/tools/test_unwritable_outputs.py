"""Outputs that cannot be written end every tool before its work."""

import re
from pathlib import Path

import pytest
from helpers.run_tool import ROOT, output_of, run_tool
from helpers.tiny_corpus import write_config, write_corpus

# Arguments of each tool and command that writes; of what it reads nothing exists, so that only a
# check before the work can find the output first. OUT stands for it.
CASES = {
    'analysis_tools/benchmark.py': 'absent.py --json OUT',
    'analysis_tools/browse_dataset.py': 'absent.py --out OUT',
    'analysis_tools/calibrate_presence.py': 'absent.pth --out OUT',
    'analysis_tools/draw_score_curves.py': 'absent.py absent.pth --out OUT',
    'analysis_tools/eval_library.py': 'absent.py --json OUT',
    'analysis_tools/memory_estimate.py': 'absent.py --json OUT',
    'analysis_tools/plot_logs.py': 'absent --out OUT',
    'analysis_tools/print_config.py': 'absent.py --save-path OUT',
    'analysis_tools/verify_reference.py': 'absent.npz --json OUT',
    'data/activitynet/convert_activitynet.py': '--annotations absent --out OUT',
    'data/activitynet/make_caption_features.py': '--annotations absent --out OUT',
    'data/build_vocabulary.py': 'absent.json --out OUT',
    'data/charades_sta/convert_charades_sta.py': '--annotations absent --out OUT',
    'data/hcstvg/convert.py': '--annotations absent --tubes absent --stream a=absent --out OUT',
    'data/train_shapes_towers.py': 'absent.py --corpus absent --out OUT',
    'data/make_shapes.py': 'OUT --videos 1',
    'data/make_shapes_tubes.py': 'absent --out OUT',
    'data/tacos/convert_tacos.py': '--annotations absent --out OUT',
    'deployment/export_onnx.py': 'absent.pth --out OUT',
    'model_converters/mmn_to_mmengine.py': 'absent.pth OUT',
    'mmn eval': 'absent.json absent.json --json OUT.json',
    'mmn extract': 'absent.mp4 --out OUT',
    'mmn extract absent.mp4': '--out a.h5 --json OUT.json',
    'mmn check': 'absent.py --json OUT.json',
    'mmn check absent.py': '--labels OUT',
    'mmn web': 'absent.pth --json OUT.json',
    'mmn ground': 'absent.mp4 sentence --checkpoint absent.pth --out OUT',
    'mmn ground absent.mp4': 'sentence --checkpoint absent.pth --json OUT.json',
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()


@pytest.mark.parametrize('name', CASES)
def test_a_tool_looks_at_its_output_first(name):
    code, output = run_tool(f'{name} {CASES[name].replace("OUT", "file/x")}')
    assert code != 0
    assert 'Traceback' not in output
    assert re.search(r'file/x(\.json)? cannot be written(?: into)?: Not a directory', output)
    assert 'absent' not in output.splitlines()[-1]
    assert {path.name for path in Path().iterdir()} == {'file'}


def test_no_tool_that_writes_is_forgotten():
    option = re.compile(r"""add(_argument)?\('(--out|--json|--save-path|out)'|prepare_parser""")
    scripts = {path.relative_to(ROOT / 'tools') for path in (ROOT / 'tools').rglob('*.py')}
    writing = {path for path in scripts if option.search((ROOT / 'tools' / path).read_text())}
    assert {str(path) for path in writing} == {name for name in CASES if 'mmn ' not in name}


def test_a_run_looks_at_its_outputs_first(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2))
    checkpoints = 'default_hooks.checkpoint.out_dir'
    for tool, arguments in (
        ('train.py', '--work-dir file/x'),
        ('train.py', f'--work-dir work --cfg-options {checkpoints}=file/x'),
        ('test.py', '--work-dir file/x'),
        ('test.py', '--work-dir work --dump file/x.json'),
        ('test.py', '--work-dir work --dump file/x.pkl'),
        ('test.py', '--work-dir work --submission file/x.json'),
        ('test.py', '--work-dir work --show-dir file/x'),
    ):
        checkpoint = ['file'] if tool == 'test.py' else []  # read after that, and no checkpoint
        output = output_of(tool, config, *checkpoint, *arguments.split(), code=1)
        assert re.search(r'file/x\S* cannot be written', output.splitlines()[-1]), output[-2000:]
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
