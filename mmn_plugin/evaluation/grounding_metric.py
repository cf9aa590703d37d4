"""Metrics of ranked moments for MMEngine's evaluation loops."""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import METRICS  # where MMAction2's finds them; `mmn eval` does without
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json
from mmn_plugin.structures import MomentGrid, padded_windows, true_windows
from mmn_plugin.structures.json_lines import is_number

from .base_metric import DumpMetric, VideoResultsMetric, item_key
from .predictions import GroundingResult, write_predictions
from .presence import Presence
from .recall import (
    PRECISION_WINDOWS,
    chance_level,
    format_table,
    mean_iou,
    ranked_iou,
    ranked_precision,
    recall,
)


@METRICS.register_module()
class GroundingMetric(VideoResultsMetric):
    """Temporal grounding: share of sentences whose moment is found.

    Reported in percent, under ``grounding/``: ``R1@0.5`` (share of sentences for which the best
    moment has IoU >= 0.5 with the ground truth), ``R5@0.5`` (one of the best five), ``R1_mean``
    (mean over the thresholds), ``mIoU`` (mean IoU of the best moment), ``num_sentences``,
    ``num_videos``; the same for groups of sentences by length of the moment
    (``grounding/0-10s/R1@0.5``), for named subsets and for chance. A group without a sentence is
    left out. The log gets a table of all of it. Files of predictions are scored by `summarize`.

    A moment's IoU is that with the window of its sentence that it fits best. Where a sentence has
    several windows, ``mAP`` is reported as well, as QVHighlights defines it (see
    `average_precision`): the mean over IoU 0.5, 0.55, ..., 0.95, and ``mAP@0.5``, ``mAP@0.75``.

    Sentences that do not occur are left out of all that. Where there are any, ``absent/`` has
    ``num_sentences``, ``AUROC`` of presence, ``rejected`` (share of them that is rejected),
    ``kept`` (share of the present sentences that is not) and ``accuracy``, the mean of the two; the
    same of corpora and subsets (``grounding/NAME/absent/AUROC``). A sentence is rejected if it has
    no moment, or its presence is below the threshold. The presence is that of the predictions, or
    without it the score of the best moment; the log says which.

    Of a `JointDataset` each corpus is a group
    (``grounding/charades/R1@0.5``), and ``mean`` (``grounding/mean/R1@0.5``) is the mean of the
    corpora's figures, whatever their sizes; all sentences together are mostly the largest corpus'.

    Args:
        top_n (Sequence[int]): The n of R@n. Defaults to (1, 5).
        iou_thrs (Sequence[float]): The m of IoU=m. Defaults to (0.3, 0.5, 0.7).
        duration_buckets (Sequence[float]): Inner edges between groups by length of the true moment;
            a length on an edge belongs to the longer group, and a sentence to that of its longest
            window. Empty for none. Defaults to (10, 30).
        duration_unit (str): ``seconds``, or ``share`` of the video. Defaults to ``seconds``.
        subsets (dict | str, optional): Named groups reported apart, {name: {video id: [sentence
            index, ...]}}, or the path of a JSON file with that. The index counts the sentences of
            the annotation file, dropped ones too.
        chance (dict, optional): Adds the chance level of a model that ranks moments of this grid:
            ``num_clips``, ``pooling_counts`` and ``iou_threshold`` (of NMS), perhaps ``seed`` and
            ``min_samples`` (see `chance_level`).
        average_precision (bool): Report mAP also where every sentence has one window; needed where
            ``save_best`` names it. Defaults to False.
        presence_threshold (float, optional): Presence below which a sentence is rejected. Defaults
            to None: only sentences without a moment are.
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`; ``prefix`` defaults to
            ``grounding``.

    Raises:
        ValueError: For settings that make no sense.
        FileNotFoundError: If the file of subsets does not exist.
    """

    default_prefix = 'grounding'

    def __init__(
        self,
        top_n: Sequence[int] = (1, 5),
        iou_thrs: Sequence[float] = (0.3, 0.5, 0.7),
        duration_buckets: Sequence[float] = (10, 30),
        duration_unit: str = 'seconds',
        subsets: dict | str | None = None,
        chance: dict | None = None,
        average_precision: bool = False,
        presence_threshold: float | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not top_n or min(top_n) < 1:
            raise InputError(f'top_n={top_n}; give one n >= 1 or more')
        if not iou_thrs or not all(0 < thr <= 1 for thr in iou_thrs):
            raise InputError(f'iou_thrs={iou_thrs}; give thresholds above 0 and up to 1')
        if duration_unit not in ('seconds', 'share'):
            raise InputError(f'duration_unit={duration_unit!r}; it must be "seconds" or "share"')
        edges = [0, *duration_buckets]
        if edges != sorted(set(edges)):
            raise InputError(
                f'duration_buckets={duration_buckets}; the edges must be above 0 and rise'
            )
        self.top_n, self.iou_thrs = tuple(top_n), tuple(iou_thrs)
        self.duration_buckets, self.duration_unit = tuple(duration_buckets), duration_unit
        if presence_threshold is not None and not is_number(presence_threshold):
            raise InputError(f'presence_threshold={presence_threshold!r}; give a finite number')
        self.subsets, self.chance = _load_subsets(subsets), _check_chance(chance)
        self.average_precision, self.presence_threshold = average_precision, presence_threshold
        self._chance_figures: tuple[Tensor, dict[str, float]] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the figures of all sentences, without the prefix."""
        table = [f'R{n}@{thr:g}' for n in self.top_n for thr in self.iou_thrs]
        means = [f'R{n}_mean' for n in self.top_n]
        precision = _PRECISION if self.average_precision else ()
        return [*table, *means, 'mIoU', *precision, 'num_sentences', 'num_videos']

    @property
    def num_ranks(self) -> int:
        """How many ranked moments of a sentence the figures look at, at most."""
        return max(*self.top_n, PRECISION_WINDOWS)

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, on the CPU.

        Raises:
            ValueError: If a video has fewer ranked moments than R@n asks for, or no predictions.
        """
        num_before = len(self.results)
        super().process(data_batch, data_samples)
        for result in self.results[num_before:]:
            if result.moments.shape[1] < max(self.top_n):
                raise InputError(
                    f'R@{max(self.top_n)} is asked for, but video {result.video_id!r} comes with '
                    f'{result.moments.shape[1]} ranked moments per sentence; let the model keep '
                    'more'
                )

    def compute_metrics(self, results: list[GroundingResult]) -> dict:
        """Figures of all videos, and a table of them in the log."""
        results = self.unique_results(results)
        rows = self.summarize(results)
        for note in self.notes(results):
            print_log(note, logger='current')
        print_log(f'Grounding (percent)\n{format_table(rows)}', logger='current')
        return self.flatten(rows) | {'num_videos': float(len({r.video_id for r in results}))}

    def summarize(self, results: Sequence[GroundingResult]) -> dict[str, dict[str, float]]:
        """Figures of all sentences, of corpora, of the groups that have any, and of chance.

        They depend on the set of results alone, not on their order.

        Args:
            results (Sequence[GroundingResult]): One per video, each sentence once.

        Returns:
            dict[str, dict[str, float]]: Group (``''`` for all sentences, which come first) ->
            ``R1@0.5`` and so on, ``R1_mean``, ``mIoU``, in percent, and ``num_sentences``; of
            sentences that do not occur ``absent``, ``GROUP/absent`` -> see the class.

        Raises:
            ValueError: If there is no sentence, fewer moments per sentence than R@n asks for, or
                two groups of one name.
        """
        if not sum(len(result.sentences) for result in results):
            raise InputError('there is no sentence to evaluate')
        results = sorted(results, key=item_key)
        judged = self._judge(results)
        durations = torch.tensor([result.duration for result in results for _ in result.sentences])
        rows = self._rows('', torch.ones_like(judged.absent), judged)
        rows |= self._corpora(results, judged)
        for name, mask in (*self._lengths(judged.truth, durations), *self._subsets(results)):
            own = self._rows(name, mask, judged)
            for other in rows.keys() & {name, *own}:
                raise InputError(f'subset {other!r} has the name of another group: rename it')
            rows |= own
        here = ~judged.absent
        if self.chance and here.any():
            rows['chance'] = self._chance(judged.truth[here], durations[here])
        return rows

    def notes(self, results: Sequence[GroundingResult]) -> list[str]:
        """What a reader of the figures should know about the predictions."""
        notes = []
        if self._has_precision(results):
            counts = [(~result.moments[..., 0].isnan()).sum(1) for result in results]
            longest = int(torch.cat(counts).max())
            if longest < PRECISION_WINDOWS:
                notes.append(
                    f'mAP takes the first {PRECISION_WINDOWS} moments of a sentence; the most that '
                    f'one has is {longest}'
                )
        if any(not len(own) for result in results for own in result.windows):
            notes += Presence.of(results).notes(self.presence_threshold)
        elif self.presence_threshold is not None:
            notes.append('the threshold of presence is not used: every sentence occurs')
        return notes

    @staticmethod
    def flatten(rows: dict[str, dict[str, float]]) -> dict[str, float]:
        """Rows as one dict: ``R1@0.5`` of all sentences, ``<group>/R1@0.5`` of the others."""
        return {
            f'{group}/{name}' if group else name: value
            for group, figures in rows.items()
            for name, value in figures.items()
            if (group, name) != ('chance', 'num_sentences')
        }

    def _has_precision(self, results: Sequence[GroundingResult]) -> bool:
        several = (len(own) > 1 for result in results for own in result.windows)
        return self.average_precision or any(several)

    def _judge(self, results: list[GroundingResult]) -> '_Judged':
        truth = padded_windows([own for result in results for own in result.windows])
        ranked = torch.cat([result.moments[:, : max(self.top_n)] for result in results])
        precision = presence = None
        if self._has_precision(results):
            longer = torch.cat([result.moments[:, :PRECISION_WINDOWS] for result in results])
            precision = ranked_precision(longer, truth)
        absent = truth.isnan().flatten(1).all(1)
        if absent.any():
            presence = Presence.of(results)
        return _Judged(truth, ranked_iou(ranked, truth), precision, absent, presence)

    def _rows(self, name: str, group: Tensor, judged: '_Judged') -> dict[str, dict[str, float]]:
        """Row of a group (S,) of sentences and that of its absent ones, as far as it has any."""
        rows, here = {}, group & ~judged.absent
        if here.any():
            table = recall(judged.iou[here], self.top_n, self.iou_thrs)
            figures = self._figures(table, mean_iou(judged.iou[here]))
            if judged.precision is not None:
                figures |= _precision_figures(judged.precision[here.numpy()])
            # a float, because MMEngine writes an int to its log as null
            rows[name] = figures | {'num_sentences': float(here.sum())}
        if judged.presence is not None and (group & judged.absent).any():
            own = judged.presence.figures(judged.absent, group, self.presence_threshold)
            rows[f'{name}/absent' if name else 'absent'] = own
        return rows

    def _figures(self, table: Tensor, miou: float) -> dict[str, float]:
        percent = (100 * table).tolist()
        values = [value for row in percent for value in row]
        means = [sum(row) / len(row) for row in percent]
        return dict(zip(self.names, [*values, *means, 100 * miou], strict=False))

    def _corpora(
        self, results: list[GroundingResult], judged: '_Judged'
    ) -> dict[str, dict[str, float]]:
        """Rows of the corpora and of their mean; none where no result names its corpus."""
        corpus = [result.corpus for result in results for _ in result.sentences]  # S names
        rows: dict[str, dict[str, float]] = {}
        names = sorted({*corpus} - {None})
        for name in names:
            rows |= self._rows(name, torch.tensor([own == name for own in corpus]), judged)
        found = [rows[name] for name in names if name in rows]
        if found:
            mean = {name: sum(row[name] for row in found) / len(found) for name in found[0]}
            rows['mean'] = mean | {'num_sentences': float((~judged.absent).sum())}
        return rows

    def _lengths(self, truth: Tensor, durations: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Groups by length of the longest window: name and mask (S,)."""
        if not self.duration_buckets:
            return
        lengths, unit = truth[..., 1] - truth[..., 0], 's'  # (S, M)
        length = lengths.nan_to_num(nan=-1.0).amax(1)  # in no group where there is none
        if self.duration_unit == 'share':
            length, unit = length / durations, '_of_video'
        for low, high in itertools.pairwise([0.0, *self.duration_buckets, torch.inf]):
            name = f'{low:g}-{high:g}{unit}' if high < torch.inf else f'from_{low:g}{unit}'
            yield name, (length >= low) & (length < high)

    def _subsets(self, results: list[GroundingResult]) -> Iterator[tuple[str, Tensor]]:
        """Named groups: name and mask (S,)."""
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

    def _chance(self, truth: Tensor, durations: Tensor) -> dict[str, float]:
        key = torch.cat([truth.flatten(1).nan_to_num(nan=-1.0), durations[:, None]], dim=1)
        # Every validation of a training asks for the same figures.
        if self._chance_figures is None or not torch.equal(self._chance_figures[0], key):
            settings = dict(self.chance)
            grid = MomentGrid(settings.pop('num_clips'), settings.pop('pooling_counts'))
            settings |= dict(top_n=self.top_n, iou_thrs=self.iou_thrs)
            table, miou = chance_level(truth, durations, grid, **settings)
            figures = self._figures(table, miou) | {'num_sentences': float(len(truth))}
            self._chance_figures = key, figures
        return self._chance_figures[1]


@dataclass
class _Judged:
    """S sentences, judged.

    Attributes:
        truth (Tensor): (S, M, 2) true windows in seconds, NaN where fewer than M.
        iou (Tensor): (S, n) of `ranked_iou`.
        precision (np.ndarray | None): (S, 10) of `ranked_precision`; None where it is not reported.
        absent (Tensor): (S,) bool, which do not occur.
        presence (Presence | None): None where all do.
    """

    truth: Tensor
    iou: Tensor
    precision: np.ndarray | None
    absent: Tensor
    presence: Presence | None


_PRECISION = {'mAP': slice(None), 'mAP@0.5': 0, 'mAP@0.75': 5}  # thresholds of each


def _precision_figures(precision: np.ndarray) -> dict[str, float]:
    """Percent of (S, 10); the exactly rounded sum over S, so that no order changes it."""
    means = np.array([math.fsum(column) for column in precision.T.tolist()]) / len(precision)
    return {name: 100 * float(means[at].mean()) for name, at in _PRECISION.items()}


def _load_subsets(subsets: dict | str | None) -> dict:
    content, where = subsets or {}, 'of the config'
    if isinstance(subsets, str | Path):
        where = subsets
        content = read_json(Path(subsets), f'no file of subsets {subsets}', InputError)
    if not (
        isinstance(content, dict)
        and 'chance' not in content
        and all(isinstance(videos, dict) for videos in content.values())
        and all(isinstance(i, list | tuple) for videos in content.values() for i in videos.values())
    ):
        raise InputError(
            f'subsets ({where}) must be {{name: {{video id: [index, ...]}}}} with no name "chance"'
        )
    return dict(content)


def _check_chance(chance: dict | None) -> dict | None:
    needed, allowed = {'num_clips', 'pooling_counts', 'iou_threshold'}, {'seed', 'min_samples'}
    if chance is not None and not needed <= set(chance) <= needed | allowed:
        raise InputError(
            f'chance={chance}; it needs {sorted(needed)} and may have {sorted(allowed)}'
        )
    return chance


class _Answers(GroundingResult):
    """A result that may be of sentences without truth, and then has no window."""

    @classmethod
    def from_data_sample(cls, sample: dict) -> GroundingResult:
        unknown = true_windows([[]] * len(sample['sentences']))
        return super().from_data_sample({'gt_instances': unknown, **sample})


@METRICS.register_module()
class DumpPredictions(DumpMetric):
    """Writes the ranked moments of every sentence to a file that can be scored without the model.

    The format is in docs/predictions.md; `mmn eval` scores it and
    finds exactly the figures of `GroundingMetric`. MMEngine's ``DumpResults`` writes pickles.
    Arguments are those of `DumpMetric`.

    A file belongs to one annotation file: of datasets that have a ``corpus`` each corpus gets a
    file of its own, ``FILE_CORPUS.json``, with the ids of its annotations. Nothing need be known of
    when the sentences are true.
    """

    result_type = _Answers

    def compute_metrics(self, results: list[GroundingResult]) -> dict:
        """Write the files; there are no figures."""
        for corpus, group in itertools.groupby(self.unique_results(results), lambda r: r.corpus):
            path, own = Path(self.out_file_path), list(group)
            if corpus is not None:
                path = path.with_stem(f'{path.stem}_{corpus}')
                own = [replace(r, video_id=r.video_id.removeprefix(f'{corpus}/')) for r in own]
            write_predictions(path, own)
            print_log(
                f'Predictions for {sum(len(result.sentences) for result in own)} sentences '
                f'written to {path}',
                logger='current',
            )
        return {}
