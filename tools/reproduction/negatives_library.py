"""Where negatives come from, and what it gives within a video and over a library of videos."""

import json
import multiprocessing
import os
import re
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from itertools import product
from pathlib import Path

import eval_library as tool
import torch

from mmn_plugin.apis.presence import auroc
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import (
    MomentPool,
    library_figures,
    rank_own_videos,
    ranked_iou,
    recall,
)
from mmn_plugin.shapes import WholeTruth

from .captions import MMN, make_corpus
from .library import absence_of
from .running import CONFIG, ROOT, best_of, train
from .tables import spreads, table

# A step of the optimizer is 32 videos, unless its row names more.
STEP = 32
SOURCE = 'model.head.negatives'

GLOBAL, QUEUE = f'{SOURCE}.scope=global', f'{SOURCE}.queue_size'
FROM = 'default_hooks.negatives.from_epoch=3'
SAMPLER = 'train_dataloader.sampler'
HARD = (
    f'{SAMPLER}._delete_=True',
    f'{SAMPLER}.type=SimilarVideoSampler',
    f'{SAMPLER}.group_size={STEP}',
    'default_hooks.similar_videos.type=SimilarVideoHook',
    'default_hooks.similar_videos.by=model',
)
MASKS = f'{SOURCE}.exclude_similar=0.8'
# Videos that are compared with each other, further options, and how many processes train.
ROWS = {
    'local, 2 videos': (2, (), 1),
    'local, 8 videos': (8, (), 1),
    'local, 32 videos': (32, (), 1),
    'global, 2 x 32 videos': (32, (GLOBAL,), 2),
    '128 videos, in pieces of 32': (128, (), 1),
    '512 videos, in pieces of 32': (512, (), 1),
    '32 videos, and a queue of 64': (32, (f'{QUEUE}=64', FROM), 1),
    '32 videos, and a queue of 512': (32, (f'{QUEUE}=512', FROM), 1),
    '32 videos that resemble each other': (32, HARD, 1),
    '32 videos, without sentences that mean the same': (32, (MASKS,), 1),
    '32 videos that resemble each other, likewise': (32, (*HARD, MASKS), 1),
}
CORPORA = {'captions': MMN, 'shapes': CONFIG}
ALWAYS = {'captions': ('model.head.expected_iou_power=None',), 'shapes': ()}
RATES = (1.0, 3.0)  # factors on the config's learning rate that are tried for each row
POWERS, WEIGHTS = (4.0, 16.0, 64.0), (0.0, 8.0, 16.0)  # of a library's score
ONE_IN = 3  # sentences in choosing
ALONE, BOTH = 'alone', 'tower'


def negatives_library(seeds: list[int]) -> Iterator[dict]:
    """Rows of both corpora, each written as it ends; what was measured before is taken as it is.

    The learning rate of a row is chosen with the first seed, and a library's power and weight of
    the tower for each training, by the mean of R@1, R@10 and R@100 on validation.
    """
    make_corpus()
    os.environ['OMP_NUM_THREADS'] = '1'
    result = {corpus: {} for corpus in CORPORA}
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        jobs = list(product(CORPORA, ROWS))
        tried = {
            (*job, rate): pool.submit(figures_of, *job, seeds[0], rate)
            for job in jobs
            for rate in RATES
        }
        for corpus, row in jobs:
            rates = {rate: tried[corpus, row, rate].result() for rate in RATES}
            rate = max(rates, key=lambda factor: rates[factor]['quality'])
            others = [pool.submit(figures_of, corpus, row, seed, rate) for seed in seeds[1:]]
            result[corpus][row] = dict(
                rate=rate,
                tried={factor: found['quality'] for factor, found in rates.items()},
                per_seed=[rates[rate], *(future.result() for future in others)],
            )
            yield result


def options_of(corpus: str, row: str, rate: float) -> tuple[str, ...]:
    """Options of a training: what its optimizer steps over, its learning rate and its warm-up."""
    videos, options, _ = ROWS[row]
    with chdir(ROOT):
        config = load_config(CORPORA[corpus])
    options += (f'optim_wrapper.optimizer.lr={rate * config.optim_wrapper.optimizer.lr:g}',)
    if videos > STEP:
        options += (f'{SOURCE}.videos_per_step={videos}', f'{SOURCE}.piece={STEP}')
    else:
        counts = STEP // videos
        options += (f'train_dataloader.batch_size={videos}',)
        options += (f'optim_wrapper.accumulative_counts={counts}',)
    if corpus == 'captions':  # its warm-up counts iterations
        options += (
            f'param_scheduler.0.end={max(1, config.param_scheduler[0].end * STEP // videos)}',
        )
    return (*ALWAYS[corpus], *options)


