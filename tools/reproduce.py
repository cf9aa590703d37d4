"""Measure again what the README reports: ``python tools/reproduce.py NAME``.

Writes ``docs/results/NAME.json`` (command, commit, seeds, machine, every value) and renders its
table in the README. Run from the checkout's root, on the Shapes corpus of ``tools/quickstart.sh``.
"""
import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs' / 'results'
README = ROOT / 'README.md'
CONFIG = 'configs/mmn_shapes.py'
CORPUS = Path('data/shapes')
WORK = Path('work_dirs/reproduce')
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'R5@0.5', 'R5@0.7', 'mIoU')
CODE = ('mmn_plugin', 'configs', 'tools', 'requirements')
WORDS = ('blank', 'colour', 'shape', 'action')
# Negatives of one sentence: videos per process and forward pass, options of the hook. A step of
# the optimiser is 16 videos in all of them (2 processes, gradients accumulated), so that nothing
# else differs but the videos over which BatchNorm takes its statistics.
VIDEOS_PER_STEP = 16
QUEUE = dict(queue_size=64, from_epoch=3)
NEGATIVES = {
    'local, 2 videos': (2, {}),
    'local, 4 videos': (4, {}),
    'local, 8 videos': (8, {}),
    'global, 2 x 8 videos': (8, dict(scope='global')),
    'local, 8 videos, and a queue of 64': (8, QUEUE),
    'global, 2 x 8 videos, and a queue of 64': (8, dict(scope='global', **QUEUE)),
}


def run(*command, capture: bool = False) -> str:
    """Run a command from the checkout's root; a failure ends everything."""
    print('$', *command, flush=True)
    environment = dict(os.environ, PYTHON=sys.executable)
    result = subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE if capture else None)
    if result.returncode:
        sys.exit(f'{command[0]} ended with exit code {result.returncode}\n{result.stdout or ""}')
    return result.stdout or ''


