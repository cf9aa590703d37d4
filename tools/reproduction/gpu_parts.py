"""What is measured on a GPU: each function is one part of `gpu.py`."""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path

import h5py
import numpy as np
import torch
from benchmark import Benchmark, interleave, peak_growth, prepared
from made_up_data import annotation_statistics, made_up_batch, offline_config
from memory_estimate import MB, MemoryEstimate, measured
from mmaction.registry import METRICS, MODELS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import distributed as dist
from torch.utils.benchmark import Timer
from verify_reference import check

from mmn_plugin.config import load_config, set_tf32
from mmn_plugin.features import build_extractor, extract_videos
from mmn_plugin.features.recognizer import RecognizerConfig
from mmn_plugin.features.video_writing import VideoWriter
from mmn_plugin.models import moment_scores
from mmn_plugin.models.negatives import gather_rows
from mmn_plugin.structures import MomentGrid

from .running import ROOT, shared_folder

# How the moment encoder computes, the precision, and options of the config. The first one is what
# the published code does.
CHANNELS_LAST = {'model.neck.memory_format': 'channels_last'}
COMPILED = {'model.neck.compile': True}
VARIANTS = {
    'dense fp32': ('dense', 'fp32', {}),
    'dense tf32': ('dense', 'tf32', {}),
    'dense bf16': ('dense', 'bf16', {}),
    'channels-last tf32': ('dense', 'tf32', CHANNELS_LAST),
    'channels-last bf16': ('dense', 'bf16', CHANNELS_LAST),
    'compiled bf16': ('dense', 'bf16', COMPILED),
    'strips fp32': ('strips', 'fp32', {}),
    'strips bf16': ('strips', 'bf16', {}),
}
# Settings of the neck with which all is compared with golden files, in float64 and float32.
EXACT = dict(
    dense={},
    strips=dict(conv_mode='strips'),
    sparse=dict(conv_mode='sparse'),
    channels_last=dict(memory_format='channels_last'),
    compiled=dict(compile=True),
)
CONFIGS = dict(tacos='mmn_tacos.py', charades='mmn_charades.py', activitynet='mmn_activitynet.py')


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much of it; tests have a narrow one on the CPU.

    Attributes:
        device (str): Where.
        limit (float): Seconds that a part may take.
        total (float): Seconds after which no further part begins.
        repeats (int): Timed rounds of steps.
        seconds (float): How long another operation is timed at least.
        configs (dict): Paths of configs by name; an epoch is trained of the first, the test split
            evaluated of the last.
        variants (dict): As `VARIANTS`.
        batch_size (int, optional): Videos of a training step. Defaults to None: those of all GPUs
            of the published schedule (``auto_scale_lr.base_batch_size``).
        epoch_rows (int): Feature rows of a video in the epoch.
        test_videos (int): Videos of the test split; ActivityNet's have 17,031 sentences.
        frames (int): Frames of each video whose features are extracted, at 30 per second.
        towers (tuple[str, ...]): Names of functions here that give an extractor's settings.
        library (int): Moments that are scanned.
        searched (int): Moments of a library that is searched by bounds and in full.
        golden (str): Which golden files are compared.
    """

    device: str = 'cuda'
    limit: float = 120.0
    total: float = 570.0
    repeats: int = 3
    seconds: float = 0.5
    configs: dict = field(default_factory=CONFIGS.copy)
    variants: dict = field(default_factory=VARIANTS.copy)
    batch_size: int | None = None
    epoch_rows: int = 1024
    test_videos: int = 4885
    frames: int = 1800
    towers: tuple[str, ...] = ('c3d', 'clip')
    library: int = 5_400_000
    searched: int = 1_000_000
    golden: str = '*.npz'


def milliseconds(run: Callable, plan: Plan) -> float:
    """Median time of a run, on the clock of PyTorch's benchmark."""
    run()
    timer = Timer('run()', globals=dict(run=run), num_threads=torch.get_num_threads())
    return 1000 * timer.blocked_autorange(min_run_time=plan.seconds).median


