"""Figures of a dataset: what is counted, on which subsets, and the table of it."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmn_plugin.files import read_json
from mmn_plugin.structures import MomentGrid

from .recall import chance_level, mean_iou, ranked_iou, recall_of_iou


@dataclass
class GroundingResult:
    """Ground truth and ranked moments of all sentences of one video, on the CPU.

    Attributes:
        video_id (str): The video.
        duration (float): Its length in seconds.
        sentence_index (list[int]): s places in the annotation file's list.
        sentences (list[str]): s sentences.
        ground_truth (Tensor): (s, 2) float32 seconds.
        moments (Tensor): (s, n, 2) float32 seconds, best first, NaN where fewer.
        scores (Tensor): (s, n) float32, NaN likewise.
    """

    video_id: str
    duration: float
    sentence_index: list[int]
    sentences: list[str]
    ground_truth: Tensor
    moments: Tensor
    scores: Tensor

    def __post_init__(self):
        num = len(self.sentences)
        shapes = {
            'sentence_index': (len(self.sentence_index), num),
            'ground truth': (tuple(self.ground_truth.shape), (num, 2)),
            'moments': (tuple(self.moments.shape), (num, *self.moments.shape[1:2], 2)),
            'scores': (tuple(self.scores.shape), tuple(self.moments.shape[:2])),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise ValueError(
                    f'video {self.video_id!r} has {num} sentences, but its {name} '
                    f'have the shape {got} instead of {wanted}'
                )

    @property
    def key(self) -> tuple:
        """Identity of the dataset item: the same item evaluated twice has the same key."""
        return (self.video_id, tuple(self.sentence_index), tuple(self.sentences))

    @classmethod
    def from_data_sample(cls, sample: dict | BaseDataElement) -> 'GroundingResult':
        """Take what evaluation needs from a `GroundingDataSample` (or that as a dict).

        Raises:
            ValueError: If there are no predictions, or not one for every sentence.
        """
        if isinstance(sample, BaseDataElement):
            sample = sample.to_dict()
        if 'pred_instances' not in sample or 'gt_instances' not in sample:
            raise ValueError(
                f'video {sample.get("video_id")!r} reached the metric without '
                'pred_instances and gt_instances; run the model in mode="predict"'
            )
        prediction = sample['pred_instances']
        return cls(
            video_id=sample['video_id'],
            duration=float(sample['duration']),
            sentence_index=[int(index) for index in sample['sentence_index']],
            sentences=list(sample['sentences']),
            ground_truth=_plain(sample['gt_instances']['moments']),
            moments=_plain(prediction['moments']),
            scores=_plain(prediction['scores']),
        )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to('cpu', torch.float32)


@dataclass
class SummaryRow:
    """Figures of one group of sentences.

    Attributes:
        name (str): The group; empty for all sentences.
        num_sentences (int): Its size.
        figures (dict[str, float]): ``R1@0.5`` and so on, ``R1_mean`` (over the thresholds) and
            ``mIoU``, in percent.
    """

    name: str
    num_sentences: int
    figures: dict[str, float]


def flat_metrics(rows: Sequence[SummaryRow]) -> dict[str, float]:
    """Rows as one dict: ``R1@0.5`` of all sentences, ``<group>/R1@0.5`` of the others."""
    metrics = {}
    for row in rows:
        lead = f'{row.name}/' if row.name else ''
        metrics |= {f'{lead}{name}': value for name, value in row.figures.items()}
        if row.name != 'chance':
            # a float, because MMEngine writes an int to its log as null
            metrics[f'{lead}num_sentences'] = float(row.num_sentences)
    return metrics


def format_table(rows: Sequence[SummaryRow]) -> str:
    """Rows as a table in plain text, in percent."""
    table = Table(box=SIMPLE)
    table.add_column('sentences')
    for name in ('number', *rows[0].figures):
        table.add_column(name, justify='right', no_wrap=True)
    for row in rows:
        figures = [f'{value:.2f}' for value in row.figures.values()]
        table.add_row(row.name or 'all', str(row.num_sentences), *figures)
    console = Console(file=StringIO(), width=40 + 11 * len(rows[0].figures), color_system=None)
    console.print(table)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines() if line.strip())


class GroundingProtocol:
    """Turns results into figures, for the metric in the loop and for files of predictions alike.

    Figures depend on the set of results alone, not on their order.

    Args:
        top_n (Sequence[int]): The n of R@n. Defaults to (1, 5).
        iou_thrs (Sequence[float]): The m of IoU=m. Defaults to (0.3, 0.5, 0.7).
        duration_buckets (Sequence[float]): Inner edges between groups by length of the true moment;
            a length on an edge belongs to the longer group. Empty for none. Defaults to (10, 30).
        duration_unit (str): ``seconds``, or ``share`` of the video's duration. Defaults to seconds.
        subsets (dict | str, optional): Named groups reported apart, {name: {video id: [sentence
            index, ...]}}, or the path of a JSON file with that. The index counts the sentences of
            the annotation file, dropped ones too.
        chance (dict, optional): Adds the chance level of a model that ranks moments of this grid:
            ``num_clips``, ``pooling_counts`` and ``iou_threshold`` (of NMS), perhaps ``seed`` and
            ``min_samples`` (see `chance_level`).

    Raises:
        ValueError: For settings that make no sense.
        FileNotFoundError: If the file of subsets does not exist.
    """

    def __init__(
        self,
        top_n: Sequence[int] = (1, 5),
        iou_thrs: Sequence[float] = (0.3, 0.5, 0.7),
        duration_buckets: Sequence[float] = (10, 30),
        duration_unit: str = 'seconds',
        subsets: dict | str | None = None,
        chance: dict | None = None,
    ):
        if not top_n or min(top_n) < 1:
            raise ValueError(f'top_n={top_n}; give one n >= 1 or more')
        if not iou_thrs or not all(0 < thr <= 1 for thr in iou_thrs):
            raise ValueError(f'iou_thrs={iou_thrs}; give thresholds above 0 and up to 1')
        if duration_unit not in ('seconds', 'share'):
            raise ValueError(f'duration_unit={duration_unit!r}; it must be "seconds" or "share"')
        edges = [0, *duration_buckets]
        if edges != sorted(set(edges)):
            raise ValueError(
                f'duration_buckets={duration_buckets}; the edges must be above 0 and rise'
            )
        self.top_n, self.iou_thrs = tuple(top_n), tuple(iou_thrs)
        self.duration_buckets, self.duration_unit = tuple(duration_buckets), duration_unit
        self.subsets = _load_subsets(subsets)
        self.chance = _chance_settings(chance)
        self._chance_row: tuple[Tensor, SummaryRow] | None = None

    def evaluate(self, results: Sequence[GroundingResult]) -> list[SummaryRow]:
        """Figures of all sentences, of the groups that have any, and of chance.

        Args:
            results (Sequence[GroundingResult]): One per video, each sentence once.

        Returns:
            list[SummaryRow]: All sentences first.

        Raises:
            ValueError: If there is no sentence, or fewer moments per sentence than R@n asks for.
        """
        if not sum(len(result.sentences) for result in results):
            raise ValueError('there is no sentence to evaluate')
        results = sorted(results, key=lambda result: result.key)
        iou = self._ranked_iou(results)  # (S, max n)
        rows = [self._row('', iou)]
        groups = itertools.chain(self._bucket_masks(results), self._subset_masks(results))
        rows += [self._row(name, iou[mask]) for name, mask in groups if mask.any()]
        if self.chance:
            rows.append(self._chance(results))
        return rows

    def check(self, result: GroundingResult) -> None:
        """Raise ValueError unless the result ranks as many moments as R@n asks for."""
        if result.moments.shape[1] < max(self.top_n):
            raise ValueError(
                f'R@{max(self.top_n)} is asked for, but video {result.video_id!r} comes with '
                f'{result.moments.shape[1]} ranked moments per sentence; let the model keep more'
            )

    def _ranked_iou(self, results: list[GroundingResult]) -> Tensor:
        for result in results:
            self.check(result)
        moments = torch.cat([result.moments[:, : max(self.top_n)] for result in results])
        return ranked_iou(moments, torch.cat([result.ground_truth for result in results]))

    def _row(self, name: str, iou: Tensor) -> SummaryRow:
        table = recall_of_iou(iou, self.top_n, self.iou_thrs)
        return SummaryRow(name, len(iou), self._figures(table, mean_iou(iou)))

    def _figures(self, table: Tensor, miou: float) -> dict[str, float]:
        percent = (100 * table).tolist()
        figures = {
            f'R{n}@{thr:g}': percent[i][j]
            for i, n in enumerate(self.top_n)
            for j, thr in enumerate(self.iou_thrs)
        }
        means = {
            f'R{n}_mean': sum(percent[i]) / len(self.iou_thrs) for i, n in enumerate(self.top_n)
        }
        return {**figures, **means, 'mIoU': 100 * miou}

    def _bucket_masks(self, results: list[GroundingResult]):
        if not self.duration_buckets:
            return
        moments, durations = _ground_truth(results)
        length = moments[:, 1] - moments[:, 0]
        if self.duration_unit == 'share':
            length = length / durations
        unit = 's' if self.duration_unit == 'seconds' else '_of_video'
        edges = [0.0, *self.duration_buckets, torch.inf]
        for low, high in itertools.pairwise(edges):
            name = f'{low:g}-{high:g}{unit}' if high < torch.inf else f'from_{low:g}{unit}'
            yield name, (length >= low) & (length < high)

    def _subset_masks(self, results: list[GroundingResult]):
        place = [(result.video_id, index) for result in results for index in result.sentence_index]
        for name, videos in self.subsets.items():
            wanted = {(video, index) for video, indices in videos.items() for index in indices}
            absent = wanted.difference(place)
            if absent:
                video, index = min(absent)
                print_log(
                    f'{len(absent)} of the {len(wanted)} sentences of the subset {name!r} '
                    f'were not evaluated, the first: video {video!r}, sentence {index}',
                    logger='current',
                    level=logging.WARNING,
                )
            yield name, torch.tensor([key in wanted for key in place])

    def _chance(self, results: list[GroundingResult]) -> SummaryRow:
        moments, durations = _ground_truth(results)
        truth = torch.cat([moments, durations[:, None]], dim=1)  # (S, 3)
        # Every validation of a training asks for the same figures.
        if self._chance_row is None or not torch.equal(self._chance_row[0], truth):
            settings = dict(self.chance)
            grid = MomentGrid(settings.pop('num_clips'), settings.pop('pooling_counts'))
            table, miou = chance_level(
                moments, durations, grid, top_n=self.top_n, iou_thrs=self.iou_thrs, **settings
            )
            row = SummaryRow('chance', len(moments), self._figures(table, miou))
            self._chance_row = truth, row
        return self._chance_row[1]


def _ground_truth(results: list[GroundingResult]) -> tuple[Tensor, Tensor]:
    """Moments (S, 2) and durations (S,) of all sentences."""
    durations = [result.duration for result in results for _ in result.sentences]
    return torch.cat([result.ground_truth for result in results]), torch.tensor(durations)


def _load_subsets(subsets: dict | str | None) -> dict:
    if isinstance(subsets, str | Path):
        content = read_json(Path(subsets), f'file of subsets {subsets} does not exist', ValueError)
    else:
        content = subsets or {}
    well_formed = (
        isinstance(content, dict)
        and 'chance' not in content
        and all(
            isinstance(videos, dict)
            and all(isinstance(indices, list | tuple) for indices in videos.values())
            for videos in content.values()
        )
    )
    if not well_formed:
        source = subsets if isinstance(subsets, str | Path) else 'of the config'
        raise ValueError(
            f'subsets ({source}) must be {{name: {{video id: [index, ...]}}}} with no name "chance"'
        )
    return dict(content)


def _chance_settings(chance: dict | None) -> dict | None:
    if chance is None:
        return None
    needed, allowed = {'num_clips', 'pooling_counts', 'iou_threshold'}, {'seed', 'min_samples'}
    if not needed <= set(chance) <= needed | allowed:
        raise ValueError(
            f'chance={chance}; it needs {sorted(needed)} and may have {sorted(allowed)}'
        )
    return dict(chance)