def train_and_test(name: str, seed: int, options: tuple[str, ...] = ()) -> dict[str, float]:
    """Train the Shapes config in two processes; metrics of its best checkpoint, and seconds."""
    work = WORK / f'{name}_seed{seed}'
    began = time.time()
    run('bash', 'tools/dist_train.sh', CONFIG, 2, '--work-dir', work, '--seed', seed,
        *(('--cfg-options', *options) if options else ()), capture=True)
    seconds = time.time() - began
    best = max((ROOT / work).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    run('bash', 'tools/dist_test.sh', CONFIG, best, 2, '--work-dir', work / 'test',
        *(('--cfg-options', *options) if options else ()), capture=True)
    newest = max(path for path in (ROOT / work / 'test').glob('*/*.json')
                 if path.parent.name == path.stem)
    metrics = {key.removeprefix('grounding/'): value
               for key, value in json.loads(newest.read_text()).items()
               if key.startswith('grounding/')}
    return dict(seed=seed, train_seconds=seconds, **metrics)


def shapes(seeds: list[int]) -> dict:
    """MMN on Shapes."""
    return dict(per_seed=[train_and_test('shapes', seed) for seed in seeds])


def shapes_words(seeds: list[int]) -> dict:
    """MMN on Shapes, trained and tested with only some of each sentence's words."""
    result = {}
    for kept in WORDS:
        files = (f'{split}_dataloader.dataset.ann_file=ablations/{kept}/{split}.json'
                 for split in ('train', 'val', 'test'))
        options = (*files, 'test_evaluator.subsets=None')
        result[kept] = [train_and_test(kept, seed, options) for seed in seeds]
    return dict(per_seed=result)


def negatives(seeds: list[int]) -> dict:
    """MMN on Shapes with negatives from more and more videos."""
    result = {}
    for label, (videos, hook) in NEGATIVES.items():
        options = (
            f'train_dataloader.batch_size={videos}',
            f'optim_wrapper.accumulative_counts={VIDEOS_PER_STEP // (2 * videos)}',
            'optim_wrapper.optimizer.lr=1e-3',  # the config's, scaled from its 32 videos a step
            *(f'default_hooks.negatives.{key}={value}' for key, value in hook.items()))
        name = 'negatives_' + re.sub(r'\W+', '_', label)
        result[label] = [train_and_test(name, seed, options) for seed in seeds]
    return dict(per_seed=result)


def negatives_cost(seeds: list[int]) -> dict:
    """Memory and time of the losses for growing numbers of negatives."""
    return dict(figures=of_tool('negatives_cost'))


def quickstart(seeds: list[int]) -> dict:
    """Seconds that each step of tools/quickstart.sh takes after installation."""
    folder = WORK / 'quickstart'
    subprocess.run(['rm', '-rf', str(ROOT / folder)], check=True)
    output = run('bash', 'tools/quickstart.sh', '--out', folder, capture=True)
    print(output)
    steps = [(int(seconds), text) for seconds, text in
             re.findall(r'^\[ *(\d+) s\] (.*)$', output, flags=re.MULTILINE)]
    durations = {text.split(' ', 2)[1]: end - begin for (begin, text), (end, _) in
                 pairwise(steps)}
    metrics = json.loads((ROOT / folder / 'work_dirs/mmn_shapes/results.json').read_text())
    return dict(seconds=durations, total_seconds=steps[-1][0], metrics=metrics)


def shared_folder() -> Path:
    """The reference material, which is no part of the product (see MMN_SHARED in the README)."""
    folder = Path(os.environ.get('MMN_SHARED', ROOT.parent / 'shared'))
    if not folder.is_dir():
        sys.exit(f'{folder} does not exist; set MMN_SHARED to the folder of the reference material')
    return folder


def of_tool(name: str, *arguments) -> dict:
    """What an analysis tool writes with ``--json``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'figures.json'
        run(sys.executable, f'tools/analysis_tools/{name}.py', *arguments, '--json', path)
        return json.loads(path.read_text())


def dataset_cost(seeds: list[int]) -> dict:
    """Time and memory of building the ActivityNet Captions training set."""
    annotations = shared_folder() / 'data' / 'annotations' / 'activitynet' / 'train.json'
    return dict(figures=of_tool('dataset_cost', annotations))


def agreement(seeds: list[int]) -> dict:
    """Differences from the published code's figures, quantity by quantity."""
    golden = shared_folder() / 'golden'
    files = [path for path in sorted(golden.glob('*.npz')) if not path.name.startswith('hcstvg')]
    return dict(files=of_tool('verify_reference', *files))


EXPERIMENTS = dict(agreement=agreement, dataset_cost=dataset_cost, negatives=negatives,
                   negatives_cost=negatives_cost, quickstart=quickstart, shapes=shapes,
                   shapes_words=shapes_words)


def machine() -> dict:
    """What the figures were measured on."""
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    packages = ('torch', 'mmengine', 'mmaction2', 'transformers', 'numpy')
    return dict(cpu=cpu[1] if cpu else platform.processor(), cores=len(os.sched_getaffinity(0)),
                system=platform.system(), python=platform.python_version(),
                **{name: version(name) for name in packages})


def measure(name: str, seeds: list[int]) -> dict:
    """Run one experiment and describe how it was run."""
    git = ('git', '-C', ROOT)
    changed = run(*git, 'status', '--porcelain', '--', *CODE, capture=True).strip()
    commit = run(*git, 'rev-parse', 'HEAD', capture=True).strip()
    return dict(
        name=name,
        command=f'python tools/reproduce.py {name} --seeds {" ".join(map(str, seeds))}',
        commit=commit + (' with uncommitted changes' if changed else ''),
        date=datetime.date.today().isoformat(),
        machine=machine(),
        seeds=seeds,
        **EXPERIMENTS[name](seeds))


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    mean = statistics.fmean(values)
    return f'{mean:.1f} ± {statistics.stdev(values):.1f}' if len(values) > 1 else f'{mean:.1f}'


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def source(result: dict) -> str:
    """The line under a table that says where its figures come from."""
    seeds = ', '.join(map(str, result['seeds']))
    seeds = f', seed{"s" * (len(result["seeds"]) > 1)} {seeds}' if 'per_seed' in result else ''
    return (f'`python tools/reproduce.py {result["name"]}`{seeds}; {result["machine"]["cores"]} '
            f'cores of {result["machine"]["cpu"]}, no GPU; values in '
            f'[docs/results/{result["name"]}.json](docs/results/{result["name"]}.json).')


def render_shapes(result: dict) -> str:
    """Figures of all, unseen and random ranking."""
    rows = [[label, *(spread([seed[prefix + name] for seed in result['per_seed']])
                      for name in METRICS)]
            for label, prefix in (('all sentences', ''), ('unseen combinations', 'unseen/'),
                                  ('chance (random ranking)', 'chance/'))]
    names = [re.sub(r'^R(\d)@(.*)$', r'R@\1, IoU=\2', name) for name in METRICS]
    return table(['test split, %', *names], rows)


def render_shapes_words(result: dict) -> str:
    """What the corpus can be solved with."""
    labels = dict(blank='none (blank sentences)', colour='colour words only',
                  shape='shape words only', action='action words only')
    rows = [[labels[kept], *(spread([seed[name] for seed in result['per_seed'][kept]])
                             for name in ('R1@0.5', 'R1@0.7'))] for kept in WORDS]
    return table(['words left, in training and test', 'R@1, IoU=0.5', 'R@1, IoU=0.7'], rows)


def render_negatives(result: dict) -> str:
    """Figures by source of the negatives."""
    names = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU', 'unseen/R1@0.5')
    rows = [[label, *(spread([seed[name] for seed in per_seed]) for name in names)]
            for label, per_seed in result['per_seed'].items()]
    return table(['negatives from', 'R@1, IoU=0.3', 'R@1, IoU=0.5', 'R@1, IoU=0.7', 'mIoU',
                  'R@1, IoU=0.5, unseen combinations'], rows)


def render_negatives_cost(result: dict) -> str:
    """Megabytes and milliseconds."""
    return table(
        ['videos\' worth of negatives', 'embeddings held', 'extra memory',
         'all similarities would take', 'time, forward and backward'],
        [[f'{row["videos"]:,}', f'{row["held_mb"]:,.0f} MB', f'{row["extra_mb"]:.0f} MB',
          f'{row["dense_mb"]:.0f} MB', f'{1000 * row["seconds"]:,.0f} ms']
         for row in result['figures']])


def render_quickstart(result: dict) -> str:
    """Seconds per step."""
    rows = [[step, str(seconds)] for step, seconds in result['seconds'].items()]
    return table(['step', 'seconds'], [*rows, ['all, after installation',
                                               str(result['total_seconds'])]])


def render_dataset_cost(result: dict) -> str:
    """Seconds and megabytes."""
    figures = result['figures']
    return table(['ActivityNet Captions, training set', 'measured'], [
        ['videos', f'{figures["videos"]:,}'],
        ['time to build', f'{figures["seconds"]:.2f} s'],
        ['growth of peak memory', f'{figures["peak_growth_mb"]:.0f} MB'],
        ['kept, and sent to a spawned worker', f'{figures["kept_mb"]:.1f} MB']])


def render_agreement(result: dict) -> str:
    """Largest relative difference of each quantity over all files."""
    worst = {}
    for rows in result['files'].values():
        for row in rows:
            name = re.sub(r' \(\d+\)$', '', row['quantity']).removeprefix('eval/')
            bound = f'{row["bound"]:.0e}' if row['bound'] else 'equal'
            worst.setdefault(name, [0., bound, 0])
            worst[name][0] = max(worst[name][0], row['max_rel'])
            worst[name][2] += 1
    return table(['quantity', 'files', 'largest relative difference', 'bound'], [
        [name, str(count), f'{value:.1e}' if value else '0', bound]
        for name, (value, bound, count) in worst.items()])


RENDERERS = dict(agreement=render_agreement, dataset_cost=render_dataset_cost,
                 negatives=render_negatives, negatives_cost=render_negatives_cost,
                 quickstart=render_quickstart, shapes=render_shapes,
                 shapes_words=render_shapes_words)


def update_readme(text: str, results: Path = RESULTS) -> str:
    """README with every ``<!-- result: NAME -->`` block rendered from its JSON."""

    def render(match):
        path = results / f'{match[1]}.json'
        if not path.is_file():  # not measured yet
            return match[0]
        result = json.loads(path.read_text())
        body = f'{RENDERERS[match[1]](result)}\n\n{source(result)}'
        return f'<!-- result: {match[1]} -->\n{body}\n<!-- end -->'

    return re.sub(r'<!-- result: (\w+) -->.*?<!-- end -->', render, text, flags=re.DOTALL)


def main() -> None:
    """Measure what was asked for, and render the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('names', nargs='*', choices=[*EXPERIMENTS, []], metavar='NAME',
                        help=f'one or more of {", ".join(EXPERIMENTS)}; none: only render README')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    args = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        result = measure(name, args.seeds)
        (RESULTS / f'{name}.json').write_text(json.dumps(result, indent=1) + '\n')
    README.write_text(update_readme(README.read_text()))


if __name__ == '__main__':
    main()
