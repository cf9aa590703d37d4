"""Where negatives come from, and what it gives within a video and over a library of videos."""

import json
import multiprocessing
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import chdir
from itertools import product
from pathlib import Path

import eval_library as tool
import torch

from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import (
    MomentPool,
    auroc,
    library_figures,
    rank_own_videos,
    ranked_iou,
    recall,
)
from mmn_plugin.shapes import WholeTruth

from .captions import make_corpus
from .library import absence_of
from .running import CONFIG, ROOT, best_of, state_of_code, train
from .tables import spreads, table

RESULT = ROOT / 'docs/results/negatives_library.json'
DEFAULT_RESULT = ROOT / 'docs/results/captions_library.json'
HEAD = 'model.head'


def of_epochs(number: int) -> tuple[str, ...]:
    """Options of a training of so many epochs."""
    return (
        f'train_cfg.max_epochs={number}',
        f'train_cfg.val_interval={number}',
        f'default_hooks.negatives.full_through_epoch={number}',
    )


# A step of the optimizer is 32 videos, unless its row names more.
STEP = 32
SOURCE = f'{HEAD}.negatives'

GLOBAL = f'{SOURCE}.scope=global'
SAMPLER = 'train_dataloader.sampler'
HARD = (
    f'{SAMPLER}._delete_=True',
    f'{SAMPLER}.type=SimilarVideoSampler',
    f'{SAMPLER}.group_size={STEP}',
    'default_hooks.similar_videos.type=SimilarVideoHook',
    'default_hooks.similar_videos.by=model',
)
MASKS = f'{SOURCE}.exclude_similar=0.8'
# What sentences mean where the model has no tower of its own: that of captions.
MEANING = ('model.tower.type=TextTower', 'model.tower.model=sentence-transformers/all-MiniLM-L6-v2')
# Videos that are compared with each other, further options, and how many processes train.
ROWS = {
    'local, 2 videos': (2, (), 1),
    'local, 8 videos': (8, (), 1),
    'local, 32 videos': (32, (), 1),
    'global, 2 x 32 videos': (32, (GLOBAL,), 2),
    '128 videos, in pieces of 32': (128, (), 1),
    '512 videos, in pieces of 32': (512, (), 1),
    '32 videos that resemble each other': (32, HARD, 1),
    '32 videos, without sentences that mean the same': (32, (MASKS,), 1),
    '32 videos that resemble each other, likewise': (32, (*HARD, MASKS), 1),
}
# Measured at a commit that had a queue; their runs stay in the result as they are.
REMOVED = (
    '32 videos, and a queue of 64',
    '32 videos, and a queue of 512',
    '32 videos, and a queue of 64 with momentum',
    '32 videos, and a queue of 512 with momentum',
    'the same, half the weight every 128 videos',
)
CORPORA = {'captions': 'configs/mmn_captions_library.py', 'shapes': CONFIG}
# For all rows alike: fewer epochs than the configs have, validation at the end alone, on captions
# also kernels of 3 instead of 5, which take two thirds of the time.
PLAIN = 'model.head.expected_iou_power=None'  # an epoch is chosen by scores alone
OF_CAPTIONS = (PLAIN, *of_epochs(4), 'param_scheduler.1.T_max=4')
SCHEDULES = {
    'captions': (*OF_CAPTIONS, 'model.neck.kernel_size=3', 'model.text_encoder.frozen=True'),
    'shapes': (*of_epochs(8), 'param_scheduler.0.milestones=[5,7]'),
}
RATES = (1.0, 3.0)  # factors on the config's learning rate that are tried for each row
POWERS, WEIGHTS = (4.0, 16.0, 64.0), (0.0, 8.0)  # of a library's score
ONE_IN = dict(val=3, test=2)  # sentences that are asked
ALL = dict(val=1, test=1)
ALONE, BOTH = 'alone', 'tower'
OWN = 'video R1@0.5'


def negatives_library(seeds: list[int]) -> Iterator[dict]:
    """A run for each corpus, row, learning rate and seed, each written as it ends.

    The learning rate of a row is chosen with the first seed, and a library's power and weight of
    the tower for each training, by the mean of R@1, R@10 and R@100 on validation. Runs that the
    result has already, of the same package, configs and options, are taken as they are.
    """
    runs, part = start(RESULT, is_current)
    first = [(*place, seeds[0]) for place in product(CORPORA, ROWS, RATES)]
    first.sort(key=lambda job: is_slow(job[1]))
    for _ in measured(figures_of, first, runs, place_of):
        yield part
    others = [
        (corpus, row, best_rate(runs, corpus, row, seeds[0]), seed)
        for seed, corpus, row in product(seeds[1:], CORPORA, ROWS)
    ]
    others.sort(key=lambda job: (seeds.index(job[3]), is_slow(job[1])))
    for _ in measured(figures_of, others, runs, place_of):
        yield part
    yield part


