"""All videos of a split searched at once: real language, and Shapes with its whole truth."""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path

import eval_library as tool
import torch
from mmengine.config import Config

from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import library_figures
from mmn_plugin.shapes import WholeTruth

from .captions import MMN, MSCL, ZERO_SHOT, make_corpus, options_of
from .running import CONFIG, ROOT, kept, process_pool
from .tables import spreads, table

# All of them have MMN's moments but MSCL, whose stretches are of 32 clips.
OPTIONS = {ZERO_SHOT: {'model.grid': dict(num_clips=16, pooling_counts=[15])}}
ZERO, WEAK, ALONE, BOTH = 'zero-shot', 'MSCL, weakly supervised', 'MMN', "MMN and the tower's space"
ROWS = {ZERO: ZERO_SHOT, WEAK: MSCL, ALONE: MMN, BOTH: MMN}
# One sentence in so many: in choosing on validation, and in the library of all videos.
CHOOSING, ALL_VIDEOS = 3, 4
# Test videos of the libraries in which something is nowhere to be found.
SIZES = (20, 60, 180)


def library(seeds: list[int]) -> Iterator[dict]:
    """Shapes, then captions over the test videos, then over all of them with the first seed.

    The trainings are those of the experiments ``shapes`` and ``captions``, as they are found.
    """
    with process_pool() as pool:
        make_corpus()
        runs, trainings = kept_of(CONFIG, seeds)
        result = dict(trainings=trainings)
        result['shapes'] = dict(
            per_seed=list(pool.map(shapes_of, *zip(*runs.items(), strict=True)))
        )
        yield result
        runs = {(ZERO_SHOT, seeds[0]): None}
        for config in (MMN, MSCL):
            found, records = kept_of(config, seeds)
            runs |= {(config, seed): run for seed, run in found.items()}
            trainings |= records
        result['chosen'] = choose(pool, runs)
        result['test'] = over_videos(pool, runs, result['chosen'], [], 1)
        yield result
        first = {job: run for job, run in runs.items() if job[1] == seeds[0]}
        also = ['train', 'val']
        result['all'] = over_videos(pool, first, result['chosen'], also, ALL_VIDEOS)
        yield result


def kept_of(config: str, seeds: Sequence[int]) -> tuple[dict[int, Path], dict[str, dict]]:
    """Checkpoints by seed of the experiment ``shapes`` or ``captions``, and their records."""
    how = (Path(config).stem, options_of(config), 1)
    name, options, processes = ('shapes', (), 2) if config == CONFIG else how
    found = {seed: kept(name, seed, config, options, processes) for seed in seeds}
    return (
        {seed: run for seed, (run, _) in found.items()},
        {f'{name}_seed{seed}': record for seed, (_, record) in found.items()},
    )


def read(config: str, checkpoint: Path | None, scores: Sequence[dict]) -> tuple[Config, object]:
    """Config and model; of zero-shot in the spaces of these scores."""
    cfg = load_config(config, OPTIONS.get(config))
    model = tool.read_model(cfg, checkpoint and str(checkpoint))
    if config == ZERO_SHOT:
        tool.compare_in_all_spaces(cfg, model, scores)
    return cfg, model


def validated(config: str, checkpoint: Path | None) -> list[dict]:
    """What all settings give on validation."""
    with chdir(ROOT):
        cfg, model = read(config, checkpoint, tool.SCORES)
        videos = tool.embed_library(model, build_dataset(cfg, 'val'), step=CHOOSING)
        trials = tool.tried(model, videos, tool.trials_of(cfg, model))
    return [{key: trial[key] for key in ('head', 'library', 'quality')} for trial in trials]


def choose(pool, runs: dict) -> dict[str, dict]:
    """For each row the settings that are best as the mean of the seeds, and all that was tried."""
    futures = {job: pool.submit(validated, job[0], run) for job, run in runs.items()}
    found = {job: future.result() for job, future in futures.items()}
    chosen = {}
    for row, config in ROWS.items():
        per_seed = [trials for (own, _), trials in found.items() if own == config]
        trials = [
            dict(same[0], quality=statistics.fmean(trial['quality'] for trial in same))
            for same in zip(*per_seed, strict=True)
        ]
        if row == ALONE:
            trials = [trial for trial in trials if not trial['library']['tower_weight']]
        chosen[row] = max(trials, key=lambda trial: trial['quality']) | dict(tried=trials)
    return chosen


def searched(config: str, checkpoint: Path | None, rows: dict, also: list[str], step: int) -> dict:
    """Figures of each row's settings over the test videos, and those of further splits."""
    with chdir(ROOT):
        scores = [row['head']['score'] for row in rows.values() if 'score' in row['head']]
        cfg, model = read(config, checkpoint, scores)
        more = [tool.split_dataset(cfg, split, load_config(MMN)) for split in also]
        videos = tool.embed_library(model, build_dataset(cfg, 'test'), more, step)
        figures = {}
        for row, setting in rows.items():
            tool.set_head(model.head, setting['head'])
            ranking = videos.rank(model.head, setting['library'], own=not also)
            about = dict(videos=len(videos.videos), moments=ranking.pool)
            about['sentences'] = len(videos.asked)
            figures[row] = about | library_figures(ranking, videos.asked)
    return figures


def over_videos(
    pool, runs: dict, chosen: dict, also: list[str], step: int
) -> dict[str, list[dict]]:
    """Figures of every row, one for each seed."""
    futures = []
    for (config, _), run in runs.items():
        rows = {row: chosen[row] for row, own in ROWS.items() if own == config}
        futures.append(pool.submit(searched, config, run, rows, also, step))
    found = [future.result() for future in futures]
    return {row: [figures[row] for figures in found if row in figures] for row in ROWS}


