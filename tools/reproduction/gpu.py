"""Everything that wants a GPU, in parts: ``python tools/reproduce.py gpu [--parts NAME ...]``.

Each part runs in a process of its own, which ends after `Plan.limit` seconds, and the result is
written after each, so that a run which is cut loses one part. A part that fails is recorded with
its error, and so is a variant. All variants of a part run in turns, A B C A B C ... Steps are those
of ``tools/analysis_tools/benchmark.py``; its clock, PyTorch's, waits for the device.
"""

import json
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch

from . import gpu_library, gpu_parts
from .gpu_parts import CONFIGS, EXACT, Plan
from .running import in_process
from .tables import table

NO_GPU = 3  # exit code

PARTS = {
    **{f'agreement-{name}': partial(gpu_parts.agreement, name) for name in EXACT},
    **{f'train-{name}': partial(gpu_parts.steps_of, 'train', name) for name in CONFIGS},
    **{f'test-{name}': partial(gpu_parts.steps_of, 'test', name) for name in CONFIGS},
    'memory': gpu_parts.memory,
    'epoch': gpu_parts.epoch,
    'evaluation': gpu_parts.evaluation,
    'extraction': gpu_parts.extraction,
    'scan': gpu_parts.scan,
    'search': gpu_library.search,
    'gather': gpu_parts.gather,
}


def gpu(parts: list[str] | None) -> Iterator[dict]:
    """Measure parts on the GPU; what is known, after each of them.

    Args:
        parts (list[str], optional): Names of `PARTS`. Defaults to None: all.
    """
    if not torch.cuda.is_available():
        print('PyTorch finds no GPU on this machine: nothing was measured')
        sys.exit(NO_GPU)
    about = torch.cuda.get_device_properties(0)
    found = dict(gpu=about.name, gpus=torch.cuda.device_count(), gpu_mb=about.total_memory // 2**20)
    found |= dict(cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version())
    for measured in measure_parts(Plan(), parts or [*PARTS]):
        yield found | dict(measured=measured)


def measure_parts(plan: Plan, names: list[str]) -> Iterator[dict]:
    """Figures of each part, or its ``error``, and its ``part_seconds``; after each of them."""
    found, began = {}, time.monotonic()
    for name in names:
        left = plan.total - (time.monotonic() - began)
        if left <= 0:
            found[name] = dict(error=f'not begun: {plan.total:.0f} s were over')
        else:
            print(f'{name} ...', flush=True)
            found[name] = in_process(PARTS[name], plan, limit=min(left, plan.limit))
            print(f'    {json.dumps(found[name])[:200]}', flush=True)
        yield found


LINES = {
    'agreement': lambda found: (
        f'{found["files"]} files, {len(found["failed"])} figures differ by more than their bound; '
        f'at most {found["worst"]["share"]:.0%} of it in {found["worst"].get("quantity", "none")}'
        + ''.join(f'; {text}' for text in found['warnings'])
    ),
    'memory': lambda found: ', '.join(
        f'{row["config"]} {row["dtype"]}, {row["videos"]} videos: {row["measured_mb"]:,.0f} MB '
        f'(estimated {row["estimated_mb"]:,.0f})'
        for row in found['rows']
    ),
    'epoch': lambda found: (
        f'{found["videos"]} videos in {found["steps"]} steps of {found["batch_size"]}, '
        f'{found["seconds"]:.1f} s, of which {found["data_seconds"]:.1f} s for the loader; '
        f'{1000 * found["step_seconds"]:.0f} ms a step'
    ),
    'evaluation': lambda found: (
        f'{found["sentences"]:,} sentences with {found["moments"]:,} moments each, ranked and '
        f'scored in {found["ms"] / 1000:.2f} s'
    ),
    'extraction': lambda found: ', '.join(
        f'{row["tower"]} {row["decoded_per_second"]:,.0f} frames per second decoded, '
        f'{row["described_per_second"]:,.0f} described'
        for row in found['rows']
    ),
    'scan': lambda found: ', '.join(
        f'{row["sentences"]} of {found["moments"]:,} moments {row["ms"]:.1f} ms '
        f'({row["gb_per_second"]:,.0f} GB/s)'
        for row in found['rows']
    ),
    'search': lambda found: (
        f'the first {gpu_library.TOP_N} of {found["moments"]:,} moments: '
        + ', '.join(
            f'{row["variant"]} on {row["device"]} {row["ms"]:.1f} ms ({row["right"]:.0%} right)'
            for row in found['rows']
        )
    ),
    'gather': lambda found: (
        found.get('skipped')
        or (
            f'{found["mb"]:.0f} MB from each of {found["gpus"]} GPUs and back: {found["ms"]:.1f} ms'
        )
    ),
}


def render_gpu(result: dict) -> str:
    """Steps by variant, and a line for each of the other parts."""
    found, lines, rows = result['measured'], [], []
    for part, figures in found.items():
        if 'error' in figures:
            lines.append(f'- {part}: failed, {figures["error"].strip().splitlines()[-1]}')
        elif (kind := part.partition('-')[0]) in LINES:
            lines.append(f'- {part}: {LINES[kind](figures)}')
        else:
            rows += [row_of(part, row) for row in figures['rows']]
            lines += [f'- {part}, {name}: {text}' for name, text in figures['errors'].items()]
    header = ['step', 'videos', 'variant', 'time', 'faster', 'peak memory', 'hours to train']
    return '\n\n'.join(filter(None, [table(header, rows) if rows else '', '\n'.join(lines)]))


def row_of(part: str, row: dict) -> list[str]:
    """One variant's step."""
    hours = f'{row["hours"]:.2f}' if 'hours' in row else ''
    time, faster = f'{1000 * row["seconds"]:,.1f} ms', f'{row["ratio"]:.2f}x'
    return [part, row['videos'], row['name'], time, faster, f'{row["peak_mb"]:,.0f} MB', hours]