def is_slow(row: str) -> bool:
    """Whether a row takes a multiple of the others' time, so that it is measured last."""
    videos, _, processes = ROWS[row]
    return videos < STEP or processes > 1


def start(path: Path, current: Callable[[dict], bool]) -> tuple[list[dict], dict]:
    """Runs of a result that are as good as new ones or can never be new, and the result itself."""
    make_corpus()
    os.environ['OMP_NUM_THREADS'] = '1'
    code, runs = state_of_code(), []
    if path.is_file():
        before = json.loads(path.read_text())
        runs = [run for run in before['runs'] if before['code'] == code and current(run)]
        kept = [run for run in before['runs'] if run.get('row') in REMOVED]
        runs += [dict(run, commit=run.get('commit', before['commit'])) for run in kept]
    return runs, dict(code=code, runs=runs)


def measured(
    function: Callable, jobs: Sequence[tuple], runs: list[dict], place_of: Callable
) -> Iterator[None]:
    """Add to ``runs`` what a function makes of each job that is not among them, as it ends."""
    known = {place_of(run) for run in runs}
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), context) as pool:
        futures = [pool.submit(function, *job) for job in jobs if job not in known]
        try:
            for future in as_completed(futures):
                runs.append(future.result())
                yield
        finally:
            pool.shutdown(cancel_futures=True)  # where one failed, or nobody asks for more


def place_of(run: dict) -> tuple:
    """What a run is of: corpus, row, factor on the learning rate, seed."""
    return run['corpus'], run['row'], run['rate'], run['seed']


def is_current(run: dict) -> bool:
    """Whether the table has such a run, trained by the same options."""
    corpus, row, rate, _ = place_of(run)
    known = corpus in CORPORA and row in ROWS and rate in RATES
    return known and run['options'] == list(options_of(corpus, row, rate))


def best_rate(runs: list[dict], corpus: str, row: str, seed: int) -> float:
    """The learning rate that was best on validation, of those that were tried with this seed."""
    place = corpus, row, seed
    tried = {run['rate']: run for run in runs if (run['corpus'], run['row'], run['seed']) == place}
    return max(tried, key=lambda rate: tried[rate]['quality'])


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
    if corpus == 'shapes' and MASKS in options:
        options += MEANING
    if corpus == 'captions':  # its warm-up counts iterations
        options += (
            f'param_scheduler.0.end={max(1, config.param_scheduler[0].end * STEP // videos)}',
        )
    return (*SCHEDULES[corpus], *options)


def figures_of(corpus: str, row: str, rate: float, seed: int) -> dict:
    """What one training gives; kept beside it, so that it is measured once."""
    torch.set_num_threads(1)
    name = re.sub(r'\W+', '_', f'negatives_{corpus}_{row}_{rate:g}')
    options = options_of(corpus, row, rate)
    work, used = train(name, seed, options, CORPORA[corpus], ROWS[row][2])
    kept = ROOT / work / 'library.json'
    if not kept.is_file():
        about = dict(corpus=corpus, row=row, rate=rate, options=list(options))
        kept.write_text(json.dumps(about | used | evaluated(corpus, work)))
    return json.loads(kept.read_text())


def evaluated(corpus: str, work: Path, one_in: dict = ONE_IN, trials_of=None) -> dict:
    """Figures of a training on the test split, and of ``quality`` on validation.

    ``trials_of`` gives the settings to try; by default those of the table.
    """
    with chdir(ROOT):
        cfg, model = trained_model(work, CORPORA[corpus])
        chosen = on_validation(cfg, model, one_in['val'], (trials_of or table_trials)(cfg, model))
        test = tool.embed_library(model, build_dataset(cfg, 'test'), step=one_in['test'])
        truth = WholeTruth('data/shapes') if corpus == 'shapes' else None
        found = {}
        for name, trial in chosen.items():
            settings = trial['library']
            figures = library_figures(test.rank(model.head, settings, own=False), test.asked)
            figures['presence'] = presence(model, test, settings, truth)
            found[name] = figures | settings | dict(quality=trial['quality'])
        found[ALONE][OWN] = within_videos(model.head, test)
    return dict(found, quality=found[ALONE]['quality'])


def trained_model(work: Path, config: str) -> tuple:
    """Config as it was trained with, and the best model, of a folder of a training."""
    cfg = load_config(work / Path(config).name)
    return cfg, tool.read_model(cfg, str(best_of(work)))


def table_trials(cfg, model) -> list[tuple[dict, dict]]:
    """Settings of a library that are tried for each row."""
    weights = WEIGHTS if model.head.tower_spaces else WEIGHTS[:1]
    return [({}, dict(score_power=p, tower_weight=w)) for p, w in product(POWERS, weights)]


