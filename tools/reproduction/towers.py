"""Small towers trained on Shapes: zero-shot, and MMN on their features, by kind of action."""

import json
import random
import shutil
import statistics
import sys
from contextlib import chdir
from itertools import product
from pathlib import Path

import numpy as np
import torch
from eval_library import compare_in_all_spaces
from mmaction.registry import MODELS
from mmengine.registry import init_default_scope
from PIL import Image

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import chance_level
from mmn_plugin.shapes import ACTIONS, OPPOSITES, say_opposites
from mmn_plugin.structures import MomentGrid, temporal_iou
from mmn_plugin.visualization.canvas import RUNS, new_figure, to_array

from .inference import DATA, split_of
from .running import ROOT, best_of, parsed, run, train
from .scores import compared, ranked, set_score, summarized
from .tables import CHANCE, spreads, table, title

TOWERS = dict(frames='frame tower', video='video tower')
MMN_CONFIG = 'configs/mmn_shapes_tower.py'
METRIC = 'R1@0.5'
THRESHOLDS = (0.3, 0.5, 0.7)
# What is tried on validation; weights are no less than 0, so that scores rise in every cosine.
LENGTHS = (-0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # of log(length)
SCORES = dict(
    mean=[dict()],
    contrast=[dict(weight=weight) for weight in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)],
    rise=[
        dict(rise=rise, steadiness=1 - mean, mean=mean)
        for rise, mean in product((0.0, 0.1, 0.25, 0.5, 1.0, 2.0), (0.0, 0.25, 0.5, 0.75, 1.0))
    ],
)
TOWER_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PICTURE = ROOT / 'docs' / 'images' / 'shapes_towers.png'


def shapes_towers(seeds: list[int]) -> dict:
    """Chance, each tower with each score and with shuffled words, and MMN on its features."""
    torch.set_num_threads(1)
    init_default_scope('mmaction')
    actions = actions_of('test')
    found = dict(towers={name: make_tower(name) for name in TOWERS})
    rows, chosen = {CHANCE: [chance_by_action(actions)]}, {}
    for name, label in TOWERS.items():
        head, looked = looked_at(zero_shot(name), 'val')
        chosen[name] = {kind: choose_score(head, looked, kind) for kind in SCORES}
        for words, rewrite in (('', None), (', shuffled words', shuffled)):
            head, looked = looked_at(zero_shot(name, rewrite), 'test')
            for kind, setting in chosen[name].items():
                score = figures(set_score(head, setting), looked, actions)
                rows[f'{label}, {kind}{words}'] = [score]
    found['opposites'] = {name: opposites(name) for name in TOWERS}
    for name, label in TOWERS.items():
        chosen[f'mmn_{name}'], rows_of = mmn(name, seeds, actions)
        for words, per_seed in rows_of.items():
            rows[f'MMN on the {label}{words}'] = per_seed
    found |= dict(chosen=chosen, rows=rows)
    draw(found, PICTURE)
    return found


def actions_of(split: str) -> dict[str, dict[str, list[int]]]:
    """Sentences of each kind of action, as subsets of `GroundingMetric`."""
    found: dict[str, dict] = {action: {} for action in ACTIONS}
    for video, entry in split_of(split).items():
        for place, event in enumerate(entry['events']):
            found[event.action].setdefault(video, []).append(place)
    return found


def make_tower(name: str) -> dict:
    """Train a tower and extract its features, unless both were done with the same settings.

    What the script said of it.
    """
    config = f'configs/shapes_towers/{name}.py'
    settings = load_config(ROOT / config)
    kept = {key: settings[key] for key in ('architecture', 'processor', 'training', 'extractor')}
    folder = ROOT / settings.extractor['model']
    record = folder / 'trained.json'
    known = json.loads(record.read_text()) if record.is_file() else {}
    if known.get('settings') != kept:
        shutil.rmtree(folder, ignore_errors=True)
        said = run(sys.executable, 'tools/data/train_shapes_towers.py', config).strip()
        known = dict(settings=kept, said=said.splitlines()[-1].partition(': ')[2])
        record.write_text(json.dumps(known))
    features, place = DATA / f'towers/{name}.h5', f'configs/zero_shot_shapes_{name}.py'
    command = ('extract', DATA / 'videos', '--config', place, '--out', features)
    run(sys.executable, '-m', 'mmn', *command)  # what is there is kept
    return known


def zero_shot(name: str, rewrite=None) -> tuple:
    """Config and model with all spaces of all scores."""
    cfg = load_config(ROOT / f'configs/zero_shot_shapes_{name}.py')
    cfg.model.tower.rewrite = rewrite
    with chdir(ROOT):
        model = MODELS.build(cfg.model).eval()
    compare_in_all_spaces(cfg, model, [dict(type=kind) for kind in SCORES])
    return cfg, model


