"""Grounding on real language without any video: two people's sentences of the same videos."""

import sys
from collections.abc import Sequence
from contextlib import chdir
from itertools import chain, product
from pathlib import Path

import torch
from eval_library import compare_in_all_spaces
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import ranked_iou, recall
from mmn_plugin.structures.annotations import read_annotations

from .running import ROOT, best_of, process_pool, run, shared_folder, train
from .scores import compared, evaluated, ranked, set_score
from .tables import CHANCE, spreads, table, title

CORPUS = 'data/captions'
ZERO_SHOT, MMN, MSCL = (f'configs/{name}_captions.py' for name in ('zero_shot', 'mmn', 'mscl'))
IN_ORDER = 'configs/mmn_captions_weak.py'
TRAINED = (MMN, IN_ORDER, MSCL)
METRICS = (*(f'R{n}@{iou}' for n in (1, 5) for iou in (0.3, 0.5, 0.7)), 'mIoU')
NEAREST = "span of the nearest sentence of the video's own annotator"
WEAK = 'MSCL, weakly supervised'
ALONE, BOTH = 'MMN', "MMN and the tower's space"
FIRST = f'{BOTH}, first by expected IoU'
# of MMN's trainings: without timestamps, and with them
OF_CONFIG = {
    config: {name: name + words for name in (ALONE, BOTH, FIRST)}
    for config, words in {IN_ORDER: ', weakly supervised', MMN: ''}.items()
}
# What is tried on validation.
SCORES = {
    'zero-shot, mean': [dict(type='mean')],
    'zero-shot, inside minus around': [dict(type='contrast', weight=w) for w in (0.5, 1.0)],
    'zero-shot, rise and steadiness': [
        dict(type='rise', rise=rise, steadiness=steadiness, mean=mean)
        for rise, steadiness, mean in product((0.25, 0.5), (0.5, 1.0), (0.0, 0.5, 1.0))
    ],
}
LENGTH_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)
# settings of the head that no training knows
POWERS = (None, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
OF_MMN = [
    dict(tower_weight=weight, expected_iou_power=power)
    for weight, power in product((0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0), POWERS)
]
HEADS = {
    MMN: OF_MMN,
    IN_ORDER: OF_MMN,
    MSCL: [
        dict(around_weight=around, length_weight=length)
        for around, length in product((0.25, 0.5, 0.75), (0.02, 0.03, 0.04, 0.05, 0.06))
    ],
}


def captions(seeds: list[int]) -> dict:
    """Chance, the nearest sentence, zero-shot, MSCL, MMN without and with timestamps.

    All that is chosen is chosen on validation: the epoch by R@1 at IoU=0.5, for each training, of
    MMN's with the tower's space at the config's weight; by the mean of R@1 at all three IoU the
    score and the correction of length for zero-shot, and, as the mean of the seeds, the weights of
    stretches for MSCL, and of the tower's space for MMN.
    """
    make_corpus()
    with process_pool() as pool:
        jobs = [(config, seed) for config in TRAINED for seed in seeds]
        runs = {job: pool.submit(trained, *job) for job in jobs}
        fixed = pool.submit(untrained)
        tried = {
            (config, seed): pool.submit(validated, config, runs[config, seed].result()[0])
            for config, seed in jobs
        }
        heads = {WEAK: choose_head(MSCL, tried, seeds)}
        for config, names in OF_CONFIG.items():
            heads[names[ALONE]] = dict(head=dict(tower_weight=0.0, expected_iou_power=None))
            heads[names[BOTH]] = choose_head(config, tried, seeds, expected_iou_power=None)
            heads[names[FIRST]] = choose_head(config, tried, seeds)
        of_row = {WEAK: MSCL} | {
            row: config for config, names in OF_CONFIG.items() for row in names.values()
        }
        futures = {
            (row, seed): pool.submit(
                tested, config, runs[config, seed].result(), heads[row]['head']
            )
            for row, config in of_row.items()
            for seed in seeds
        }
        per_seed = {row: [futures[row, seed].result() for seed in seeds] for row in of_row}
        chosen, found = fixed.result()
    return dict(chosen=chosen | heads, per_seed=found | per_seed)


def make_corpus() -> None:
    """The corpus, unless it is there."""
    if not (ROOT / CORPUS / 'annotations/described.json').is_file():
        source = shared_folder('data') / 'annotations/activitynet'
        tool = 'tools/data/activitynet/make_caption_features.py'
        run(sys.executable, tool, '--annotations', source, '--out', CORPUS, capture=False)


def trained(config: str, seed: int) -> tuple[Path, dict]:
    """Best checkpoint on validation of a training, and what it took."""
    work, used = train(Path(config).stem, seed, options_of(config), config, 1)
    return best_of(work), used


def options_of(config: str) -> tuple[str, ...]:
    """Options that a config is trained with."""
    return () if config == MSCL else ('model.head.expected_iou_power=None',)


def loaded(config: str, checkpoint: Path | None, split: str, head: dict | None = None) -> tuple:
    """Config, model, and a split's dataset."""
    init_default_scope('mmaction')
    cfg = load_config(config, {f'model.head.{key}': value for key, value in (head or {}).items()})
    if checkpoint is None:
        model = MODELS.build(cfg.model).eval()
    else:
        model = load_model(cfg, str(checkpoint), 'cpu')
    return cfg, model, build_dataset(cfg, split)


def hits(samples: list) -> float:
    """Mean of R@1 at the three IoU, in percent."""
    best = torch.cat([sample.pred_instances.moments[:, :1] for sample in samples])
    truth = torch.cat([sample.gt_instances.moments for sample in samples])
    return 100 * recall(ranked_iou(best, truth), [1], [0.3, 0.5, 0.7]).mean().item()


def tested(config: str, run: tuple[Path, dict], head: dict) -> dict[str, float]:
    """The test split's metrics of a training."""
    with chdir(ROOT):
        cfg, model, dataset = loaded(config, run[0], 'test', head)
        return run[1] | evaluated(cfg, ranked(model.head, compared(model, dataset)))


def validated(config: str, checkpoint: Path) -> list[float]:
    """`hits` on validation with each of the config's ``HEADS``."""
    with chdir(ROOT):
        _, model, dataset = loaded(config, checkpoint, 'val', HEADS[config][-1])  # with all spaces
        found = compared(model, dataset)
    figures = []
    for settings in HEADS[config]:
        for name, value in settings.items():
            setattr(model.head, name, value)
        figures.append(hits(ranked(model.head, found)))
    return figures


def choose_head(config: str, tried: dict, seeds: list[int], **given) -> dict:
    """The settings of ``HEADS`` that are best as the mean of the seeds, and all that was tried.

    With ``given`` of those that have these values.
    """
    figures = zip(*(tried[config, seed].result() for seed in seeds), strict=True)
    trials = [
        dict(head=head, R1_mean=list(values))
        for head, values in zip(HEADS[config], figures, strict=True)
        if given.items() <= head.items()
    ]
    best = max(trials, key=lambda trial: sum(trial['R1_mean']))
    return dict(head=best['head'], tried=trials)


def untrained() -> tuple[dict, dict]:
    """What was chosen for zero-shot and on what grounds, and the metrics of what is not trained."""
    chosen, per_seed = {}, {}
    with chdir(ROOT):
        cfg, model, val = loaded(ZERO_SHOT, None, 'val')
        head = model.head
        compare_in_all_spaces(cfg, model, chain(*SCORES.values()))
        found = [compared(model, val), compared(model, build_dataset(cfg, 'test'))]
        for name, scores in SCORES.items():
            tried = []
            for score, length_weight in product(scores, LENGTH_WEIGHTS):
                setting = dict(score=score, length_weight=length_weight)
                figure = hits(ranked(set_score(head, setting), found[0]))
                tried.append(setting | dict(R1_mean=figure))
            best = max(tried, key=lambda trial: trial['R1_mean'])
            chosen[name] = best | dict(tried=tried)
            per_seed[name] = [evaluated(cfg, ranked(set_score(head, best), found[1]))]
        samples = nearest_sentences(model.tower, [sample for sample, *_ in found[1]])
        per_seed = {NEAREST: [evaluated(cfg, samples)]} | per_seed
    return chosen, per_seed


def nearest_sentences(tower, samples: Sequence, top_n: int = 5) -> list:
    """The samples, with the spans of the sentences nearest to each of theirs by the tower.

    Those sentences are the ones that the features were made of.
    """
    described = read_annotations(ROOT / CORPUS / 'annotations/described.json')
    described = {video.video_id: video for video in described}
    for sample in samples:
        video = described[sample.video_id]
        problems = [problem for _, problem in tower.inspect(video.sentences)]
        known = [place for place, problem in enumerate(problems) if not problem]
        texts = tower.encode_sentences([video.sentences[place] for place in known])
        spans = torch.tensor(video.moments)[known]  # (s', 2)
        cosines = tower.encode_sentences(sample.sentences) @ texts.T  # (s, s')
        best = cosines.sort(dim=1, descending=True)
        missing = max(0, top_n - len(known))
        moments = torch.nn.functional.pad(spans[best.indices], (0, 0, 0, missing), value=torch.nan)
        scores = torch.nn.functional.pad(best.values, (0, missing), value=torch.nan)
        sample.pred_instances = InstanceData(moments=moments[:, :top_n], scores=scores[:, :top_n])
    return list(samples)


def render_captions(result: dict) -> str:
    """Figures on the test split, chance first."""
    per_seed = result['per_seed']
    rows = [[CHANCE, *spreads(per_seed[ALONE], [f'chance/{name}' for name in METRICS])]]
    rows += [[label, *spreads(found, METRICS)] for label, found in per_seed.items()]
    chosen = result['chosen']
    scores = []
    for name in SCORES:
        values = dict(chosen[name]['score'], length_weight=chosen[name]['length_weight'])
        values = [f'{key}={value}' for key, value in values.items() if key != 'type']
        scores.append(f'{name}: {", ".join(values)}')
    for name in (name for name, found in chosen.items() if 'head' in found and found.get('tried')):
        scores.append(f'{name}: {", ".join(f"{k}={v}" for k, v in chosen[name]["head"].items())}')
    return table(['test split, %', *map(title, METRICS)], rows) + (
        f'\n\nChosen on validation: {"; ".join(scores)}; of every training the best epoch.'
    )