def on_validation(cfg, model, step: int, trials: list[tuple[dict, dict]]) -> dict[str, dict]:
    """The best without the tower's space, and the best of all: figures and settings."""
    library = tool.embed_library(model, build_dataset(cfg, 'val'), step=step)
    tried = tool.tried(model, library, trials)
    own = within_videos(model.head, library)
    for trial in tried:
        trial['figures'][OWN] = own
    rows = {ALONE: [trial for trial in tried if not trial['library']['tower_weight']], BOTH: tried}
    if not model.head.tower_spaces:
        rows.pop(BOTH)
    return {name: max(found, key=lambda trial: trial['quality']) for name, found in rows.items()}


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
    'in its own video, R@1': (ALONE, OWN),
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
    tables = []
    for corpus in CORPORA:
        rows = {row: chosen_runs(result, corpus, row) for row in (*ROWS, *REMOVED)}
        tables += [table_of(corpus, {row: runs for row, runs in rows.items() if runs})]
    return '\n\n'.join(filter(None, tables))


def chosen_runs(result: dict, corpus: str, row: str) -> list[dict]:
    """A row's runs at its best learning rate; none while not all rates were tried."""
    runs = [run for run in result['runs'] if place_of(run)[:2] == (corpus, row)]
    first = result['seeds'][0]
    if row in REMOVED:  # whichever seeds it was measured with
        first = min((run['seed'] for run in runs), default=first)
    if {run['rate'] for run in runs if run['seed'] == first} != {*RATES}:
        return []
    rate = best_rate(runs, corpus, row, first)
    return [run for run in runs if run['rate'] == rate]


def table_of(corpus: str, rows: dict[str, list[dict]]) -> str:
    """A row for each source of negatives; empty without one."""
    if not rows:
        return ''
    first = next(iter(rows.values()))[0]
    columns = {title: place for title, place in COLUMNS.items() if place[0] in first}
    shown = [
        [label, *figures_of_runs(runs, columns), f'{runs[0]["rate"]:g}', len(runs)]
        for label, runs in rows.items()
    ]
    header = [f'negatives of a sentence; {corpus}, test split, IoU=0.5, %', *columns]
    text = table([*header, 'median rank', 'CPU minutes', 'learning rate x', 'seeds'], shown)
    earlier = {run['commit'][:7] for runs in rows.values() for run in runs if 'commit' in run}
    return text + (f'\n\nRows with a queue: commit {", ".join(earlier)}.' if earlier else '')


def figures_of_runs(runs: list[dict], columns: dict) -> list[str]:
    """Cells of a row: its columns, median rank and CPU minutes of a training."""
    cells = [spreads([run[own] for run in runs], [name])[0] for own, name in columns.values()]
    median = statistics.median(run[ALONE]['MedR@0.5'] for run in runs)
    minutes = statistics.fmean(run['train_cpu_seconds'] for run in runs) / 60
    return [*cells, f'{median:.0f}', f'{minutes:.0f}']


def captions_library(seeds: list[int]) -> Iterator[dict]:
    """The config for libraries, trained as it is; its epoch is chosen by scores alone.

    The library's power and weight of the tower are chosen on validation from those that
    `eval_library.py --choose` tries, all sentences are asked, and trainings that the result has
    already are taken as of `negatives_library`.
    """
    runs, part = start(DEFAULT_RESULT, lambda run: run['options'] == [PLAIN])
    for _ in measured(of_default, [(seed,) for seed in seeds], runs, lambda run: (run['seed'],)):
        yield part
    yield part


def of_default(seed: int) -> dict:
    """Figures of one training."""
    torch.set_num_threads(1)
    config = CORPORA['captions']
    work, used = train(Path(config).stem, seed, (PLAIN,), config, 1)
    return dict(used, options=[PLAIN], **evaluated('captions', work, ALL, tool.trials_of))


def render_captions_library(result: dict) -> str:
    """The row of the config, and what was chosen."""
    runs = result['runs']
    both = [f'score_power={run[BOTH]["score_power"]:g}' for run in runs]
    weights = [f'tower_weight={run[BOTH]["tower_weight"]:g}' for run in runs]
    chosen = '; '.join(map(', '.join, zip(both, weights, strict=True)))
    header, row = ['captions, test split, IoU=0.5, %', *COLUMNS], [Path(CORPORA['captions']).name]
    row += figures_of_runs(runs, COLUMNS)
    text = table([*header, 'median rank', 'CPU minutes', 'seeds'], [[*row, len(runs)]])
    return f"{text}\n\nChosen on validation with the tower's space, by seed: {chosen}."
