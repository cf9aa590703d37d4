"""The tasks of benchmark.py: what is timed."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmaction.registry import METRICS, MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.benchmark import Measurement, TaskSpec
from workload import Workload, offline_config

from mmn_plugin.config import load_config, require_device
from mmn_plugin.engine import FreezeLanguageModelHook
from mmn_plugin.errors import InputError
from mmn_plugin.models import rank
from mmn_plugin.precision import set_tf32
from mmn_plugin.structures import MomentGrid, SentenceBatch, VideoEmbedding

BATCHES = 32  # of a round of the data loader: four times as many as 4 workers keep ready
SLEEP = 20.0  # most seconds of training steps that are slept through


@dataclass
class Subject:
    """What is timed: one row.

    Attributes:
        name (str): What is run.
        run (Callable): Does it once.
        group (str): Rows of a group are compared with the group's first. Defaults to ''.
        dtype (str): ``'fp32'``, ``'tf32'`` (CUDA: products of float32 with rounded factors) or
            ``'bf16'`` (autocast). Defaults to ``'fp32'``.
        videos (int): Videos that one run works through. Defaults to 0: not said.
        sentences (int): Sentences likewise. Defaults to 0.
        about (dict): Further figures of the row. Defaults to none.
        phases (list): Object, method and name of each phase to tell apart. Defaults to none.
        seconds (list[float]): One per repeat.
    """

    name: str
    run: Callable[[], object]
    group: str = ''
    dtype: str = 'fp32'
    videos: int = 0
    sentences: int = 0
    about: dict = field(default_factory=dict)
    phases: list[tuple[object, str, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """Run once, in its precision."""
        set_tf32(*[self.dtype == 'tf32'] * 2)
        self.run()

    def row(self, first: 'Subject') -> dict:
        """Its figures, compared with the first of its group."""
        measured = Measurement(1, self.seconds, TaskSpec(self.name, ''))
        row = dict(name=self.name, group=self.group, dtype=self.dtype, seconds=measured.median)
        row |= dict(spread=measured.iqr / 2 / measured.median, all_seconds=self.seconds)
        pairs = zip(first.seconds, self.seconds, strict=True)
        row['ratio'] = statistics.median(before / own for before, own in pairs)
        for name in ('videos', 'sentences'):
            if count := getattr(self, name):
                row |= {name: count, f'{name}_per_second': count / measured.median}
        return row | self.about


class Benchmark:
    """What the tasks share.

    Args:
        args (argparse.Namespace): The command line.
        keep_gradients (bool): Set gradients to zero after a step rather than free them.

    Raises:
        ValueError: If the device has no such precision, or the config is of tubes.
    """

    def __init__(self, args: argparse.Namespace, keep_gradients: bool = False):
        self.args, self.keep_gradients = args, keep_gradients
        self.device = require_device(args.device)
        if 'tf32' in args.dtype and torch.device(self.device).type != 'cuda':
            raise InputError(f'--dtype tf32 is for CUDA, not for {self.device}')
        self.cfg = offline_config(load_config(args.config, args.cfg_options))
        self.batch_size = args.batch_size or self.cfg.train_dataloader.batch_size
        torch.backends.cudnn.benchmark = self.cfg.get('env_cfg', {}).get('cudnn_benchmark', False)
        torch.manual_seed(args.seed)

    def workload(self, split: str) -> Workload:
        """Batches of a split's shapes."""
        return Workload(self.cfg, split, self.args.annotations, self.args.seed)

    def build(self, component: dict, **default_args) -> nn.Module:
        """A component on the device."""
        return MODELS.build(component, default_args=default_args).to(self.device)

    def autocast(self, dtype: str) -> torch.autocast:
        """Context of a forward pass."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, dtype == 'bf16')

    def subjects_of(self, model: nn.Module, step, group: str, batch: dict, phases) -> list[Subject]:
        """``step(batch, dtype)`` of a model in each variant: ``conv_mode`` and precision."""
        parts = dict(data='data_preprocessor', text='text_encoder', clips='backbone', neck='neck')
        watched = [(getattr(model, part), 'forward', name) for name, part in parts.items()]
        neck = model.neck
        if 'grid' not in self.cfg.model and self.args.conv_mode != ['dense']:
            raise InputError(f'--conv-mode: the convolutions of {type(neck).__name__} are dense')

        def run(mode: str, dtype: str) -> None:
            if 'grid' in self.cfg.model:
                neck.encoder.conv_mode = mode
            step(batch, dtype)

        sentences = sum(len(sample.sentences) for sample in batch['data_samples'])
        size = len(batch['inputs']), sentences
        return [
            Subject(
                f'{mode} {dtype}',
                partial(run, mode, dtype),
                group,
                dtype,
                *size,
                dict(conv_mode=mode),
                watched + phases,
            )
            for dtype in self.args.dtype
            for mode in self.args.conv_mode
        ]


def train(bench: Benchmark) -> list[Subject]:
    """A step of training: preprocessing, forward, backward, clipping, the optimizer's step."""
    model = bench.build(bench.cfg.model).train()
    keys = ('optimizer', 'clip_grad', 'paramwise_cfg')  # precision is the variant's business
    cfg = {key: value for key, value in bench.cfg.optim_wrapper.items() if key in keys}
    optimizer = build_optim_wrapper(model, dict(cfg, type='OptimWrapper'))
    FreezeLanguageModelHook.freeze(model, bench.args.frozen)

    def step(batch: dict, dtype: str) -> None:
        with optimizer.optim_context(model), bench.autocast(dtype):
            losses = model(**model.data_preprocessor(batch, True), mode='loss')
        total, _ = model.parse_losses(losses)
        optimizer.update_params(total, zero_kwargs=dict(set_to_none=not bench.keep_gradients))

    phases = [(model.head, 'loss', 'head'), (optimizer, 'backward', 'backward')]
    phases += [(optimizer, method, 'optimizer') for method in ('step', 'zero_grad')]
    batch = bench.workload('train').batch(bench.batch_size)
    return bench.subjects_of(model, step, 'training step', batch, phases)


