"""m_vIoU, m_tIoU and vIoU@R in the loop."""

from collections.abc import Sequence

from mmaction.registry import METRICS
from mmengine.logging import print_log

from mmn_plugin.evaluation.functional import check_thresholds, tube_bounds, tube_figures
from mmn_plugin.evaluation.tube_result import TubeResult
from mmn_plugin.structures import MomentGrid

from .video_results_metric import VideoResultsMetric


@METRICS.register_module()
class TubeGroundingMetric(VideoResultsMetric):
    """Spatio-temporal grounding: how well the answered tubes cover the true ones.

    Reported in percent, under ``tubes/``: ``m_vIoU`` (mean spatio-temporal IoU), ``m_tIoU`` (mean
    temporal IoU), ``vIoU@0.3`` (share of sentences with vIoU > 0.3), ..., and ``num_sentences``,
    ``num_videos``. A sentence without an answer counts as 0.

    Args:
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).
        bounds (dict, optional): ``num_clips`` and ``pooling_counts`` of the model's grid; adds
            ``oracle_m_vIoU``, ``oracle_vIoU@R`` (the best that the candidates allow) and
            ``chance_m_vIoU``, ``chance_vIoU@R`` (a random tube and span). Defaults to None.
        require_truth (bool): Whether videos without ground truth are an error. If not, there are no
            figures where no video has any, as in a challenge's test. Defaults to True.
        collect_device (str): ``cpu`` or ``gpu``. Defaults to ``cpu``.
        prefix (str, optional): Defaults to ``tubes``.
        collect_dir (str, optional): Folder shared by all processes, for ``cpu``.

    Raises:
        ValueError: If a threshold is outside [0, 1).
    """

    default_prefix = 'tubes'

    def __init__(
        self,
        iou_thrs: Sequence[float] = (0.3, 0.5),
        bounds: dict | None = None,
        require_truth: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ):
        super().__init__(collect_device, prefix, collect_dir)
        check_thresholds(iou_thrs)
        self.iou_thrs = tuple(iou_thrs)
        self.grid = None if bounds is None else MomentGrid(**bounds)
        self.require_truth = require_truth

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep what evaluation needs of a batch, on the CPU.

        Raises:
            ValueError: If a video has no ground truth, and needs it.
        """
        for sample in data_samples:
            result = TubeResult.from_data_sample(sample)
            if not result.ground_truth and self.require_truth:
                raise ValueError(
                    f'video {result.video_id!r} has no ground truth, so that it '
                    'cannot be scored; write a submission instead '
                    '(tools/test.py --submission FILE.json)'
                )
            if self.grid is not None:
                result.bounds = [
                    tube_bounds(self.grid, sample['tubes'], truth, self.iou_thrs)
                    for truth in result.ground_truth
                ]
            self.results.append(result)

    def compute_metrics(self, results: list[TubeResult]) -> dict:
        """Figures of all videos, and a line of them in the log.

        Raises:
            ValueError: If some videos have ground truth and others have none.
        """
        results = self.unique_results(results)
        without = [result.video_id for result in results if not result.ground_truth]
        if len(without) == len(results):
            print_log('no video has ground truth: there are no figures', logger='current')
            return {}
        if without:
            raise ValueError(
                f'{len(without)} of {len(results)} videos have no ground truth, such '
                f'as {without[0]!r}; score files in which all have it'
            )
        overlaps = [pair for result in results for pair in result.overlaps()]
        figures = tube_figures(*zip(*overlaps, strict=True), self.iou_thrs)
        bounds = [bound for result in results for bound in result.bounds]
        for name in bounds[0] if bounds else ():
            figures[name] = sum(bound[name] for bound in bounds) / len(bounds)
        figures = {name: 100 * value for name, value in figures.items()}
        shown = ', '.join(f'{name} {value:.2f}' for name, value in figures.items())
        print_log(f'Spatio-temporal grounding (percent): {shown}', logger='current')
        return figures | dict(
            num_sentences=float(len(overlaps)),
            num_videos=float(len({result.video_id for result in results})),
        )
