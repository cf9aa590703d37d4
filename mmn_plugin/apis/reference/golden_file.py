"""Reading a golden file."""
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.structures.annotations import VideoAnnotation, read_annotations


class GoldenFile:
    """Figures that the published code produced, as ``golden/README.md`` lays them out.

    Args:
        path (Path): The ``.npz`` file.

    Raises:
        ValueError: If it is not a golden file, or of a layout this version does not know.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.arrays = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f'{path} is not an .npz file of plain arrays: {error}') from error
        if 'num_tubes' in self.arrays:
            raise ValueError(f'{path} is of the spatio-temporal variant (HC-STVG), which this '
                             'version does not verify')
        if 'mask2d' not in self.arrays or not (self.is_model or 'score_power' in self.arrays):
            raise ValueError(f'{path} does not have the layout of a golden file (no mask2d, or '
                             'neither config_json nor score_power)')

    @property
    def is_model(self) -> bool:
        """Whether the file holds a model and its figures, or evaluation alone."""
        return 'config_json' in self.arrays

    @property
    def config(self) -> dict:
        """Settings the figures were made with."""
        return json.loads(str(self.arrays['config_json']))

    @property
    def num_videos(self) -> int:
        """Number of videos (B)."""
        return len(self.arrays['video_order' if self.is_model else 'videos'])

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays under ``prefix/``, by the rest of their name."""
        start = f'{prefix}/'
        return {key.removeprefix(start): self.arrays[key]
                for key in self.arrays.files if key.startswith(start)}

    def weights(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays under ``prefix/`` as tensors."""
        return {name: torch.from_numpy(value) for name, value in self.group(prefix).items()}

    def annotations(self) -> list[VideoAnnotation]:
        """The excerpt of the annotations, read as a dataset reads it, in ``video_order``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'annotation.json'
            path.write_text(str(self.arrays['annotation_json']))
            videos = {video.video_id: video for video in read_annotations(path)}
        return [videos[str(video_id)] for video_id in self.arrays['video_order']]