def predict(bench: Benchmark) -> list[Subject]:
    """Prediction, from features and sentences to ranked moments: of one video, and of a batch."""
    model, workload = bench.build(bench.cfg.model).eval(), bench.workload('test')

    @torch.no_grad()
    def step(batch: dict, dtype: str) -> None:
        with bench.autocast(dtype):
            model.test_step(batch)

    return [
        subject
        for size in sorted({1, bench.batch_size})
        for subject in bench.subjects_of(
            model,
            step,
            f'prediction, {size} video{"s" * (size > 1)}',
            workload.batch(size),
            [(model.head, 'predict', 'head')],
        )
    ]


def evaluate(bench: Benchmark) -> list[Subject]:
    """NMS and all figures from random scores of the whole test split; and NMS alone at once."""
    if 'grid' not in bench.cfg.model:
        raise InputError(
            f'the task eval is the NMS of moments, and {bench.cfg.model.type} has none: '
            'give --task test, which ranks too'
        )
    grid = MomentGrid(**bench.cfg.model.grid)
    head = bench.build(bench.cfg.model.head, grid=grid)
    evaluators = bench.cfg.test_evaluator
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    settings = next(dict(entry) for entry in evaluators if entry['type'] == 'GroundingMetric')
    settings.pop('subsets', None)  # of real videos
    metric = METRICS.build(settings)
    samples = bench.workload('test').samples()
    counts = torch.tensor([len(sample.sentences) for sample in samples])
    generator = torch.Generator().manual_seed(bench.args.seed)
    scores = torch.rand(int(counts.sum()), grid.num_moments, generator=generator).to(bench.device)

    def in_batches() -> None:
        metric.results.clear()
        batches = counts.split(bench.batch_size)
        parts = scores.split([int(batch.sum()) for batch in batches])
        for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            first = number * bench.batch_size
            chosen = samples[first : first + len(batch)]
            videos = VideoEmbedding.stack(head.split({}, chosen))
            ranked = head.assign(head.rank(videos, part, counts=batch.tolist()), chosen)
            metric.process(None, [sample.to_dict() for sample in ranked])
        metric.compute_metrics(metric.results)

    def at_once() -> None:
        spans = grid.spans(torch.tensor([sample.duration for sample in samples])).to(bench.device)
        video = torch.arange(len(counts)).repeat_interleave(counts).to(bench.device)
        rank(spans, scores, head.nms_threshold, head.top_n, video)

    phases = [(head, 'rank', 'NMS'), (metric, 'process', 'collecting')]
    phases += [(metric, 'compute_metrics', 'recall')]
    name = f'evaluation, {bench.batch_size} videos at a time'
    size = dict(videos=len(samples), sentences=len(scores))
    return [
        Subject(name, in_batches, 'evaluation', phases=phases, **size),
        Subject('NMS, all sentences at once', at_once, 'NMS', **size),
    ]


