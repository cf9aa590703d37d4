"""Estimate the memory of a training step, and the largest batch that fits.

    python tools/analysis_tools/memory_estimate.py CONFIG --batch-size N --gpus W

The step of the benchmark (made-up batch, real optimizer) runs once on tensors without values
(PyTorch's ``FakeTensorMode``), and every storage that it makes is counted while it lives, so that
no layer has a formula of its own. That takes no memory, whatever the batch; the largest batch takes
up to 5 such steps for each size of a GPU, which are minutes for large models and MSCL. Weights are
those of the config, with sentences and language model of real size; ``--gpus`` adds the buckets of
DistributedDataParallel and, where ``model.head.negatives`` is global, the embeddings of all GPUs.
``--measure`` also runs steps on this machine's CPU, and sets beside the estimate what PyTorch's
allocator gave out.

Not counted, and left room for by ``--reserve``: the CUDA context, cuDNN's workspaces, and what the
allocator cannot use between its blocks. No GPU was at hand to measure these.
"""

import argparse
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain
from operator import itemgetter
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
from benchmark import CHOICES, Benchmark, peak_growth, prepared
from mmaction.registry import MODELS
from mmengine.optim import OptimWrapper
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from mmn_plugin.cli.main import count, tool_parser
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.models import negatives
from mmn_plugin.models.text_encoders.sentence_encoder import BATCH_TOKENS

CARDS = (24, 80, 141)  # GB
MB = 2**20
ROUNDS = 5  # of looking for the largest batch


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__, config=True)
    add = parser.add_argument
    add('--batch-size', type=count, help="videos per GPU (default: the config's)")
    add('--gpus', type=count, default=1, help='GPUs that train together (default: 1)')
    text = 'how the moment encoder computes (default: dense)'
    add('--conv-mode', choices=CHOICES['--conv-mode'], default='dense', help=text)
    add('--dtype', choices=('fp32', 'bf16'), default='fp32', help='default: fp32')
    add('--frozen', action='store_true', help='with the language model frozen')
    text = 'share of a GPU that is not for tensors (default: 0.1)'
    add('--reserve', type=share, default=0.1, help=text)
    text = 'also run steps of so many videos on the CPU, beside their estimates; takes a while'
    add('--measure', type=count, nargs='+', default=[], metavar='N', help=text)
    add('--json', type=writable_file, help='also write all figures to this file')
    return parser.parse_args()


def share(text: str) -> float:
    """A number from 0 to less than 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to less than 1')
    return value


class LiveStorages(TorchDispatchMode):
    """Bytes of the storages that live, by the part of the step that made them.

    Values that the step asks of a tensor without values are zero.

    Attributes:
        part (str): Who makes what is made now.
        live (Counter): Bytes by part, now.
        at_peak (Counter): Bytes by part when their sum was largest.
    """

    def __init__(self):
        super().__init__()
        self.part, self.live, self.at_peak = 'other', Counter(), Counter()
        self._storages: dict[int, list] = {}  # bytes and part, by address

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.zeros((), dtype=args[0].dtype).item()
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.add(value)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._storages:
            return
        self._storages[storage._cdata] = [storage.nbytes(), self.part]
        self.live[self.part] += storage.nbytes()
        weakref.finalize(storage, self._remove, storage._cdata)
        if self.live.total() > self.at_peak.total():
            self.at_peak = self.live.copy()

    def _remove(self, address: int) -> None:
        size, part = self._storages.pop(address)
        self.live[part] -= size

    def move(self, tensor: Tensor, part: str) -> None:
        """Count a tensor as another part's."""
        entry = self._storages[tensor.untyped_storage()._cdata]
        self.live[entry[1]] -= entry[0]
        entry[1] = part
        self.live[part] += entry[0]


