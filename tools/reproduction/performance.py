"""Speed and memory, by tools/analysis_tools/benchmark.py."""

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


def benchmark(repeats: int) -> dict:
    """Training and inference of every variant, in turns."""
    runs = {}
    for name, options in RUNS.items():
        options = (*options, '--repeats', repeats)
        command = ' '.join(map(str, ('benchmark.py', *options)))
        runs[name] = dict(command=command, **of_tool('benchmark', *options))
    return dict(runs=runs)


def memory_bf16() -> dict:
    """Peak memory of a step with the dense encoder in bfloat16."""
    return dict(
        runs={name: of_tool('benchmark', *run)['rows'] for name, run in MEMORY_BF16.items()}
    )


def render_benchmark(result: dict) -> str:
    """A row per variant."""
    rows = []
    for name, run in result['runs'].items():
        bare = {
            peak['dtype']: peak['ratio']
            for peak in run['machine']
            if peak['name'].startswith('convolution')
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
