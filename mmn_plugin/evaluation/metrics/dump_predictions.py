"""Writing the predictions of a test as JSON."""

from pathlib import Path

from mmaction.registry import METRICS
from mmengine.logging import print_log

from mmn_plugin.evaluation.grounding_result import GroundingResult
from mmn_plugin.evaluation.predictions import write_predictions
from mmn_plugin.files import writable_file

from .video_results_metric import VideoResultsMetric


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
