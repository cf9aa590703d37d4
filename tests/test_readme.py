"""What README.md and the pages of docs/ say is so."""

import ast
import json
import re
import runpy
import shutil
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mmengine
import pytest
import torch
from helpers.run_tool import ROOT, output_of, run_tool
from mmengine.optim import OptimWrapper

from mmn_plugin.engine import LossCheck

DOCS = ROOT / 'docs'
RESULTS = sorted((DOCS / 'results').glob('*.json'))
PAGES = [
    *(ROOT / name for name in ('README.md', 'CONTRIBUTING.md')),
    *sorted((ROOT / 'configs').glob('*.md')),
    *sorted(DOCS.glob('*.md')),
]


@pytest.fixture(scope='module')
def reproduce():
    return runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))


def test_every_figure_is_the_one_of_its_committed_result(reproduce):
    for page in reproduce['PAGES']:
        assert reproduce['update_page'](page) == page.read_text(), page


def test_every_result_is_shown_and_says_how_it_was_measured(reproduce):
    assert RESULTS
    text = '\n'.join(page.read_text() for page in reproduce['PAGES'])
    for path in RESULTS:
        result = json.loads(path.read_text())
        assert text.count(f'<!-- result: {path.stem} -->') == 1
        assert path.stem in reproduce['RENDERED']
        assert re.fullmatch(r'[0-9a-f]{40}', result['commit'])
        removed = path.stem not in reproduce['EXPERIMENTS']  # its command is its commit's
        options = {'seeds'} & result.keys() if removed else reproduce['options_of'](path.stem)
        how = {option: result[option] for option in options}
        assert result['command'] == reproduce['command_of'](path.stem, how)
        assert {'cpu', 'cores', 'torch'} <= result['machine'].keys()


@pytest.fixture(scope='module')
def weak():
    return json.loads((ROOT / 'docs' / 'results' / 'weak.json').read_text())


def test_weak_supervision_is_described_by_its_figures(weak):
    alone, _, full, control, tuned, ceiling = [
        {name: statistics.fmean(seed[name] for seed in seeds) for name in ('R1@0.5', 'R1@0.7')}
        for seeds in weak['per_seed'].values()
    ]
    page = (DOCS / 'weak_supervision.md').read_text()
    section = page.split('<!-- end -->')[1].split('\n## ')[0]
    said = re.findall(r'\d+\.\d(?= points|\s+at IoU=0\.7)', re.sub(r'\s+', ' ', section))
    assert said == [
        f'{abs(left[name] - right[name]):.1f}'
        for left, right, name in (
            (full, alone, 'R1@0.5'),
            (full, control, 'R1@0.5'),
            (full, control, 'R1@0.7'),
            (full, tuned, 'R1@0.5'),
            (full, tuned, 'R1@0.7'),
            (ceiling, tuned, 'R1@0.5'),
        )
    ]


def test_weak_supervision_is_chosen_on_validation_with_as_many_trials_and_steps(weak):
    best, trials, epochs = {}, {}, set()
    for row, chosen in weak['chosen'].items():
        tried = [max(epoch['R1@0.5'] for epoch in trial['epochs']) for trial in chosen['tried']]
        assert chosen['R1@0.5'] == max(tried)
        best[row], trials[row] = chosen['options'], len(tried)
        epochs |= {len(trial['epochs']) for trial in chosen['tried']}
    _, _, full, _, tuned = best
    assert trials[full] == trials[tuned] > 1
    assert len(epochs) == 1
    assert all(set(best[full]) <= set(options) for row, options in best.items() if row != tuned)


def test_the_table_itself_says_how_many_settings_were_looked_at(reproduce):
    module = sys.modules['reproduction.weak']
    page = (DOCS / 'weak_supervision.md').read_text()
    table = page.split('<!-- result: weak -->')[1].split('<!-- end -->')[0]
    said = f'{module.LOOKED_AT[module.FULL]} of the contrast'
    assert said in table
    assert f'| {module.FULL} | {module.LOOKED_AT[module.FULL]} + 4 |' in table
    assert f'{said.split()[0]} settings of the contrast' in page


def test_a_changed_figure_is_noticed(reproduce, tmp_path):
    for path in RESULTS:
        (tmp_path / path.name).write_text(path.read_text())
    result = json.loads((tmp_path / 'shapes.json').read_text())
    result['per_seed'][0]['R1@0.5'] -= 5
    (tmp_path / 'shapes.json').write_text(json.dumps(result))
    readme = ROOT / 'README.md'
    assert reproduce['update_page'](readme, tmp_path) != readme.read_text()


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_file_it_names_exists(page):
    text = page.read_text()
    named = set(re.findall(r'\b(?:tools|configs|tests|docs|mmn_plugin)/[\w./-]+\.\w+', text))
    assert not [name for name in named if not (ROOT / name).exists()]
    links = set(re.findall(r'\]\((?!https?:|#)([^)#]+)', text))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_short():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 200


