"""Metrics of ranked moments for MMEngine's evaluation loops."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmaction.registry import METRICS
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmn_plugin.files import writable_file

from .predictions import write_predictions
from .protocol import GroundingProtocol, GroundingResult, flat_metrics, format_table


class VideoResultsMetric(BaseMetric):
    """Base of metrics over videos with many sentences; every sentence counts once.

    `BaseMetric` cuts the collected results to the number of dataset items, which a dataset counts
    in videos: one result per sentence would lose most of them, so a result here is a video. The cut
    also assumes that what samplers repeat, to give every process as many videos, comes last. Here
    all results are kept and repeated ones are known by what they are. They are then sorted, so
    that nothing depends on the number of processes.

    Args:
        collect_device (str): ``cpu`` or ``gpu``. Defaults to ``cpu``.
        prefix (str, optional): Put before the metric names. Defaults to the class's own.
        collect_dir (str, optional): Folder shared by all processes, for ``cpu``.
    """

    _dataset_size = 0

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, on the CPU.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): `GroundingDataSample` as dicts, with predictions.
        """
        self.results.extend(map(GroundingResult.from_data_sample, data_samples))

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

    def unique_results(self, results: Sequence[GroundingResult]) -> list[GroundingResult]:
        """Drop repeated results and sort; warn where the dataset has more items."""
        unique = {}
        for result in results:
            unique.setdefault(result.key, result)
        missing = self._dataset_size - len(unique)
        if missing > 0:
            print_log(
                f"{missing} of the dataset's {self._dataset_size} items were not evaluated "
                '(or are in it twice); is drop_last set in the dataloader?',
                logger='current',
                level=logging.WARNING,
            )
        return [unique[key] for key in sorted(unique)]


@METRICS.register_module()
class GroundingMetric(VideoResultsMetric):
    """Temporal grounding: share of sentences whose moment is found.

    Reported in percent, under ``grounding/``: ``R1@0.5`` (share of sentences for which the best
    moment has IoU >= 0.5 with the ground truth), ``R5@0.5`` (one of the best five), ``R1_mean``
    (mean over the thresholds), ``mIoU`` (mean IoU of the best moment), ``num_sentences``,
    ``num_videos``; the same for groups of sentences by length of the moment
    (``grounding/0-10s/R1@0.5``), for named subsets and for chance. A group without a sentence is
    left out. The log gets a table of all of it.

    Args:
        top_n (Sequence[int]): The n of R@n. Defaults to (1, 5).
        iou_thrs (Sequence[float]): The m of IoU=m. Defaults to (0.3, 0.5, 0.7).
        duration_buckets (Sequence[float]): Edges between groups by length of the true moment; empty
            for none. Defaults to (10, 30).
        duration_unit (str): ``seconds``, or ``share`` of the video. Defaults to ``seconds``.
        subsets (dict | str, optional): Groups to report apart, see `GroundingProtocol`.
        chance (dict, optional): Adds the chance level, see `GroundingProtocol`.
        collect_device (str): ``cpu`` or ``gpu``. Defaults to ``cpu``.
        prefix (str, optional): Defaults to ``grounding``.
        collect_dir (str, optional): Folder shared by all processes, for ``cpu``.

    Raises:
        ValueError: For settings that make no sense, or a model that ranks fewer moments than R@n
            asks for.
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
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device, prefix, collect_dir)
        self.protocol = GroundingProtocol(
            top_n, iou_thrs, duration_buckets, duration_unit, subsets, chance
        )

    @property
    def names(self) -> list[str]:
        """Names of the figures of all sentences, without the prefix."""
        table = [f'R{n}@{thr:g}' for n in self.protocol.top_n for thr in self.protocol.iou_thrs]
        means = [f'R{n}_mean' for n in self.protocol.top_n]
        return [*table, *means, 'mIoU', 'num_sentences', 'num_videos']

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, as `VideoResultsMetric`; checks it at once."""
        num_before = len(self.results)
        super().process(data_batch, data_samples)
        for result in self.results[num_before:]:
            self.protocol.check(result)

    def compute_metrics(self, results: list[GroundingResult]) -> dict:
        """Figures of all videos, and a table of them in the log."""
        results = self.unique_results(results)
        rows = self.protocol.evaluate(results)
        print_log(f'Grounding (percent)\n{format_table(rows)}', logger='current')
        num_videos = len({result.video_id for result in results})
        return flat_metrics(rows) | {'num_videos': float(num_videos)}


@METRICS.register_module()
class DumpPredictions(VideoResultsMetric):
    """Writes the ranked moments of every sentence to a file that can be scored without the model.

    The format is in docs/predictions.md; `tools/analysis_tools/eval_predictions.py` scores it and
    finds exactly the figures of `GroundingMetric`. MMEngine's ``DumpResults`` writes pickles.

    Args:
        out_file_path (str): Path of the file; must end in ``.json``. Its folder is made.
        collect_device (str): ``cpu`` or ``gpu``. Defaults to ``cpu``.
        collect_dir (str, optional): Folder shared by all processes, for ``cpu``.

    Raises:
        ValueError: If the path does not end in ``.json``, or cannot be written.
    """

    default_prefix = 'predictions'  # reports no figures; a metric without a prefix warns

    def __init__(
        self, out_file_path: str, collect_device: str = 'cpu', collect_dir: str | None = None
    ):
        super().__init__(collect_device, collect_dir=collect_dir)
        if Path(out_file_path).suffix != '.json':
            raise ValueError(
                f'predictions are written as JSON: {out_file_path} must end in .json '
                '(for a pickle use DumpResults)'
            )
        writable_file(out_file_path)
        self.out_file_path = out_file_path

    def compute_metrics(self, results: list[GroundingResult]) -> dict:
        """Write the file; there are no figures."""
        results = self.unique_results(results)
        write_predictions(self.out_file_path, results)
        print_log(
            f'Predictions for {sum(len(result.sentences) for result in results)} sentences '
            f'written to {self.out_file_path}',
            logger='current',
        )
        return {}
