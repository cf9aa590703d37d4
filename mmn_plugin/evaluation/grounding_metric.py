"""Metrics of ranked moments for MMEngine's evaluation loops."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS  # where MMAction2's finds them; `mmn eval` does without
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json, writable_file
from mmn_plugin.structures import MomentGrid

from .predictions import GroundingResult, write_predictions
from .recall import chance_level, format_table, mean_iou, ranked_iou, recall


class VideoResultsMetric(BaseMetric):
    """Base of metrics over videos with many sentences; every sentence counts once.

    `BaseMetric` cuts the collected results to the number of dataset items, which a dataset counts
    in videos: one result per sentence would lose most of them, so a result here is a video. The cut
    also assumes that what samplers repeat, to give every process as many videos, comes last. Here
    all results are kept and repeated ones are known by what they are. They are then sorted, so
    that nothing depends on the number of processes.

    Args:
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`.

    Attributes:
        result_type (type): What is kept of a video, by its ``from_data_sample``.
    """

    result_type = GroundingResult
    _dataset_size = 0

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, on the CPU.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Data samples as dicts, with predictions.
        """
        self.results.extend(map(self.result_type.from_data_sample, data_samples))

    def evaluate(self, size: int) -> dict:
        """Collect from all processes and compute.

        Args:
            size (int): Number of dataset items.

        Returns:
            dict: Metric names, prefixed, and values; the same on all processes.
        """
        total = torch.tensor(len(self.results))
        all_reduce(total)
        self._dataset_size = size
        return super().evaluate(int(total))

    def unique_results(self, results: Sequence) -> list:
        """Drop repeated results and sort; warn where the dataset has more items."""
        unique = {}
        for result in results:
            unique.setdefault(_item_key(result), result)
        missing = self._dataset_size - len(unique)
        if missing > 0:
            print_log(
                f"{missing} of the dataset's {self._dataset_size} items were not evaluated "
                '(or are in it twice); is drop_last set in the dataloader?',
                logger='current',
                level=logging.WARNING,
            )
        return [unique[key] for key in sorted(unique)]


def _item_key(result) -> tuple:
    """Identity of the dataset item: the same item evaluated twice has the same key."""
    return result.video_id, tuple(result.sentence_index), tuple(result.sentences)


class DumpMetric(VideoResultsMetric):
    """Base of metrics that write what they collect as JSON, and report no figures.

    Args:
        out_file_path (str): Path of the file; must end in ``.json``. Its folder is made.
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If the path does not end in ``.json``, or cannot be written.
    """

    default_prefix = 'dump'  # without a prefix a metric warns

    def __init__(self, out_file_path: str, **kwargs):
        super().__init__(**kwargs)
        if Path(out_file_path).suffix != '.json':
            raise InputError(
                f'{type(self).__name__} writes JSON: {out_file_path} must end in .json '
                '(for a pickle use DumpResults)'
            )
        writable_file(out_file_path)
        self.out_file_path = out_file_path


@METRICS.register_module()
class GroundingMetric(VideoResultsMetric):
    """Temporal grounding: share of sentences whose moment is found.

    Reported in percent, under ``grounding/``: ``R1@0.5`` (share of sentences for which the best
    moment has IoU >= 0.5 with the ground truth), ``R5@0.5`` (one of the best five), ``R1_mean``
    (mean over the thresholds), ``mIoU`` (mean IoU of the best moment), ``num_sentences``,
    ``num_videos``; the same for groups of sentences by length of the moment
    (``grounding/0-10s/R1@0.5``), for named subsets and for chance. A group without a sentence is
    left out. The log gets a table of all of it. Files of predictions are scored by `summarize`.

    Of a `JointDataset` each corpus is a group
    (``grounding/charades/R1@0.5``), and ``mean`` (``grounding/mean/R1@0.5``) is the mean of the
    corpora's figures, whatever their sizes; all sentences together are mostly the largest corpus'.

    Args:
        top_n (Sequence[int]): The n of R@n. Defaults to (1, 5).
        iou_thrs (Sequence[float]): The m of IoU=m. Defaults to (0.3, 0.5, 0.7).
        duration_buckets (Sequence[float]): Inner edges between groups by length of the true moment;
            a length on an edge belongs to the longer group. Empty for none. Defaults to (10, 30).
        duration_unit (str): ``seconds``, or ``share`` of the video. Defaults to ``seconds``.
        subsets (dict | str, optional): Named groups reported apart, {name: {video id: [sentence
            index, ...]}}, or the path of a JSON file with that. The index counts the sentences of
            the annotation file, dropped ones too.
        chance (dict, optional): Adds the chance level of a model that ranks moments of this grid:
            ``num_clips``, ``pooling_counts`` and ``iou_threshold`` (of NMS), perhaps ``seed`` and
            ``min_samples`` (see `chance_level`).
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
        self.subsets, self.chance = _load_subsets(subsets), _check_chance(chance)
        self._chance_figures: tuple[Tensor, dict[str, float]] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the figures of all sentences, without the prefix."""
        table = [f'R{n}@{thr:g}' for n in self.top_n for thr in self.iou_thrs]
        means = [f'R{n}_mean' for n in self.top_n]
        return [*table, *means, 'mIoU', 'num_sentences', 'num_videos']

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
        rows = self.summarize(self.unique_results(results))
        print_log(f'Grounding (percent)\n{format_table(rows)}', logger='current')
        return self.flatten(rows) | {'num_videos': float(len({r.video_id for r in results}))}

    def summarize(self, results: Sequence[GroundingResult]) -> dict[str, dict[str, float]]:
        """Figures of all sentences, of corpora, of the groups that have any, and of chance.

        They depend on the set of results alone, not on their order.

        Args:
            results (Sequence[GroundingResult]): One per video, each sentence once.

        Returns:
            dict[str, dict[str, float]]: Group (``''`` for all sentences, which come first) ->
            ``R1@0.5`` and so on, ``R1_mean``, ``mIoU``, in percent, and ``num_sentences``.

        Raises:
            ValueError: If there is no sentence, fewer moments per sentence than R@n asks for, or
                two groups of one name.
        """
        if not sum(len(result.sentences) for result in results):
            raise InputError('there is no sentence to evaluate')
        results = sorted(results, key=_item_key)
        truth = torch.cat([result.ground_truth for result in results])  # (S, 2)
        durations = torch.tensor([result.duration for result in results for _ in result.sentences])
        ranked = torch.cat([result.moments[:, : max(self.top_n)] for result in results])
        iou = ranked_iou(ranked, truth)  # (S, max n)
        rows = {'': self._of(iou), **self._corpora(results, iou)}
        for name, mask in (*self._lengths(truth, durations), *self._subsets(results)):
            if name in rows:
                raise InputError(f'subset {name!r} has the name of another group: rename it')
            if mask.any():
                rows[name] = self._of(iou[mask])
        if self.chance:
            rows['chance'] = self._chance(truth, durations)
        return rows

    @staticmethod
    def flatten(rows: dict[str, dict[str, float]]) -> dict[str, float]:
        """Rows as one dict: ``R1@0.5`` of all sentences, ``<group>/R1@0.5`` of the others."""
        return {
            f'{group}/{name}' if group else name: value
            for group, figures in rows.items()
            for name, value in figures.items()
            if (group, name) != ('chance', 'num_sentences')
        }

    def _of(self, iou: Tensor) -> dict[str, float]:
        return self._figures(recall(iou, self.top_n, self.iou_thrs), mean_iou(iou), len(iou))

    def _figures(self, table: Tensor, miou: float, number: int) -> dict[str, float]:
        percent = (100 * table).tolist()
        values = [value for row in percent for value in row]
        means = [sum(row) / len(row) for row in percent]
        # a float, because MMEngine writes an int to its log as null
        return dict(zip(self.names, [*values, *means, 100 * miou, float(number)], strict=False))

    def _corpora(self, results: list[GroundingResult], iou: Tensor) -> dict[str, dict[str, float]]:
        """Rows of the corpora and of their mean; none where no result names its corpus."""
        corpus = [result.corpus for result in results for _ in result.sentences]  # S names
        rows = {
            name: self._of(iou[torch.tensor([own == name for own in corpus])])
            for name in sorted({*corpus} - {None})
        }
        if not rows:
            return {}
        names = rows[min(rows)]
        mean = {name: sum(row[name] for row in rows.values()) / len(rows) for name in names}
        return {**rows, 'mean': mean | {'num_sentences': float(len(corpus))}}

    def _lengths(self, truth: Tensor, durations: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Groups by length of the true moment: name and mask (S,)."""
        if not self.duration_buckets:
            return
        length, unit = truth[:, 1] - truth[:, 0], 's'
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
        key = torch.cat([truth, durations[:, None]], dim=1)  # (S, 3)
        # Every validation of a training asks for the same figures.
        if self._chance_figures is None or not torch.equal(self._chance_figures[0], key):
            settings = dict(self.chance)
            grid = MomentGrid(settings.pop('num_clips'), settings.pop('pooling_counts'))
            settings |= dict(top_n=self.top_n, iou_thrs=self.iou_thrs)
            table, miou = chance_level(truth, durations, grid, **settings)
            self._chance_figures = key, self._figures(table, miou, len(truth))
        return self._chance_figures[1]


def _load_subsets(subsets: dict | str | None) -> dict:
    content, where = subsets or {}, 'of the config'
    if isinstance(subsets, str | Path):
        content, where = (
            read_json(Path(subsets), f'no file of subsets {subsets}', InputError),
            subsets,
        )
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


@METRICS.register_module()
class DumpPredictions(DumpMetric):
    """Writes the ranked moments of every sentence to a file that can be scored without the model.

    The format is in docs/predictions.md; `mmn eval` scores it and
    finds exactly the figures of `GroundingMetric`. MMEngine's ``DumpResults`` writes pickles.
    Arguments are those of `DumpMetric`.

    A file belongs to one annotation file: of datasets that have a ``corpus`` each corpus gets a
    file of its own, ``FILE_CORPUS.json``, with the ids of its annotations.
    """

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
