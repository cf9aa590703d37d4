"""How far a memory bank's embeddings part from fresh ones of the same videos, and what that does.

A hook of a training with ``tools/train.py``; the config has to import ``reproduction.drift_probe``.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from mmn_plugin.datasets.grounding_dataset import stack_videos
from mmn_plugin.engine.dist import bare_model, persistent_buffers
from mmn_plugin.files import write_json
from mmn_plugin.models import Candidates, MemoryBank, NegativePool, Negatives
from mmn_plugin.models.heads.base_head import unit_vectors

SPACE = 'contrastive'
AGES = (1, 2, 4, 8, 16)  # steps


@HOOKS.register_module()
class DriftProbe(Hook):
    """Embed the videos of the memory bank again, now and then, and write `drift` to ``drift.json``.

    It changes nothing of the training: it draws no random numbers, takes no gradient, and leaves
    BatchNorm's running statistics as they were. For one process, without accumulation.

    Args:
        every (int): Steps between two probes. Defaults to 25.
    """

    def __init__(self, every: int = 25):
        self.every = every
        self.batches: list[list[str]] = []  # ids of the videos of every step
        self.probes: list[dict] = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Look at the bank that the step will use."""
        if runner.iter == 0 or runner.iter % self.every:
            return
        model, dataset = bare_model(runner), runner.train_dataloader.dataset
        before = {name: buffer.clone() for name, buffer in persistent_buffers(model).items()}
        batch = model.data_preprocessor(data_batch, True)
        found = drift(model, dataset, batch, self.batches)
        for name, buffer in persistent_buffers(model).items():
            buffer.copy_(before[name])
        self.probes.append(dict(step=runner.iter, **found))
        write_json(dict(probes=self.probes), Path(runner.work_dir) / 'drift.json')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Note what enters the bank."""
        self.batches.append([sample.video_id for sample in data_batch['data_samples']])


@torch.no_grad()
def drift(model, dataset, batch: dict, batches: list[list[str]]) -> dict:
    """What the bank holds beside what the model would give for the same videos now.

    They are embedded again in the batches that they were stored from, since BatchNorm normalizes
    a batch by its own statistics.

    Args:
        model (MMN): In training, its bank not empty.
        dataset (TemporalGroundingDataset): That of the training.
        batch (dict): The next batch, after the data preprocessor.
        batches (list[list[str]]): Ids of the videos of each step so far.

    Returns:
        dict: ``ages`` (`by_age`); ``losses``, of the batch with negatives of the ``bank`` alone, of
        ``fresh`` embeddings of its videos, of the bank with ``shift undone``, and of the ``batch``
        itself, each the sum of both directions; ``similarity``, mean cosine of the batch's
        sentences with the ``bank``'s moments and with ``fresh`` ones.
    """
    source = model.head.negatives
    source.settle()
    stored = source.bank.candidates(batch['inputs'].device)
    fresh = embedded_again(model, dataset, stored, batches, source.bank.size)
    steps = np.repeat(range(len(batches)), [*map(len, batches)])
    ages = len(batches) - in_slots(steps, source.bank.size)
    embeddings, texts = model(**batch, mode='tensor')
    against = {
        'bank': stored,
        'fresh': fresh,
        'shift undone': without_shift(stored, fresh, ages),
        'batch': None,
    }
    losses = {
        name: loss_against(model.head, others, embeddings, texts, batch)
        for name, others in against.items()
    }
    sentences = unit_vectors(texts)[SPACE].mean(0)  # (J,)
    similarity = {
        name: float(sentences @ against[name].moments.mean((0, 1))) for name in ('bank', 'fresh')
    }
    return dict(ages=by_age(stored, fresh, ages), losses=losses, similarity=similarity)


def in_slots(values: np.ndarray, size: int) -> np.ndarray:
    """Of all that ever entered a ring of this size what is in it, by slot."""
    kept = np.arange(len(values))[-size:]
    found = np.empty(len(kept), dtype=np.int64)
    found[kept % size] = values[kept]
    return found


def embedded_again(
    model, dataset, stored: Candidates, batches: list[list[str]], size: int
) -> Candidates:
    """The bank's videos and sentences with the embeddings that the model gives now."""
    place = {dataset.get_data_info(row)['video_id']: row for row in range(len(dataset))}
    ends = np.cumsum([len(names) for names in batches])
    first = int(np.searchsorted(ends, ends[-1] - size, side='right'))  # some of it are in the bank
    bank = MemoryBank(size)
    bank.next_slot = int(ends[first - 1]) % size if first else 0
    for names in batches[first:]:
        batch = model.data_preprocessor(stack_videos([dataset[place[name]] for name in names]))
        moments, sentences = (unit_vectors(each)[SPACE] for each in model(**batch, mode='tensor'))
        bank.push(model.head.candidates(moments, sentences, batch['data_samples']))
    fresh = bank.candidates(stored.moments.device)
    if fresh.video_ids != stored.video_ids:
        raise RuntimeError('the bank holds other videos than those of the last steps')
    return replace(stored, moments=fresh.moments, sentences=fresh.sentences)


