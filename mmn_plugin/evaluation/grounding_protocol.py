"""What is reported, and for which groups of sentences."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmn_plugin.structures import MomentGrid
from mmn_plugin.structures.read_json import read_json

from .functional import chance_level, mean_iou, ranked_iou, recall_of_iou
from .grounding_result import GroundingResult
from .summary_row import SummaryRow


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
