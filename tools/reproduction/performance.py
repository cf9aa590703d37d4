"""Speed and memory, by tools/analysis_tools/benchmark.py."""

from argparse import Namespace

from .renderers import table
from .running import of_tool

VARIANTS = ('--conv-mode', 'dense,sparse', '--dtype', 'fp32,bf16')
# What is measured: config and options. Batches are small since two cores take half a minute for a
# step of one video of TACoS.
RUNS = {
    'TACoS, training': ('mmn_tacos.py', '--task', 'train', '--batch-size', 1, *VARIANTS),
    'ActivityNet Captions, training': (
        'mmn_activitynet.py',
        '--task',
        'train',
        '--batch-size',
        2,
        *VARIANTS,
    ),
    'TACoS, inference': ('mmn_tacos.py', '--task', 'test', '--batch-size', 1, *VARIANTS),
    'ActivityNet Captions, inference': (
        'mmn_activitynet.py',
        '--task',
        'test',
        '--batch-size',
        1,
        *VARIANTS,
    ),
}
# The dense moment encoder in another memory format, and compiled. (A channels_last step of the
# larger maps takes many minutes on two cores.)
LAYOUTS = {
    name: (
        f'mmn_{config}.py',
        '--task',
        'train',
        '--batch-size',
        videos,
        '--conv-mode',
        'dense',
        '--channels-last',
        '--compile',
        '--no-memory',
        '--no-profile',
    )
    for name, config, videos in (('Charades-STA', 'charades', 1), ('Shapes', 'shapes', 16))
}
# The sparse convolutions' workspace is as large for one video as for several.
MEMORY = {
    videos: (
        'mmn_activitynet.py',
        '--task',
        'train',
        '--batch-size',
        videos,
        '--conv-mode',
        'dense,sparse',
        '--warmup',
        0,
        '--repeats',
        1,
        '--no-profile',
    )
    for videos in (1, 2, 4)
}
# Dense bfloat16 keeps rounded weights beside the float32 ones; what that takes is measured alone.
MEMORY_BF16 = {
    f'{name}, {videos} video{"s" * (videos > 1)}': (
        f'mmn_{config}.py',
        '--task',
        task,
        '--batch-size',
        videos,
        '--conv-mode',
        'dense',
        '--dtype',
        'fp32,bf16',
        '--warmup',
        0,
        '--repeats',
        1,
        '--no-profile',
    )
    for name, config, task, videos in (
        ('TACoS, training', 'tacos', 'train', 1),
        ('ActivityNet Captions, training', 'activitynet', 'train', 2),
        ('TACoS, inference', 'tacos', 'test', 1),
        ('ActivityNet Captions, inference', 'activitynet', 'test', 1),
    )
}
EVALUATION = ('mmn_activitynet.py', '--task', 'eval')
DATA = {
    name: (f'mmn_{name}.py', '--task', 'data', '--workers', 4, '--step-ms', 500)
    for name in ('tacos', 'activitynet')
}


def benchmark(args: Namespace) -> dict:
    """Training and inference of every variant, in turns."""
    return _all_of(RUNS, args.repeats)


def layouts(args: Namespace) -> dict:
    """A training step with channels_last and with torch.compile."""
    return _all_of(LAYOUTS, args.repeats)


def memory(args: Namespace) -> dict:
    """Peak memory of a training step in float32, by the number of videos."""
    return dict(runs={videos: of_tool('benchmark', *run)['rows'] for videos, run in MEMORY.items()})


def memory_bf16(args: Namespace) -> dict:
    """Peak memory of a step with the dense encoder in bfloat16."""
    return dict(
        runs={name: of_tool('benchmark', *run)['rows'] for name, run in MEMORY_BF16.items()}
    )


def _all_of(runs: dict, repeats: int) -> dict:
    options = ('--repeats', repeats)
    return dict(
        runs={
            name: dict(
                command=' '.join(map(str, ('benchmark.py', *run, *options))),
                **of_tool('benchmark', *run, *options),
            )
            for name, run in runs.items()
        }
    )


