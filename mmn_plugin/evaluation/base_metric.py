"""What metrics over videos with many sentences share."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import all_reduce
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from mmn_plugin.errors import InputError
from mmn_plugin.files import writable_file

from .predictions import GroundingResult


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
            unique.setdefault(item_key(result), result)
        missing = self._dataset_size - len(unique)
        if missing > 0:
            print_log(
                f"{missing} of the dataset's {self._dataset_size} items were not evaluated "
                '(or are in it twice); is drop_last set in the dataloader?',
                logger='current',
                level=logging.WARNING,
            )
        return [unique[key] for key in sorted(unique)]


def item_key(result) -> tuple:
    """Identity of the dataset item: the same item evaluated twice has the same key."""
    return result.video_id, tuple(result.sentence_index), tuple(result.sentences)


class DumpMetric(VideoResultsMetric):
    """Base of metrics that write what they collect as JSON, and report no figures.

    Args:
        out_file_path (str): Path of the file; must end in ``suffix``. Its folder is made.
        **kwargs: Those of :class:`mmengine.evaluator.BaseMetric`.

    Attributes:
        suffix (str): ``.json``, or ``.jsonl`` of one object a line.

    Raises:
        ValueError: If the path does not end in ``suffix``, or cannot be written.
    """

    default_prefix = 'dump'  # without a prefix a metric warns
    suffix = '.json'

    def __init__(self, out_file_path: str, **kwargs):
        super().__init__(**kwargs)
        if Path(out_file_path).suffix != self.suffix:
            raise InputError(
                f'{type(self).__name__} writes JSON: {out_file_path} must end in {self.suffix} '
                '(for a pickle use DumpResults)'
            )
        writable_file(out_file_path)
        self.out_file_path = out_file_path
