"""R@n, IoU=m and mean IoU in the loop."""

from collections.abc import Sequence

from mmaction.registry import METRICS
from mmengine.logging import print_log

from mmn_plugin.evaluation.grounding_protocol import GroundingProtocol
from mmn_plugin.evaluation.grounding_result import GroundingResult
from mmn_plugin.evaluation.summary_row import flat_metrics, format_table

from .video_results_metric import VideoResultsMetric


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
