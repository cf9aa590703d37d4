"""Metadata, requirements/, model-index.yml and paths, without building anything.

What an installed wheel can do is shown by tools/check_wheel.py, which .ci/run calls.
"""

import os
import re
import runpy
import sysconfig
from pathlib import Path

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement

import mmn_plugin
from mmn_plugin import files
from mmn_plugin.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def requirements(name):
    """Requirements of requirements/NAME.txt by package name."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    parsed = [
        Requirement(line.partition('#')[0]) for line in lines if line.partition('#')[0].strip()
    ]
    return {requirement.name: requirement for requirement in parsed}


@pytest.fixture
def distribution(monkeypatch):
    """What pyproject.toml and setup.py say, in an environment with these folders."""

    def read(*folders, site):
        for folder in folders:
            (site / folder).mkdir(parents=True)
        monkeypatch.setattr(sysconfig, 'get_path', lambda *args, **kwargs: str(site))
        monkeypatch.chdir(ROOT)
        arguments = {}
        monkeypatch.setattr(setuptools, 'setup', lambda **given: arguments.update(given))
        runpy.run_path('setup.py')
        read = setuptools.Distribution(arguments)
        read.parse_config_files()
        return read

    return read


def test_undeclared_needs_of_the_stack_are_declared(distribution, tmp_path):
    needs = {r.name: r for r in map(Requirement, distribution(site=tmp_path).install_requires)}
    assert 'importlib_metadata' in needs
    assert not needs['setuptools'].specifier.contains('82.0.0')
    assert needs['setuptools'].specifier.contains('81.0.0')
    assert not needs['mmcv-lite'].specifier.contains('2.2.0')
    assert not needs.keys() & {'mmcv', 'timm', 'torchvision'}


def test_existing_full_mmcv_is_kept(distribution, tmp_path):
    lite = distribution('mmcv_lite-2.1.0.dist-info', site=tmp_path / 'a').install_requires
    full = distribution('mmcv-2.1.0.dist-info', site=tmp_path / 'b').install_requires
    assert [Requirement(r).name for r in lite if r.startswith('mmcv')] == ['mmcv-lite']
    assert [Requirement(r).name for r in full if r.startswith('mmcv')] == ['mmcv']


def test_every_package_is_installed(distribution, tmp_path):
    found = set(distribution(site=tmp_path).packages)
    sources = [p for p in (ROOT / 'mmn_plugin').rglob('*.py') if '.mim' not in p.parts]
    assert {'.'.join(p.parent.relative_to(ROOT).parts) for p in sources} == found


def test_files_that_are_no_code_are_installed_too(distribution, tmp_path):
    data = distribution(site=tmp_path).package_data
    carried = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split('.')).glob(pattern)
    }
    there = {
        path
        for path in (ROOT / 'mmn_plugin').rglob('*')
        if path.is_file() and not {'.mim', '__pycache__'} & set(path.parts) and path.suffix != '.py'
    }
    assert there == carried
    names = {'answers.html', 'model_card.md', 'page.css', 'page.js', 'py.typed'}
    names.add('unrelated_sentences.txt')
    assert {path.name for path in there} == names


def test_the_wheel_carries_configs_and_the_tools_of_use_there(distribution, tmp_path):
    command = distribution(site=tmp_path).get_command_class('build_py')(setuptools.Distribution())
    command.ensure_finalized()
    command.build_lib, command.packages = str(tmp_path / 'lib'), []
    command.run()
    root = tmp_path / 'lib' / 'mmn_plugin' / '.mim'
    carried = {path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file()}
    assert {
        'model-index.yml',
        'configs/mmn_tacos.py',
        'configs/_base_/datasets/tacos.py',
        'tools/train.py',
        'tools/dist_common.sh',
        'tools/data/tacos/README.md',
    } <= carried
    assert not [
        name
        for name in carried
        if re.search('check_wheel|quickstart|reproduc|run_tests|setup_venv|pycache', name)
    ]
    left_out = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / 'tools').rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    } - carried
    assert {name.split('/')[1] for name in left_out} == {
        'check_wheel.py',
        'quickstart.sh',
        'reproduce.py',
        'reproduction',
        'run_tests.sh',
        'setup_venv.sh',
    }


def test_extras_are_pinned(distribution, tmp_path):
    extras = distribution(site=tmp_path).extras_require
    assert extras.keys() == {
        'benchmark',
        'dev',
        'docs',
        'mim',
        'onnx',
        'tensorboard',
        'wandb',
        'web',
    }
    assert all('==' in line for lines in extras.values() for line in lines)


@pytest.mark.parametrize('name', ['pinned', 'lowest'])
def test_tested_sets_satisfy_the_bounds(name):
    tested, bounds = requirements(name), requirements('runtime')
    for package, bound in bounds.items():
        version = str(tested[package].specifier).removeprefix('==')
        assert bound.specifier.contains(version), package


def test_wheels_for_a_gpu_machine_are_the_tested_versions_without_pytorch():
    wheels, tested = requirements('gpu'), requirements('pinned')
    assert requirements('runtime').keys() - wheels.keys() == {'torch'}
    for package in wheels.keys() & tested.keys():
        assert str(wheels[package].specifier) == str(tested[package].specifier), package


def test_lower_bounds_are_what_was_run():
    tested = requirements('lowest')
    # torch is marked as untested below its pin, setuptools has no lower bound of ours
    for package, bound in requirements('runtime').items():
        if package not in ('torch', 'setuptools'):
            version = str(tested[package].specifier).removeprefix('==')
            assert f'>={version}' in str(bound.specifier).split(','), package


def test_model_index_names_every_config():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [
        model
        for path in index['Import']
        for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]
    paths = {path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py')}
    own = {path for path in paths if '_base_' not in path.parts and 'model' in load_config(path)}
    assert {model['Config'] for model in models} == {path.as_posix() for path in own}
    assert all(model['Name'] == Path(model['Config']).stem for model in models)
    collections = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())['Collections']
    assert {model['In Collection'] for model in models} == {c['Name'] for c in collections}
    assert all((ROOT / collection['README']).is_file() for collection in collections)


def test_every_model_of_the_index_builds_as_the_wheels_check_does_it(capsys):
    exec(runpy.run_path(str(ROOT / 'tools/check_wheel.py'))['BUILD'], {})
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {'mmn_joint', 'mscl_shapes', 'mmn_hcstvg'} <= {*names}


def test_config_names_are_unique():
    # mim looks a config up by its file name alone, anywhere in the package
    top = [path.name for path in (ROOT / 'configs').glob('*.py')]
    everywhere = [p.name for folder in ('configs', 'tools', 'mmn_plugin')
                  for p in (ROOT / folder).rglob('*.py')]  # fmt: skip
    assert [name for name in top if everywhere.count(name) > 1 and '.mim' not in name] == []


def test_paths_prefer_the_installed_files(monkeypatch, tmp_path):
    assert files.config_root() == ROOT / 'configs'
    monkeypatch.setattr(files, '_PACKAGE', tmp_path)
    (tmp_path / '.mim').mkdir()
    assert files.config_root() == tmp_path / '.mim/configs'


def test_version_is_one(distribution, tmp_path):
    assert distribution(site=tmp_path).metadata.version == mmn_plugin.__version__
    assert re.fullmatch(r'\d+\.\d+\.\d+', mmn_plugin.__version__)
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == mmn_plugin.__version__


def test_scripts_with_a_shebang_are_executable():
    folders = [ROOT / name for name in ('.ci', 'tools')]
    files = [path for folder in folders for path in folder.rglob('*') if path.is_file()]
    scripts = [path for path in files if path.read_bytes()[:2] == b'#!']
    assert len(scripts) > 5
    assert [path for path in scripts if not os.access(path, os.X_OK)] == []