def load_data(bench: Benchmark) -> list[Subject]:
    """32 batches of the training data loader; beside steps of ``--step-ms``, how long it waits.

    Where annotations or features are not at hand, both are made up in a temporary folder.
    """
    dataset, args = bench.cfg.train_dataloader.dataset.copy(), bench.args
    root, count = Path(dataset.get('data_root', '')), BATCHES * bench.batch_size
    features = dataset.get('data_prefix', {}).get('features')
    folder = tempfile.TemporaryDirectory()
    if not isinstance(features, str) or not (root / features).exists():
        workload = bench.workload('train')
        dataset |= workload.write_corpus(Path(folder.name), count, args.feature_rows)
    cfg = dict(
        batch_size=bench.batch_size,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=torch.device(bench.device).type != 'cpu',
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=bench.cfg.train_dataloader.get('collate_fn', dict(type='stack_videos')),
        dataset=dict(dataset, indices=count),
    )
    loader = Runner.build_dataloader(cfg, seed=args.seed)
    about = dict(batches=len(loader))
    if args.step_ms:
        list(loader)  # files are in the page cache of the operating system from now on
        about['waiting'] = waiting(loader, args.step_ms / 1000)

    def one_round(folder=folder) -> None:  # the folder lives as long as this
        list(loader)

    name = f'data loader, {args.workers} workers'
    return [Subject('one round', one_round, name, videos=len(loader.dataset), about=about)]


def waiting(loader, step: float) -> float:
    """Share of a training's time that is spent waiting for data, after the first batch.

    The step itself is slept through: the workers have the processor, as beside a GPU.
    """
    batches = iter(loader)
    next(batches)
    began, waited = time.perf_counter(), 0.0
    for _ in range(max(1, min(BATCHES, int(SLEEP / step)))):
        time.sleep(step)
        asked = time.perf_counter()
        if next(batches, None) is None:
            break
        waited += time.perf_counter() - asked
    return waited / (time.perf_counter() - began)


def embed_text(bench: Benchmark) -> list[Subject]:
    """Embedding a batch's sentences: padded to one length, and by length as the encoder does."""
    encoder = bench.build(bench.cfg.model.text_encoder).train()
    preprocessor = bench.build(bench.cfg.model.data_preprocessor)
    by_length = preprocessor(bench.workload('train').batch(bench.batch_size))['sentences']
    layouts = {'padded': by_length._replace(token_ids=None), 'by length': by_length}

    def step(sentences: SentenceBatch, dtype: str, training: bool) -> None:
        with torch.set_grad_enabled(training):
            with bench.autocast(dtype):
                embeddings = encoder(sentences)
            if training:
                total = sum(value.float().sum() for value in embeddings.values())
                torch.autograd.grad(total, list(encoder.parameters()), allow_unused=True)

    return [
        Subject(
            f'{layout} {dtype}',
            partial(step, sentences, dtype, training),
            'forward and backward' if training else 'forward, no graph',
            dtype,
            bench.batch_size,
            len(sentences.video),
        )
        for training in (False, True)
        for dtype in bench.args.dtype
        for layout, sentences in layouts.items()
    ]


TASKS = dict(train=train, test=predict, data=load_data, eval=evaluate, text=embed_text)


def probes(bench: Benchmark) -> list[Subject]:
    """What the machine can do: a matrix product, and the bare convolution of the moment encoder."""
    size = 8192 if torch.device(bench.device).type == 'cuda' else 2048
    training, neck = bench.args.task == 'train', bench.cfg.model.neck
    subjects = []
    for dtype in bench.args.dtype:
        kind = torch.bfloat16 if dtype == 'bf16' else torch.float32
        make = partial(torch.randn, device=bench.device, dtype=kind)
        run = partial(torch.matmul, make(size, size), make(size, size))
        subjects.append(Subject(f'matrix product {dtype}', run, 'product', dtype))
        if 'grid' in bench.cfg.model:
            cells = bench.cfg.model.grid.num_clips
            side = cells + neck.kernel_size - 1
            shape = neck.channels, neck.channels, neck.kernel_size, neck.kernel_size
            inputs = make(bench.batch_size, neck.channels, side, side, requires_grad=training)
            run = partial(convolve, inputs, make(shape, requires_grad=training))
            subjects.append(Subject(f'convolution {dtype}', run, 'convolution', dtype))
    return subjects


def convolve(inputs: Tensor, weight: Tensor) -> None:
    """A convolution, and its backward where gradients are asked for."""
    result = F.conv2d(inputs, weight)
    if weight.requires_grad:
        torch.autograd.grad(result, (inputs, weight), torch.ones_like(result))