def steps_of(task: str, name: str, plan: Plan) -> dict:
    """``rows`` of a config's variants as the benchmark gives them, and ``errors`` of others.

    Training steps have the videos of the published schedule on one GPU; a row tells ``hours``, that
    is all its steps with the language model trained, which the schedule freezes at first.
    """
    subjects, errors = [], {}
    with prepared(plan.device):
        for variant, (*how, options) in plan.variants.items():
            try:
                bench = Benchmark(arguments(task, plan.configs[name], plan, *how, options))
                made = bench.subjects()
                for subject in made:
                    subject()  # compiles, and finds out what this device cannot do
                    subject.name = variant
                if COMPILED.items() <= options.items():  # the neck goes on without, where it fails
                    assert bench.model.neck.encoder.compile_settings is not None, 'see the log'
                subjects += made
            except Exception as error:
                errors[variant] = f'{type(error).__name__}: {error}'
                torch.cuda.empty_cache()
        interleave(subjects, plan.repeats)
        first = {subject.group: subject for subject in reversed(subjects)}
        rows = [subject.row(first[subject.group]) for subject in subjects]
        for subject, row in zip(subjects, rows, strict=True):
            row['peak_mb'] = peak_growth(subject, plan.device)
    if task == 'train' and rows:
        dataset, epochs = bench.cfg.train_dataloader.dataset, bench.cfg.train_cfg.max_epochs
        videos = len(annotation_statistics(dataset, 'train')[0])
        for row in rows:
            steps = epochs * math.ceil(videos / row['videos'])
            row |= dict(steps=steps, hours=steps * row['seconds'] / 3600)
    return dict(rows=rows, errors=errors)


def arguments(task: str, config: str, plan: Plan, mode: str, dtype: str, options: dict):
    """The command line of the benchmark, for one variant."""
    size = plan.batch_size
    if task == 'train' and size is None:
        size = load_config(config).auto_scale_lr.base_batch_size
    how = dict(conv_mode=[mode], dtype=[dtype], cfg_options=dict(options), frozen=False)
    return Namespace(task=task, config=config, device=plan.device, batch_size=size, **how)


def memory(plan: Plan) -> dict:
    """A training step's need of memory, and memory_estimate.py's estimate of it."""
    rows = []
    with prepared(plan.device):
        for name, config in plan.configs.items():
            for dtype in ('fp32', 'bf16'):
                options = arguments('train', config, plan, 'dense', dtype, {})
                options.gpus, options.conv_mode, options.dtype = 1, 'dense', dtype
                estimated = MemoryEstimate(options).peak(options.batch_size).total()
                row = dict(config=name, dtype=dtype, videos=options.batch_size)
                needed = measured(options, plan.device)
                rows.append(row | dict(estimated_mb=estimated / MB, measured_mb=needed / MB))
    return dict(rows=rows)


def epoch(plan: Plan) -> dict:
    """An epoch of a training on random features, after one that is not counted.

    Loader, logger, check of the losses and all else of a run are as always.
    """
    config = next(iter(plan.configs.values()))
    cfg = offline_config(load_config(config))
    size = arguments('train', config, plan, 'dense', 'fp32', {}).batch_size
    videos = len(annotation_statistics(cfg.train_dataloader.dataset, 'train')[0])
    with tempfile.TemporaryDirectory() as folder, prepared(plan.device):
        write_videos(Path(folder), made_up_batch(cfg, 'train', videos), plan.epoch_rows)
        cfg.merge_from_dict(epoch_settings(folder, size))
        for split in ('val', 'test'):
            for part in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{split}_{part}'] = None
        cfg.dump(Path(folder, 'epoch.py'))
        command = [sys.executable, 'tools/train.py', Path(folder, 'epoch.py')]
        command += ['--work-dir', Path(folder, 'work')]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (scalars,) = Path(folder, 'work').glob('*/vis_data/scalars.json')
        steps = [json.loads(line) for line in scalars.read_text().splitlines()]
    steps = [step for step in steps if 'time' in step and step['epoch'] == 2]
    seconds = [step['time'] for step in steps]
    waited = sum(step['data_time'] for step in steps)
    about = dict(config=config, videos=videos, batch_size=size, steps=len(steps))
    return about | dict(
        seconds=sum(seconds), data_seconds=waited, step_seconds=statistics.median(seconds)
    )