def table_of_messages() -> list[str]:
    """Code spans in the first column of the table of messages."""
    page = (DOCS / 'troubleshooting.md').read_text()
    rows = [line.split('|')[1] for line in page.splitlines() if line.startswith('| ')][2:]
    return [span for row in rows for span in re.findall(r'`([^`]+)`', row)]


def messages_of(path: Path) -> list[str]:
    """String literals of a file, parts that follow one another joined, with … for what is put in.

    Docstrings are left out.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        text_of(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp) and id(node) not in alone
    ]


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return ''.join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return '…'


@cache
def known_messages() -> str:
    """Everything that a message in the table can come from."""
    ours = [path for folder in ('mmn_plugin', 'tools') for path in (ROOT / folder).rglob('*.py')]
    texts = [text for path in ours for text in messages_of(path)]
    config_utils = Path(mmengine.__file__).parent / 'config' / 'utils.py'
    texts += [text.replace('…', 'mmn_plugin') for text in messages_of(config_utils)]
    # Python's
    texts += [
        f'No module named {name!r}'
        for name in ('mmaction.models.localizers.drn', 'pkg_resources', 'mmcv')
    ]
    # Python's where a script is absent, and openmim's (mim/commands/train.py of 0.3.9)
    texts += [
        "can't open file '…/site-packages/mmn_plugin/…/tools/…'",
        "doesn't exist and we can not find the config file in codebase mmn_plugin.",
    ]
    # put together from parts when it is printed
    batch = dict(data_samples=[SimpleNamespace(video_id='a')])
    losses = dict(loss=torch.tensor(torch.nan), loss_iou=torch.tensor(torch.nan))
    weight = torch.nn.Parameter(torch.ones(1))
    run = SimpleNamespace(
        epoch=0,
        optim_wrapper=OptimWrapper(torch.optim.SGD([weight], lr=1.0)),
        model=SimpleNamespace(
            log_vars=losses,
            train_step=lambda _, optim_wrapper: optim_wrapper.update_params(weight.sum()),
        ),
    )
    with pytest.raises(FloatingPointError) as error:
        LossCheck().train_step(run, 0, batch)
    return '\n'.join([*texts, str(error.value)])


def is_printed(message: str) -> bool:
    parts = map(re.escape, message.split('…'))
    return re.search('.*'.join(parts), known_messages()) is not None


def test_every_message_of_the_table_is_one_that_is_printed():
    table = table_of_messages()
    assert len(table) > 12
    assert not [message for message in table if not is_printed(message)]


def test_a_message_that_nobody_prints_is_noticed():
    assert not is_printed('… videos … are not in this file')
    assert not is_printed('loss=nan at epoch …, in the batch of videos')


def blocks_of_example(name: str) -> list[tuple[str, str]]:
    """Language and text of the blocks of an example of docs/data.md."""
    page = (DOCS / 'data.md').read_text()
    example = re.search(rf'<!-- example: {name} -->(.*?)<!-- end -->', page, re.DOTALL)[1]
    return re.findall(r'```(\w+)\n(.*?)```', example, re.DOTALL)


def test_the_custom_data_example_runs_as_it_stands(tmp_path, monkeypatch):
    blocks = blocks_of_example('custom data')
    assert [language for language, _ in blocks] == ['python', 'python', 'bash']
    monkeypatch.chdir(tmp_path)
    for _, text in blocks[:2]:
        Path(re.match(r'# (\w+\.py):', text)[1]).write_text(text)
    for line in blocks[2][1].splitlines():  # in one process, where each would import everything
        command = line.removeprefix('python ').replace('$MMN/tools/', '')
        assert command != line or line.startswith('mmn ')
        if command == 'make_data.py':
            runpy.run_path(command)
        else:
            output_of(command)
    assert Path('work_dirs/my_config/epoch_1.pth').is_file()


def test_the_short_run_on_real_annotations_works_as_written(shared, tmp_path, monkeypatch):
    features, prepare, commands = (text for _, text in blocks_of_example('short run'))
    monkeypatch.chdir(tmp_path)
    data = tmp_path / 'data' / 'charades_sta'
    shutil.copytree(shared / 'data' / 'annotations' / 'charades_sta', data)
    exec(compile(features, 'random_features.py', 'exec'), {})
    arguments = re.search(r'^python tools/(data/\S+) (.*)$', prepare, re.MULTILINE)
    assert run_tool(arguments[1], *arguments[2].split())[0] == 0
    settings = subprocess.run(
        ['bash', '-c', f'{prepare[prepare.index("options=(") :]}printf "%s\\n" "${{options[@]}}"'],
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()
    assert len(settings) == 19
    assert commands.count('--cfg-options "${options[@]}"') == 3
    # in one process: two would need half a minute each time
    output_of('train.py', 'mmn_charades.py', '--cfg-options', *settings, 'train_cfg.max_epochs=1')
    assert (tmp_path / 'work_dirs' / 'mmn_charades' / 'epoch_1.pth').is_file()