def shapes_of(seed: int, checkpoint: Path) -> dict:
    """The test videos of Shapes, with settings chosen on validation."""
    torch.set_num_threads(1)
    with chdir(ROOT):
        cfg = load_config(CONFIG)
        model = tool.read_model(cfg, str(checkpoint))
        chosen = tool.choose(cfg, model, tool.embed_library(model, build_dataset(cfg, 'val')))
        videos = tool.embed_library(model, build_dataset(cfg, 'test'))
        settings, truth = chosen['library'], WholeTruth('data/shapes')
        ranking = videos.rank(model.head, settings)
        figures = library_figures(ranking, videos.asked)
        whole = tool.whole_truth(model, videos, ranking, settings, truth)
        nowhere = {size: absence_of(model, videos.videos, settings, truth, size) for size in SIZES}
    about = dict(videos=len(videos.videos), moments=ranking.pool, sentences=len(videos.asked))
    return dict(about, seed=seed, chosen=chosen, figures=figures, whole=whole, nowhere=nowhere)


def absence_of(model, videos: list, settings: dict, truth: WholeTruth, size: int) -> dict:
    """Means over the libraries of so many videos that the test split is cut into."""
    starts = range(0, len(videos) - size + 1, size)
    found = [tool.absence(model, videos[s : s + size], settings, truth) for s in starts]
    means = {name: statistics.fmean(part[name] for part in found) for name in found[0]}
    return dict(means, libraries=len(found))


# Columns of both tables, and those of captions that end them.
MOMENTS = {f'R@{n}, IoU={iou}': f'R{n}@{iou}' for iou in (0.5, 0.7) for n in (1, 10, 100)}
MOMENTS |= {'median rank, IoU=0.5': 'MedR@0.5'}
VIDEOS = {f'video R@{n}': f'VR{n}' for n in (1, 5, 10, 100)} | {'SumR': 'SumR'}
SAME = {f'same sentence, {label}': f'any/{name}' for label, name in list(MOMENTS.items())[:3]}
SAME |= {'same sentence, SumR': 'any/SumR'}
OWN = {'in its own video R@1, IoU=0.5': 'own/R1@0.5'}
WHOLE = {f'precision of {n}': f'P@{n}' for n in (1, 10, 'all')}
WHOLE |= {f'recall of {n}': f'recall@{n}' for n in (1, 10, 100)}


def cells(per_seed: list[dict], columns: dict[str, str]) -> list[str]:
    """A row's figures; of median ranks the median, and where no hit is right how many there are."""
    found = []
    for name in columns.values():
        if 'MedR' in name:
            middle = statistics.median(seed[name] for seed in per_seed)
            missed = middle >= per_seed[0]['moments']
            found.append(f'> {tool.DEPTH:,}' if missed else f'{middle:,.0f}')
        else:
            found += spreads(per_seed, [name])
    return found


def captions_table(rows: dict[str, list[dict]]) -> str:
    """A row per method."""
    first = next(iter(rows.values()))[0]
    columns = MOMENTS | VIDEOS | SAME | (OWN if 'own/R1@0.5' in first else {})
    about = f'{first["videos"]:,} videos, {first["sentences"]:,} sentences, %'
    return table(
        [about, *columns], [[row, *cells(per_seed, columns)] for row, per_seed in rows.items()]
    )


def shapes_tables(per_seed: list[dict]) -> str:
    """One right answer, all that happens, and what happens nowhere."""
    figures = [seed['figures'] | dict(moments=seed['moments']) for seed in per_seed]
    columns = MOMENTS | VIDEOS | OWN
    about = f'{per_seed[0]["videos"]} videos of Shapes, {per_seed[0]["sentences"]} sentences, %'
    tables = [table([about, *columns], [[ALONE, *cells(figures, columns)]])]
    whole = [seed['whole'] for seed in per_seed]
    about = f'all that happens: {whole[0]["answers"]:.1f} right answers for a sentence, %'
    tables.append(table([about, *WHOLE], [[ALONE, *spreads(whole, WHOLE.values())]]))
    rows = []
    for size in per_seed[0]['nowhere']:
        found = [seed['nowhere'][size] for seed in per_seed]
        counts = [found[0]['libraries'], f'{found[0]["present"]:.0f}', f'{found[0]["absent"]:.0f}']
        rows.append([f'{size} videos', *counts, *spreads(found, ['auroc'])])
    header = ['nowhere in the library', 'libraries', 'sentences about what occurs in one']
    header += ['about what does not', 'AUROC, %']
    return '\n\n'.join([*tables, table(header, rows)])


def render_library(result: dict) -> str:
    """Captions over the test videos and over all, then Shapes."""
    parts = [captions_table(result[name]) for name in ('test', 'all') if name in result]
    if 'chosen' in result:
        settings = {
            row: found['head'] | found['library'] for row, found in result['chosen'].items()
        }
        named = [f'{row}: {told(values)}' for row, values in settings.items()]
        parts.append(f'Chosen on validation: {"; ".join(named)}.')
    parts.append(shapes_tables(result['shapes']['per_seed']))
    powers = [told(seed['chosen']['library']) for seed in result['shapes']['per_seed']]
    return '\n\n'.join([*parts, f'Chosen on validation, by seed: {"; ".join(powers)}.'])


def told(settings: dict) -> str:
    """Settings in words."""
    flat = dict(settings)
    score = flat.pop('score', None)
    words = [] if score is None else [f'score {score["type"]}']
    words += [f'{name}={value:g}' for name, value in (score or {}).items() if name != 'type']
    return ', '.join([*words, *(f'{name}={value:g}' for name, value in flat.items())])