def epoch_settings(folder: str, batch_size: int) -> dict:
    """Of a training of two epochs on what `write_videos` wrote, all steps of which are logged."""
    dataset = 'train_dataloader.dataset'
    return {
        f'{dataset}.data_root': folder,
        f'{dataset}.ann_file': 'train.json',
        f'{dataset}.data_prefix': dict(features='features.h5'),
        f'{dataset}.feature_key': None,
        'train_dataloader.batch_size': batch_size,
        'train_cfg.max_epochs': 2,
        'default_hooks.freeze_language_model.through_epoch': 0,
        'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint': None,
        'log_processor.window_size': 1,
    }


def write_videos(folder: Path, batch: dict, num_rows: int) -> None:
    """Annotations and features of made-up videos, as a dataset has them."""
    annotations = {}
    with h5py.File(folder / 'features.h5', 'w') as file:
        for features, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            rows = features.numpy()
            file[sample.video_id] = np.resize(rows, (num_rows, rows.shape[1]))
            moments = sample.gt_instances.moments.clamp(max=sample.duration).tolist()
            annotations[sample.video_id] = dict(
                duration=sample.duration, timestamps=moments, sentences=sample.sentences
            )
    (folder / 'train.json').write_text(json.dumps(annotations))


def evaluation(plan: Plan) -> dict:
    """Cosines, ranking with NMS, and recalls of a whole test split, on random embeddings."""
    cfg, size = offline_config(load_config([*plan.configs.values()][-1])), 64
    next(step for step in cfg.test_dataloader.dataset.pipeline if 'num_segments' in step)[
        'num_segments'
    ] = 1  # no features are needed
    with prepared(plan.device), torch.inference_mode():
        samples = made_up_batch(cfg, 'test', plan.test_videos)['data_samples']
        grid, channels = MomentGrid(**cfg.model.grid), cfg.model.neck.embed_channels
        head = MODELS.build(cfg.model.head, default_args=dict(grid=grid)).to(plan.device)
        make = partial(torch.randn, device=plan.device)
        spaces = ('iou', 'contrastive')
        videos = {space: make(size, grid.num_moments, channels) for space in spaces}
        sentences = {space: make(size * 100, channels) for space in spaces}

        def evaluate() -> int:
            metric = METRICS.build(cfg.test_evaluator)
            for first in range(0, len(samples), size):
                batch, count = samples[first : first + size], 0
                count = sum(len(sample.sentences) for sample in batch)
                own = head.split({k: rows[: len(batch)] for k, rows in videos.items()}, batch)
                texts = {space: rows[:count] for space, rows in sentences.items()}
                ranked = head.predict(own, texts, batch)
                metric.process(None, [sample.to_dict() for sample in ranked])
            metric.evaluate(len(samples))

        took = milliseconds(evaluate, plan)
    count = sum(len(sample.sentences) for sample in samples)
    return dict(videos=len(samples), sentences=count, moments=grid.num_moments, ms=took)


def extraction(plan: Plan) -> dict:
    """Frames per second from files of video to a file of features, towers of real size."""
    init_default_scope('mmaction')
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        videos = [write_video(Path(folder, f'{name}.mp4'), plan.frames) for name in 'abcd']
        for name in plan.towers:
            settings = globals()[name](Path(folder, name))
            extractor = build_extractor(dict(settings, device=plan.device))
            extractor(videos[0])  # loads the model
            workers = extractor.workers if plan.device != 'cpu' else 0
            began = time.perf_counter()
            report = extract_videos(extractor, videos, Path(folder, f'{name}.h5'), workers)
            seconds = time.perf_counter() - began
            if report.failures:
                raise RuntimeError(str(report.failures))
            seen = plan.frames / 30 * extractor.fps * len(videos)
            row = dict(tower=name, videos=len(videos), frames=plan.frames, fps=extractor.fps)
            row |= dict(seconds=seconds, decoded_per_second=plan.frames * len(videos) / seconds)
            row |= dict(described_per_second=seen / seconds, waiting=report.speed['waiting'])
            rows.append(row)
    return dict(rows=rows)


def write_video(path: Path, frames: int) -> Path:
    """A video of 320 x 240 pixels at 30 frames per second that moves."""
    noise = np.random.default_rng(0).integers(0, 255, (240, 960, 3), dtype=np.uint8)
    with VideoWriter(path, 30) as writer:
        for place in range(frames):
            writer.add(noise[:, (left := 2 * place % 640) : left + 320])
    return path


