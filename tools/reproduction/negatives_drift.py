"""Why a queue of past embeddings does harm: they part from what the model gives now."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mmn_plugin.files import write_atomically
from mmn_plugin.visualization.canvas import QUIET, RUNS, new_figure, style_axes, to_array

from .captions import MMN, make_corpus
from .drift_probe import AGES
from .running import ROOT, WORK, train
from .tables import table

PICTURE = ROOT / 'docs' / 'images' / 'negatives_drift.png'
SEED, QUEUE, EPOCHS = 0, 512, 1
FEW = 896  # videos that fill the bank with weights frozen
QUEUED, LOCAL, FROZEN = f'queue of {QUEUE}', 'local negatives', 'weights frozen'
# So small a weight is below the rounding of float32: the bank is there to be looked at.
NO_WEIGHT = 1e-12
# the config, with the probe
PROBED = WORK / 'negatives_drift.py'
CONFIG = f"""_base_ = '../../{MMN}'
custom_imports = dict(imports=['mmn_plugin', 'reproduction.drift_probe'])
default_hooks = dict(drift=dict(type='DriftProbe', every=12))
train_cfg = dict(max_epochs={EPOCHS}, val_begin={EPOCHS + 1})
model = dict(head=dict(negatives=dict(queue_size={QUEUE})))
"""
TRAININGS = {
    QUEUED: (),
    LOCAL: (f'model.head.negatives.weight={NO_WEIGHT}',),
}
LOSSES = {
    'bank': 'what the bank holds',
    'fresh': 'its videos, embedded again',
    'shift undone': 'what it holds, its mean moved to where it is now',
    'batch': "the batch's own videos",
}
DRAWN = ('bank', 'fresh', 'shift undone')
KINDS = ('moments', 'sentences')


def negatives_drift() -> Iterator[dict]:
    """MMN on captions with a queue and without; then with the weights of the former frozen.

    The first epoch of the config's schedule, one seed. Each training is kept as it ends.
    """
    make_corpus()
    result = dict(seed=SEED, epochs=EPOCHS, queue=QUEUE, runs={})
    for label, options in TRAININGS.items():
        result['runs'][label] = probed(f'negatives_drift_{len(result["runs"])}', options)
        yield result
    trained = f'load_from={result["runs"][QUEUED]["checkpoint"]}'
    few = f'train_dataloader.dataset.indices={FEW}'
    options = (trained, 'optim_wrapper.optimizer.lr=0', few)
    result['runs'][FROZEN] = probed('negatives_drift_frozen', options)
    draw(result, PICTURE)
    yield result


def probed(name: str, options: tuple[str, ...]) -> dict:
    """A training's record, and what its probes found."""
    write_atomically(ROOT / PROBED, CONFIG)
    work, used = train(name, SEED, options, str(PROBED), 1)
    probes = json.loads((ROOT / work / 'drift.json').read_text())['probes']
    return dict(used, checkpoint=str(work / f'epoch_{EPOCHS}.pth'), probes=probes)


def probes_of(found: dict) -> list[dict]:
    """Those of a full bank."""
    return [probe for probe in found['probes'] if probe['ages']['age'] == list(AGES)]


def means(probes: list[dict], name: str) -> list[float]:
    """A figure by age, the mean of all probes."""
    values = [probe['ages'][name] for probe in probes]
    return [statistics.fmean(column) for column in zip(*values, strict=True)]


def draw(result: dict, path: Path) -> None:
    """Cosine by age; the mean cosine with the bank, and both trainings' losses, by step."""
    runs, figure = result['runs'], new_figure(1000, 720)
    (by_age, similarity), losses = figure.subplots(2, 2)
    losses[1].sharey(losses[0])
    for color, (label, found) in zip(RUNS, runs.items(), strict=False):
        for kind, line in zip(KINDS, ('-', '--'), strict=True):
            values = means(probes_of(found), f'{kind} cosine')
            by_age.plot(AGES, values, line, color=color, marker='.', label=f'{label}, {kind}')
    style_axes(by_age, 'age of the stored embedding, steps', 'cosine, stored and embedded again')
    for color, label in zip(RUNS, TRAININGS, strict=False):
        probes = probes_of(runs[label])
        steps = [probe['step'] for probe in probes]
        for name, line in (('bank', '-'), ('fresh', '--')):
            values = [probe['similarity'][name] for probe in probes]
            similarity.plot(steps, values, line, color=color, label=f'{label}: {LOSSES[name]}')
    style_axes(similarity, 'step', "sentences' mean cosine with moments of")
    for axes, label in zip(losses, TRAININGS, strict=True):
        probes = probes_of(runs[label])
        steps = [probe['step'] for probe in probes]
        for color, name in zip(RUNS[2:], DRAWN, strict=False):
            values = [probe['losses'][name] for probe in probes]
            axes.plot(steps, values, color=color, marker='.', label=LOSSES[name])
        style_axes(axes, 'step', 'contrastive losses against')
        axes.set_title(f'trained with {label}', fontsize=10, color=QUIET)
    for axes in (by_age, similarity, *losses):
        axes.legend(frameon=False, fontsize=8)
    Image.fromarray(to_array(figure)).save(path)


def told(result: dict) -> list[tuple[str, dict]]:
    """The probes that the table shows: the first of a full bank, some, and the last."""
    rows = []
    for label, found in result['runs'].items():
        full = probes_of(found)
        shown = full[:1] if label == FROZEN else [full[0], full[len(full) // 3], full[-1]]
        rows += [(label, probe) for probe in shown]
    return rows


def render_negatives_drift(result: dict) -> str:
    """Cosines, shares and losses at some steps of each training."""
    rows = []
    for label, probe in told(result):
        ages = probe['ages']
        cosines = [
            ' / '.join(f'{ages[f"{kind} cosine"][place]:.2f}' for place in (0, -1))
            for kind in KINDS
        ]
        share = ' / '.join(f'{100 * ages[f"{kind} common"][-1]:.0f}' for kind in KINDS)
        losses = [f'{probe["losses"][name]:.2f}' for name in LOSSES]
        side = f'{probe["similarity"]["fresh"]:.2f}'
        rows.append([label, probe['step'], *cosines, share, side, *losses])
    about = f'cosine, stored and embedded again, age {AGES[0]} / {AGES[-1]} steps'
    header = ['training', 'step', f'moments: {about}', f'sentences: {about}']
    header += [f'common part of the change, age {AGES[-1]}, moments / sentences, %']
    header += ["sentences' mean cosine with moments of its videos, embedded again"]
    header += [f'loss against {words}' for words in LOSSES.values()]
    return table(header, rows)
