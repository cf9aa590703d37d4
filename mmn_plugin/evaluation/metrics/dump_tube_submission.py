"""Writing the answers of a test as the challenge takes them."""

from collections.abc import Sequence
from pathlib import Path

from mmaction.registry import METRICS
from mmengine.logging import print_log

from mmn_plugin.evaluation.tube_result import TubeResult
from mmn_plugin.evaluation.tube_submission import write_submission
from mmn_plugin.files import writable_file

from .video_results_metric import VideoResultsMetric


@METRICS.register_module()
class DumpTubeSubmission(VideoResultsMetric):
    """Writes the HC-STVG challenge's JSON: video -> ``st_frame``, ``ed_frame``, ``bbox``.

    Args:
        out_file_path (str): Path of the file; must end in ``.json``. Its folder is made.
        collect_device (str): ``cpu`` or ``gpu``. Defaults to ``cpu``.
        collect_dir (str, optional): Folder shared by all processes, for ``cpu``.

    Raises:
        ValueError: If the path does not end in ``.json``.
    """

    default_prefix = 'submission'  # reports no figures; a metric without a prefix warns

    def __init__(
        self, out_file_path: str, collect_device: str = 'cpu', collect_dir: str | None = None
    ):
        super().__init__(collect_device, collect_dir=collect_dir)
        if Path(out_file_path).suffix != '.json':
            raise ValueError(f'a submission is JSON: {out_file_path} must end in .json')
        writable_file(out_file_path)
        self.out_file_path = out_file_path

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Keep the answers of a batch."""
        self.results.extend(map(TubeResult.from_data_sample, data_samples))

    def compute_metrics(self, results: list[TubeResult]) -> dict:
        """Write the file; there are no figures."""
        answers = TubeResult.by_name(self.unique_results(results), 'tubes')
        write_submission(self.out_file_path, answers)
        print_log(f'{len(answers)} answers written to {self.out_file_path}', logger='current')
        return {}