def figures_of(corpus: str, row: str, seed: int, rate: float) -> dict:
    """What one training gives; kept beside it, so that it is measured once."""
    torch.set_num_threads(1)
    name = re.sub(r'\W+', '_', f'negatives_{corpus}_{row}_{rate:g}')
    work, used = train(name, seed, options_of(corpus, row, rate), CORPORA[corpus], ROWS[row][2])
    kept = ROOT / work / 'library.json'
    if not kept.is_file():
        kept.write_text(json.dumps(used | evaluated(corpus, best_of(work))))
    return json.loads(kept.read_text())


def evaluated(corpus: str, checkpoint: Path) -> dict:
    """Figures of a model on the test split, and of ``quality`` on validation."""
    with chdir(ROOT):
        cfg = load_config(CORPORA[corpus])
        model = tool.read_model(cfg, str(checkpoint))
        weights = WEIGHTS if model.head.tower_spaces else WEIGHTS[:1]
        trials = [({}, dict(score_power=p, tower_weight=w)) for p, w in product(POWERS, weights)]
        val = tool.embed_library(model, build_dataset(cfg, 'val')).every(ONE_IN)
        tried = tool.tried(model, val, trials)
        test = tool.embed_library(model, build_dataset(cfg, 'test'))
        truth = WholeTruth('data/shapes') if corpus == 'shapes' else None
        best = {ALONE: [trial for trial in tried if not trial['library']['tower_weight']]}
        if len(weights) > 1:
            best[BOTH] = tried
        found = {}
        for name, trials in best.items():
            chosen = max(trials, key=lambda trial: trial['quality'])
            settings = chosen['library']
            figures = library_figures(test.rank(model.head, settings, own=False), test.asked)
            figures['presence'] = presence(model, test, settings, truth)
            found[name] = figures | settings | dict(quality=chosen['quality'])
        found[ALONE]['video R1@0.5'] = within_videos(model.head, test)
    return dict(found, quality=found[ALONE]['quality'])


def within_videos(head, library: tool.EmbeddedLibrary) -> float:
    """R@1 at IoU=0.5 with each sentence's video given, without the tower's space."""
    score = head.library_score(dict(score_power=head.score_power, tower_weight=0.0))
    pool = MomentPool.of(map(head.library_units, library.videos), score.spaces)
    places = [int(one.videos[0]) for one in library.asked]
    how = (pool, library.queries, score, head.nms_threshold)
    moments, _ = rank_own_videos(*how, places, top_n=1)
    truth = torch.cat([one.moments[:1] for one in library.asked])
    return 100 * recall(ranked_iou(moments, truth), [1], [0.5]).item()


def presence(model, library: tool.EmbeddedLibrary, settings: dict, truth) -> float:
    """AUROC in percent of sentences about what a library shows and about what it does not.

    Of Shapes over all combinations; of captions over half of the videos, asked for the sentences of
    all of them.
    """
    if truth is not None:
        videos = library.videos
        return absence_of(model, videos, settings, truth, len(videos))['auroc']
    half = len(library.videos) // 2
    part = tool.EmbeddedLibrary(library.videos[:half], [], library.asked, library.queries)
    best = part.rank(model.head, settings, own=False, top_n=1).scores[:, 0]
    inside = torch.tensor([int(one.videos[0]) < half for one in library.asked])
    return 100 * auroc(best[inside].tolist(), best[~inside].tolist())


# Columns of a table, and whose figures they are.
COLUMNS = {
    'in its own video, R@1': (ALONE, 'video R1@0.5'),
    'library, R@1': (ALONE, 'R1@0.5'),
    'R@10': (ALONE, 'R10@0.5'),
    'R@100': (ALONE, 'R100@0.5'),
    'right video R@1': (ALONE, 'VR1'),
    'AUROC of presence': (ALONE, 'presence'),
    "with the tower's space, library R@1": (BOTH, 'R1@0.5'),
    'its R@100': (BOTH, 'R100@0.5'),
}


def render_negatives_library(result: dict) -> str:
    """A table for each corpus."""
    return '\n\n'.join(rows_of(corpus, result[corpus]) for corpus in CORPORA if result.get(corpus))


def rows_of(corpus: str, rows: dict) -> str:
    """A row for each source of negatives."""
    first = next(iter(rows.values()))['per_seed'][0]
    columns = {title: place for title, place in COLUMNS.items() if place[0] in first}
    shown = []
    for label, row in rows.items():
        seeds = row['per_seed']
        cells = [spreads([s[own] for s in seeds], [name])[0] for own, name in columns.values()]
        median = statistics.median(seed[ALONE]['MedR@0.5'] for seed in seeds)
        minutes = statistics.fmean(seed['train_cpu_seconds'] for seed in seeds) / 60
        shown.append([label, *cells, f'{median:.0f}', f'{minutes:.0f}', f'{row["rate"]:g}'])
    header = [f'negatives of a sentence; {corpus}, test split, IoU=0.5, %', *columns]
    return table([*header, 'median rank', 'CPU minutes', 'learning rate x'], shown)