def shuffled(sentence: str) -> str:
    """The words in another order, the same one each time."""
    words = sentence.split()
    random.Random(sentence).shuffle(words)
    return ' '.join(words)


def looked_at(built: tuple, split: str) -> tuple:
    """The head, and the split's videos as `compared` gives them."""
    cfg, model = built
    with chdir(ROOT):
        return model.head, compared(model, build_dataset(cfg, split))


def best_moments(head, looked: list[tuple]) -> float:
    """R@1 at IoU=0.5, in percent: without NMS, which leaves the best moment as it is."""
    hits = []
    for sample, video, cosines in looked:
        best = video.spans[head.fuse(cosines, video).argmax(1)]
        hits += (temporal_iou(best, sample.gt_instances.moments) >= 0.5).tolist()
    return 100 * statistics.fmean(hits)


def choose_score(head, looked: list[tuple], kind: str) -> dict:
    """The best weights and length correction of a score on these videos."""
    tried = []
    for weights, length in product(SCORES[kind], LENGTHS):
        setting = dict(score=dict(type=kind, **weights), length_weight=length)
        tried.append(setting | {METRIC: best_moments(set_score(head, setting), looked)})
    return max(tried, key=lambda setting: setting[METRIC]) | dict(settings_tried=len(tried))


def figures(head, looked: list[tuple], actions: dict) -> dict[str, float]:
    """The metrics of all sentences and of each action."""
    return summarized(ranked(head, looked), actions)


def chance_by_action(actions: dict) -> dict[str, float]:
    """The same of a random ranking."""
    cfg, videos, found = load_config(ROOT / MMN_CONFIG), split_of('test'), {}
    everything = {video: range(len(entry['sentences'])) for video, entry in videos.items()}
    for group, wanted in {'': everything, **actions}.items():
        if not wanted:
            continue
        places = [(videos[video], place) for video, chosen in wanted.items() for place in chosen]
        truth = torch.tensor([entry['timestamps'][place] for entry, place in places])
        durations = torch.tensor([entry['duration'] for entry, _ in places])
        (levels,), _ = chance_level(
            truth, durations, MomentGrid(**cfg.grid), cfg.nms_threshold, [1], THRESHOLDS
        )
        for threshold, level in zip(THRESHOLDS, levels.tolist(), strict=True):
            found[f'{group}/R1@{threshold}'.removeprefix('/')] = 100 * level
    return found


def opposites(name: str) -> dict[str, float]:
    """How often a true moment is nearer to its sentence than to that of the opposite motion.

    Both sentences are the same but for the motion, in percent of the test split's events; 50 is a
    guess. A moment is the one of the grid nearest to the true one.
    """
    cfg, model = zero_shot(name)
    _, looked = looked_at((cfg, model), 'test')
    hits: dict[str, list[bool]] = {}
    videos = split_of('test')
    for sample, video, _ in looked:
        for place, event in enumerate(videos[sample.video_id]['events']):
            if event.action not in OPPOSITES:
                continue
            truth = torch.tensor([[event.start, event.end]])
            moment = temporal_iou(truth, video.spans).argmax()
            texts = model.tower.encode_sentences(say_opposites(place, event))
            own, wrong = texts @ video.embeddings['tower'][moment]
            hits.setdefault(event.action, []).append(bool(own > wrong))
    return {action: 100 * statistics.fmean(right) for action, right in hits.items()}


def mmn(name: str, seeds: list[int], actions: dict) -> tuple[dict, dict[str, list]]:
    """MMN on a tower's features, alone and with the tower's space: chosen weight, and figures.

    Of a training the epoch is chosen for MMN alone, and then the weight of the space.
    """
    options, models = (*mmn_options(name), 'model.head.tower_weight=0.0'), {}
    for seed in seeds:
        work, _ = train(f'tower_{name}', seed, options, MMN_CONFIG, 1)
        cfg = load_config(ROOT / MMN_CONFIG, parsed(options) | {'model.head.tower_weight': 1.0})
        with chdir(ROOT):
            models[seed] = cfg, load_model(cfg, str(best_of(work)), 'cpu')
    tried = dict.fromkeys(TOWER_WEIGHTS, 0.0)
    for head, looked in (looked_at(model, 'val') for model in models.values()):
        for weight in TOWER_WEIGHTS:
            head.tower_weight = weight
            tried[weight] += best_moments(head, looked) / len(seeds)
    best = max(tried, key=tried.__getitem__)
    rows = {'': [], ' with its space': []}
    for seed, model in models.items():
        head, looked = looked_at(model, 'test')
        for row, weight in zip(rows.values(), (0.0, best), strict=True):
            head.tower_weight = weight
            row.append(dict(figures(head, looked, actions), seed=seed))
    return dict(
        tower_weight=best, tried={str(weight): hits for weight, hits in tried.items()}
    ), rows