def evaluation_cost(args: Namespace) -> dict:
    """NMS and recall of the whole ActivityNet Captions test split, from score maps."""
    measured = of_tool('benchmark', *EVALUATION, '--repeats', args.repeats)
    return dict(rows=measured['rows'], phases=measured['phases'])


def data_cost(args: Namespace) -> dict:
    """Whether the data loader keeps up with a step of half a second."""
    return dict(
        runs={
            name: of_tool('benchmark', *run, '--repeats', args.repeats)
            for name, run in DATA.items()
        }
    )


def render_benchmark(result: dict) -> str:
    """A row per variant."""
    rows = []
    for name, run in result['runs'].items():
        bare = {
            peak['dtype']: peak['ratio']
            for peak in run['machine']
            if peak['probe'] == 'convolution'
        }
        for row in run['rows']:
            rows.append(
                [
                    f'{name}, {row["videos"]} video{"s" * (row["videos"] > 1)}',
                    row['name'],
                    f'{row["seconds"]:.2f} s ± {100 * row["spread"]:.0f} %',
                    f'{row["ratio"]:.2f}x',
                    f'{bare[row["dtype"]]:.2f}x',
                    _peak(row, run['rows']),
                ]
            )
    commands = '\n'.join(f'- {name}: `{run["command"]}`' for name, run in result['runs'].items())
    return (
        commands
        + '\n\n'
        + table(
            [
                'config',
                'moment encoder',
                'time',
                'against dense fp32',
                'bare convolution, against fp32',
                'peak memory',
            ],
            rows,
        )
    )


def render_layouts(result: dict) -> str:
    """A row per way of storing and compiling, a column per config."""
    runs = result['runs']
    names = [row['name'] for row in next(iter(runs.values()))['rows']]
    ratios = {
        name: {row['name']: row['ratio'] for row in run['rows']} for name, run in runs.items()
    }
    return table(
        ['moment encoder', *(f'{name}, against dense fp32' for name in runs)],
        [[name, *(f'{ratios[run][name]:.2f}x' for run in runs)] for name in names],
    )


def render_memory(result: dict) -> str:
    """A row per number of videos."""
    return table(
        ['ActivityNet Captions, training, float32', 'dense', 'sparse'],
        [
            [f'{videos} video{"s" * (int(videos) > 1)}', *(_peak(row, rows) for row in rows)]
            for videos, rows in result['runs'].items()
        ],
    )


def render_memory_bf16(result: dict) -> str:
    """A row per config and task."""
    return table(
        ['dense moment encoder', 'float32', 'bfloat16'],
        [[name, *(_peak(row, rows) for row in rows)] for name, rows in result['runs'].items()],
    )


def _peak(row: dict, rows: list[dict]) -> str:
    """Megabytes, and in parts of the first variant's."""
    if not row.get('peak_mb'):
        return ''
    return f'{row["peak_mb"]:,.0f} MB ({row["peak_mb"] / rows[0]["peak_mb"]:.2f}x)'


def render_evaluation_cost(result: dict) -> str:
    """Seconds for all sentences."""
    return table(
        ['ActivityNet Captions, test split', 'time', 'sentences/s'],
        [
            [
                f'{row["name"]} ({row["sentences"]:,} sentences)',
                f'{row["seconds"]:.2f} s',
                f'{row["sentences_per_second"]:,.0f}',
            ]
            for row in result['rows']
        ],
    )


def render_data_cost(result: dict) -> str:
    """Time per batch, and the share of a training's time spent waiting."""
    return table(
        [
            'features, 4 workers',
            'pooled features',
            'time per batch',
            'waiting, beside steps of 0.5 s',
        ],
        [
            [
                name,
                row['name'],
                f'{1000 * row["seconds_per_batch"]:.1f} ms',
                f'{100 * row["waiting"]:.1f} %',
            ]
            for name, run in result['runs'].items()
            for row in run['rows']
        ],
    )
