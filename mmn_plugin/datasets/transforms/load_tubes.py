"""Read the tubes of a video."""

from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from ..tubes import TubeFile


@TRANSFORMS.register_module()
class LoadTubes(BaseTransform):
    """Read candidate tubes, ground truth and features of a video.

    Every file is opened once per process and stays open.

    Required keys: ``video_id``, ``tube_file``, ``streams``. Optional: ``tube_version``, the
    `TubeFile.version` that the file must still be. `TubeGroundingDataset` gives them.
    Added keys: ``tubes`` (T arrays (n, 5)), ``ground_truth`` (one per sentence, or none),
    ``features`` (per stream a list of T arrays (rows, D)).

    Raises:
        TubeError: If something is absent, changed, damaged or of no meaning; the message names it.
    """

    def __init__(self):
        self._files: dict[str, TubeFile] = {}

    def transform(self, results: dict) -> dict:
        """Add tubes and features."""
        path = results['tube_file']
        if path not in self._files:
            self._files[path] = TubeFile(path)
        video = self._files[path].read(
            results['video_id'], results['streams'], results.get('tube_version')
        )
        results['tubes'] = video.tubes
        results['ground_truth'] = video.ground_truth
        results['features'] = [video.features[stream] for stream in results['streams']]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