def mmn_options(name: str) -> tuple[str, ...]:
    """Options of the config for the features of a tower; the config is for the video tower."""
    if name == 'video':
        return ()
    extractor = load_config(ROOT / f'configs/zero_shot_shapes_{name}.py').extractor
    settings = dict(clip_len=None) | extractor
    tower = [
        f'{place}.{key}={value}'
        for place in ('extractor', 'model.tower')
        for key, value in settings.items()
    ]
    features = [
        f'{split}_dataloader.dataset.data_prefix.features=towers/{name}.h5'
        for split in ('train', 'val', 'test')
    ]
    return (*tower, *features)


def draw(result: dict, path: Path) -> None:
    """The best score of each tower and MMN by action, and each tower between opposite motions."""
    rows, chosen = result['rows'], result['chosen']
    best = {
        f'{label}, zero-shot': f'{label}, {best_kind(chosen[name])}'
        for name, label in TOWERS.items()
    }
    bars = best | {'MMN on the video tower': 'MMN on the video tower with its space'}
    groups = dict(all=METRIC) | {action: f'{action}/{METRIC}' for action in ACTIONS}
    heights = [
        [statistics.fmean(seed[key] for seed in rows[row]) for key in groups.values()]
        for row in bars.values()
    ]
    (chance,) = rows[CHANCE]
    levels = [chance[key] for key in groups.values()]
    figure = new_figure(900, 560)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2))
    drawn = draw_bars(upper, list(groups), heights, levels)
    upper.set_ylabel('R@1, IoU=0.5 (%)')
    told = [[found[motion] for motion in OPPOSITES] for found in result['opposites'].values()]
    draw_bars(lower, list(OPPOSITES), told, [50] * len(OPPOSITES))
    lower.set_ylabel('told from its\nopposite (%)')
    figure.legend(drawn, [*bars, 'chance'], loc='outside upper center', ncols=4, frameon=False)
    Image.fromarray(to_array(figure)).save(path)


def draw_bars(axes, groups: list[str], heights: list[list[float]], levels: list[float]) -> list:
    """Bars side by side in each group, and its level of chance; all that was drawn."""
    places, width = np.arange(len(groups)), 0.8 / len(heights)
    drawn = []
    for number, row in enumerate(heights):
        shift = (number - (len(heights) - 1) / 2) * width
        drawn.append(axes.bar(places + shift, row, 0.92 * width, color=RUNS[number]))
    drawn.append(axes.hlines(levels, places - 0.42, places + 0.42, color='black', lw=1.5))
    axes.set_xticks(places, groups)
    axes.set_ylim(0, 100)
    axes.spines[['top', 'right']].set_visible(False)
    return drawn


def best_kind(chosen: dict) -> str:
    """The score that did best on validation."""
    return max(chosen, key=lambda kind: chosen[kind][METRIC])


def render_shapes_towers(result: dict) -> str:
    """Figures by action, motion against its opposite, and what was chosen on validation."""
    names = [f'R1@{threshold}' for threshold in THRESHOLDS]
    columns = [*names, *(f'{action}/{METRIC}' for action in ACTIONS)]
    rows = [[label, *spreads(seeds, columns)] for label, seeds in result['rows'].items()]
    header = ['test split, %', *map(title, names), *ACTIONS]
    text = table(header, rows) + '\n\nBy kind of action: R@1, IoU=0.5.\n\n'
    pairs = [*OPPOSITES]
    rows = [
        [TOWERS[name], *(f'{found[action]:.1f}' for action in pairs)]
        for name, found in result['opposites'].items()
    ]
    text += table(['told from its opposite, %', *pairs], rows) + '\n\n'
    rows = []
    for name, label in TOWERS.items():
        for kind, setting in result['chosen'][name].items():
            weights = {key: value for key, value in setting['score'].items() if key != 'type'}
            said = ', '.join(f'{key} {value:g}' for key, value in weights.items())
            length = f'{setting["length_weight"]:g}'
            rows.append([f'{label}, {kind}', said, length, f'{setting[METRIC]:.1f}'])
        space = result['chosen'][f'mmn_{name}']
        weight = f'tower_weight {space["tower_weight"]:g}'
        best = max(space['tried'].values())
        rows.append([f'MMN on the {label} with its space', weight, '', f'{best:.1f}'])
    header = ['chosen on validation', 'weights', 'length_weight', title(METRIC)]
    return text + table(header, rows)