def c3d(folder: Path) -> dict:
    """C3D in its real size with random weights."""
    settings = dict(load_config(ROOT / 'configs/extractors/c3d_fc6_sports1m.py').extractor)
    model = MODELS.build(RecognizerConfig(settings['config']).model)
    folder.mkdir()
    torch.save(dict(meta={}, state_dict=model.backbone.state_dict()), folder / 'c3d.pth')
    return settings | dict(checkpoint=str(folder / 'c3d.pth'), ignored_weights=[])


def clip(folder: Path) -> dict:
    """CLIP ViT-B/32 in its real size with random weights."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel  # says that it is slow

    settings = dict(load_config(ROOT / 'configs/extractors/clip_vit_b32.py').extractor)
    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return settings | dict(model=str(folder))


def scan(plan: Plan) -> dict:
    """The best 20 of a library of moments in two spaces, for one sentence and for 32 at once.

    A plain product, MMN's score and ``topk``, of float16 on the device.
    """
    kind = torch.float32 if plan.device == 'cpu' else torch.float16
    make = partial(torch.randn, device=plan.device, dtype=kind)
    library, rows = make(2, plan.library, 256) / 16, []
    with torch.inference_mode():
        for count in (1, 32):
            queries = make(2, 256, count) / 16

            def find(queries=queries):
                iou, contrastive = torch.bmm(library, queries)
                scores = moment_scores(contrastive, (10 * iou).sigmoid(), 0.5)  # (moments, count)
                return scores.topk(20, dim=0)

            took = milliseconds(find, plan)
            speed = library.numel() * library.element_size() / 1e6 / took
            rows.append(dict(sentences=count, ms=took, gb_per_second=speed))
    return dict(moments=plan.library, rows=rows)


def gather(plan: Plan) -> dict:
    """Gathering embeddings over all GPUs, and their gradients' way back, for a batch per GPU."""
    count = 2 if plan.device == 'cpu' else torch.cuda.device_count()
    if count < 2:
        return dict(skipped='there is one GPU')
    config = load_config([*plan.configs.values()][-1])
    with tempfile.TemporaryDirectory() as folder:
        arguments = count, plan, config.train_dataloader.batch_size, config.model.grid, folder
        torch.multiprocessing.spawn(_gather, arguments, count)
        return json.loads(Path(folder, 'figures.json').read_text())


def _gather(rank: int, count: int, plan: Plan, videos: int, grid: dict, folder: str) -> None:
    on_cpu = plan.device == 'cpu'
    how = dict(init_method=f'file://{folder}/meeting', rank=rank, world_size=count)
    dist.init_process_group('gloo' if on_cpu else 'nccl', **how)
    device = plan.device if on_cpu else f'cuda:{rank}'
    with torch.device(device):
        rows = torch.randn(videos, MomentGrid(**grid).num_moments, 256, requires_grad=True)

    def there_and_back() -> None:
        gather_rows(rows, [videos] * count).sum().backward()
        if not on_cpu:
            torch.cuda.synchronize(device)

    seconds = []
    for _ in range(11):  # the same number in all processes
        began = time.perf_counter()
        there_and_back()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        found = dict(gpus=count, videos=videos, mb=rows.nbytes / 2**20)
        found |= dict(ms=1000 * statistics.median(seconds[1:]))
        Path(folder, 'figures.json').write_text(json.dumps(found))
    dist.destroy_process_group()


def agreement(variant: str, plan: Plan) -> dict:
    """What verify_reference.py says of a variant that computes in full precision."""
    failed, worst, files = [], dict(share=0.0), sorted(shared_folder('golden').glob(plan.golden))
    if not files:
        raise RuntimeError(f'{shared_folder("golden")} holds no {plan.golden}')
    with prepared(plan.device):
        log, said = MMLogger.get_current_instance(), []
        log.addFilter(lambda record: said.append(record.getMessage()) or True)
        set_tf32(False)
        for path in files:
            for row in check(path, None, EXACT[variant], plan.device).rows:
                share = row.max_rel / row.bound if row.bound else 0.0
                found = dict(file=path.name, quantity=row.quantity, share=share)
                worst = max(worst, found, key=itemgetter('share'))
                failed += [] if row.passed else [found]
    # the neck warns where it computes without compilation, for one
    return dict(files=len(files), failed=failed, worst=worst, warnings=said)