class MemoryEstimate:
    """A config's training step on tensors without values.

    Args:
        args (argparse.Namespace): The command line.
    """

    def __init__(self, args: argparse.Namespace):
        self.args, self.bench = args, training_of(args)
        self.bench.cfg.model.neck.pop('compile', None)  # an encoder that is not needs no less
        self.model = MODELS.build(self.bench.cfg.model)
        self.known: dict[int, Counter] = {}  # by videos of a batch
        self.storages = LiveStorages()
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        for module in self.model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[name] = mode.from_tensor(weight)
        self.storages.part = 'weights'
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            self.storages.add(tensor)
        self._follow()

    def _follow(self) -> None:
        """Have the storages know which part of a step computes."""

        def set_part(*_, part: str) -> None:
            self.storages.part = part

        for name in ('data_preprocessor', 'backbone', 'neck', 'text_encoder'):
            child = getattr(self.model, name)
            child.register_forward_pre_hook(partial(set_part, part=name))
            child.register_forward_hook(partial(set_part, part='head'))
        self.model.register_forward_hook(partial(set_part, part='backward'))
        for weight in self.model.parameters():
            weight.register_post_accumulate_grad_hook(
                lambda weight: self.storages.move(weight.grad, 'gradients')
            )

    def peak(self, batch_size: int) -> Counter:
        """Bytes of each part when a step with so many videos per GPU needs most."""
        if batch_size not in self.known:
            self.bench.batch_size = batch_size
            (step,) = self.bench.train(self.model)
            with as_on_a_gpu(), self.storages, self._other_gpus():
                self._make_state()
                self.storages.at_peak.clear()
                step()
            parts = +self.storages.at_peak  # without those of 0 bytes
            if self.args.gpus > 1:
                parts['buckets of DDP'] = size_of(self.model.parameters())
            self.known[batch_size] = parts
        return self.known[batch_size]

    def _make_state(self) -> None:
        """What exists before a step: the optimizer's state."""
        optimizer, storages = self.bench.optimizer, self.storages
        storages.part = 'optimizer state'
        make_state(self.model, optimizer)
        optimizer.optimizer.register_step_pre_hook(
            lambda *_: setattr(storages, 'part', "optimizer's step")
        )

    @contextmanager
    def _other_gpus(self):
        """Context in which the embeddings of all GPUs are gathered; the others' have no values."""
        gather, storages = negatives.gather_candidates, self.storages

        def gathered(*own) -> tuple:
            storages.part = 'embeddings of all GPUs'
            found = gather(*own)
            storages.part = 'head'
            return found

        stand_ins = dict(
            get_world_size=lambda: self.args.gpus,
            gather_candidates=gathered,
            get_rank=lambda: 0,
            all_gather_object=lambda value, _: [value] * self.args.gpus,
            host_group=lambda _: None,
            all_reduce=lambda *_, **__: None,
            dist=SimpleNamespace(
                all_gather=lambda *_: None, all_reduce=lambda *_: None, group=dist.group
            ),
        )
        with mock.patch.multiple(negatives, **stand_ins):
            yield

    def largest(self, limit: float) -> int:
        """Videos per GPU whose step needs at most so many bytes, nearly the most; 0 if not even 1.

        What a step needs beyond weights and optimizer state grows with the batch, but for a part
        that small batches share, so that each guess scales the last one.
        """
        size = 2 * self.bench.cfg.train_dataloader.batch_size
        for _ in range(ROUNDS):
            parts = self.peak(size)
            state = parts['weights'] + parts['optimizer state']
            size = max(1, int(size * (limit - state) / (parts.total() - state)))
            if size in self.known:
                break
        fitting = [size for size, parts in self.known.items() if parts.total() <= limit]
        return max(fitting, default=0)


def training_of(args: argparse.Namespace, device: str = 'cpu') -> Benchmark:
    """The benchmark of a training step."""
    how = dict(task='train', device=device, conv_mode=[args.conv_mode], dtype=[args.dtype])
    return Benchmark(argparse.Namespace(**dict(vars(args), **how)))


