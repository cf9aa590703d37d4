"""Speed and memory, by tools/analysis_tools/benchmark.py."""

from .renderers import table
from .running import of_tool

# What is measured: config and options. Batches are small since two cores take half a minute for a
# step of one video of TACoS.
RUNS = {
    'TACoS, training': 'mmn_tacos.py --task train --batch-size 1',
    'ActivityNet Captions, training': 'mmn_activitynet.py --task train --batch-size 2',
    'TACoS, inference': 'mmn_tacos.py --task test --batch-size 1',
    'ActivityNet Captions, inference': 'mmn_activitynet.py --task test --batch-size 1',
}
VARIANTS = '--conv-mode dense,sparse --dtype fp32,bf16'
# Dense bfloat16 keeps rounded weights beside the float32 ones; what that takes is measured alone.
MEMORY_BF16 = '--conv-mode dense --dtype fp32,bf16 --warmup 0 --repeats 1 --no-profile'


def benchmark(repeats: int) -> dict:
    """Training and inference of every variant, in turns."""
    runs = {}
    for name, run in RUNS.items():
        options = f'{run} {VARIANTS} --repeats {repeats}'
        runs[name] = dict(
            command=f'benchmark.py {options}', **of_tool('benchmark', *options.split())
        )
    return dict(runs=runs)


def memory_bf16() -> dict:
    """Peak memory of a step with the dense encoder in bfloat16."""
    runs = {}
    for name, run in RUNS.items():
        result = of_tool('benchmark', *run.split(), *MEMORY_BF16.split())
        runs[f'{name}, {videos_of(result["batch_size"])}'] = result['rows']
    return dict(runs=runs)


def videos_of(count: int) -> str:
    """So many videos."""
    return f'{count} video{"s" * (count > 1)}'


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
                    f'{name}, {videos_of(row["videos"])}',
                    row['name'],
                    f'{row["seconds"]:.2f} s ± {100 * row["spread"]:.0f} %',
                    f'{row["ratio"]:.2f}x',
                    f'{bare[row["dtype"]]:.2f}x',
                    _peak(row, run['rows']),
                ]
            )
    commands = '\n'.join(f'- {name}: `{run["command"]}`' for name, run in result['runs'].items())
    header = ['config', 'moment encoder', 'time', 'against dense fp32']
    header += ['bare convolution, against fp32', 'peak memory']
    return f'{commands}\n\n{table(header, rows)}'


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
