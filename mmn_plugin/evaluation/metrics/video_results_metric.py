"""Collecting one result per video from any number of processes."""

import logging
from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmn_plugin.evaluation.grounding_result import GroundingResult


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