def as_on_a_gpu():
    """Context in which sentences are batched on the CPU as they are on a GPU, in larger groups."""
    return mock.patch.dict(BATCH_TOKENS, cpu=BATCH_TOKENS['other'])


def make_state(model: nn.Module, optimizer: OptimWrapper) -> None:
    """Let the optimizer have the state that it has after a step, of gradients of zero."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in tensors)


def measured(args: argparse.Namespace, device: str = 'cpu') -> int:
    """Bytes that a step needs in fact, as PyTorch's allocator gave them out."""
    bench = training_of(args, device)
    model = MODELS.build(bench.cfg.model).to(device)
    (step,) = bench.train(model)
    with as_on_a_gpu():
        make_state(model, bench.optimizer)
        if device != 'cpu':
            step()  # cuDNN chooses its algorithms
        growth = growth_on_cpu(step) if device == 'cpu' else peak_growth(step, device) * MB
    state = chain(*(one.values() for one in bench.optimizer.optimizer.state.values()))
    held = [*model.parameters(), *model.buffers(), *filter(torch.is_tensor, state)]
    return size_of(held) + int(growth)


def growth_on_cpu(run: Callable[[], object]) -> int:
    """Bytes by which what the allocator gave out grew during a run, at most."""
    with profile(profile_memory=True) as profiled:
        run()
    events, nodes = [], profiled.profiler.kineto_results.experimental_event_tree()
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.tag == _EventType.Allocation:
            events.append((node.start_time_ns, node.typed[1].alloc_size))
    return max(accumulate(size for _, size in sorted(events, key=itemgetter(0))))


def main() -> None:
    """Estimate, and print."""
    args = parse_args()
    with plain_errors(), prepared('cpu'):
        estimate = MemoryEstimate(args)
        args.batch_size = estimate.bench.batch_size
        parts = estimate.peak(args.batch_size)
        rows = {part: size / MB for part, size in parts.most_common()}
        result = dict(config=args.config, batch_size=args.batch_size, gpus=args.gpus)
        result |= dict(conv_mode=args.conv_mode, dtype=args.dtype, frozen=args.frozen)
        result |= dict(parts_mb=rows, total_mb=parts.total() / MB)
        result['measured'] = []
        for size in args.measure:
            sizes = dict(batch_size=size, estimated_mb=estimate.peak(size).total() / MB)
            needed = measured(argparse.Namespace(**dict(vars(args), batch_size=size)))
            result['measured'].append(sizes | dict(measured_mb=needed / MB))
        usable = (1 - args.reserve) * 2**30
        result['largest_batch'] = {card: estimate.largest(card * usable) for card in CARDS}
    show(result, args.reserve)
    if args.json:
        write_json(result, args.json)


def show(result: dict, reserve: float) -> None:
    """One table of the parts, and a line of the largest batches."""
    gpus = f'{result["gpus"]} GPU{"s" * (result["gpus"] > 1)}'
    title = f'{result["config"]}: {result["batch_size"]} videos on each of {gpus}'
    title += f', {result["conv_mode"]}, {result["dtype"]}'
    table = Table('part of a training step', title=title, title_justify='left')
    table.add_column('MB', justify='right')
    for part, size in result['parts_mb'].items():
        table.add_row(part, f'{size:,.0f}')
    table.add_row('all', f'{result["total_mb"]:,.0f}')
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    for row in result['measured']:
        text = '{batch_size} videos on a CPU: {measured_mb:,.0f} MB, estimated {estimated_mb:,.0f}'
        console.print(text.format(**row), highlight=False)
    largest = (f'{card} GB: {size}' for card, size in result['largest_batch'].items())
    text = f'videos per GPU at most, with {reserve:.0%} of it left for all else: '
    console.print(text + ', '.join(largest), highlight=False, soft_wrap=True)


if __name__ == '__main__':
    main()