def rows_by_age(stored: Candidates, fresh: Candidates, ages: np.ndarray, age: int) -> dict:
    """Places of the moments' videos and of the sentences of this age."""
    videos = torch.from_numpy(ages == age)
    return dict(moments=videos, sentences=videos[torch.from_numpy(stored.sentence_video)])


def by_age(stored: Candidates, fresh: Candidates, ages: np.ndarray) -> dict[str, list[float]]:
    """Of the bank's videos of some ages in steps, for moments and for sentences.

    Returns:
        dict[str, list[float]]: ``age``, and with ``moments`` and ``sentences`` before it
        ``cosine``, the mean of stored with fresh embeddings, and ``common``, the square of their
        mean difference as a share of the mean square of their differences.
    """
    found: dict[str, list[float]] = dict(age=[])
    for age in (age for age in AGES if (ages == age).any()):
        found['age'].append(age)
        for name, rows in rows_by_age(stored, fresh, ages, age).items():
            before, now = (getattr(each, name)[rows].flatten(0, -2) for each in (stored, fresh))
            change = now - before  # (n, J)
            common = change.mean(0).square().sum() / change.square().sum(-1).mean().clamp(min=1e-12)
            cosine = cosine_similarity(before.double(), now.double(), dim=-1).mean()
            found.setdefault(f'{name} cosine', []).append(float(cosine))
            found.setdefault(f'{name} common', []).append(float(common))
    return found


def without_shift(stored: Candidates, fresh: Candidates, ages: np.ndarray) -> Candidates:
    """Stored embeddings, the mean of those of each age moved to where it is now."""
    moved = stored.map(Tensor.clone)
    for age in np.unique(ages).tolist():
        for name, rows in rows_by_age(stored, fresh, ages, age).items():
            before, now = (getattr(each, name)[rows].flatten(0, -2) for each in (stored, fresh))
            shift = (now - before).mean(0)  # (J,)
            getattr(moved, name)[rows] = normalize(getattr(stored, name)[rows] + shift, dim=-1)
    return moved


class Against(nn.Module):
    """A head's ``negatives`` that are these candidates alone; None means the batch itself."""

    def __init__(self, candidates: Candidates | None):
        super().__init__()
        self.given = candidates

    def collect(self, own: Candidates, *_) -> Negatives:
        """As of `NegativeSource`."""
        if self.given is None:
            return Negatives([NegativePool.of(own, own, (0, 0))])
        return Negatives([NegativePool.of(self.given, own)])


def loss_against(
    head, candidates: Candidates | None, embeddings: dict, texts: dict, batch: dict
) -> float:
    """Both contrastive losses of a batch, added, without their weight."""
    source, head.negatives = head.negatives, Against(candidates)
    try:
        losses = head.loss(embeddings, texts, batch['sentences'].video, batch['data_samples'])
    finally:
        head.negatives = source
    weight = head.contrastive_weight * head.contrastive_factor
    return float(losses['loss_vid'] + losses['loss_sent']) / weight
