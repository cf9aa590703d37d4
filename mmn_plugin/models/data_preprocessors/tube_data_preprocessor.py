"""From collated tubes to the tensors of a batch."""

import torch
from mmaction.registry import MODELS

from .grounding_data_preprocessor import GroundingDataPreprocessor


@MODELS.register_module()
class TubeDataPreprocessor(GroundingDataPreprocessor):
    """Lay the tubes of all videos of a batch end to end, and their sentences likewise.

    ``inputs`` becomes (T, R, D), the tubes of the first video first; how many are whose the data
    samples say. Args: as of `GroundingDataPreprocessor`.
    """

    def _stack(self, features, samples) -> torch.Tensor:
        features = list(features)
        for tubes, sample in zip(features, samples, strict=True):
            if tubes.ndim != 3 or len(tubes) != len(sample.tubes):
                raise ValueError(
                    f'video {sample.video_id!r} has {len(sample.tubes)} tubes, but features of '
                    f'shape {tuple(tubes.shape)}; expected (tubes, segments, size)'
                )
        if len({tuple(tubes.shape[1:]) for tubes in features}) > 1:
            listed = ', '.join(
                f'{sample.video_id}: {tuple(tubes.shape[1:])}'
                for sample, tubes in zip(samples, features, strict=True)
            )
            raise ValueError(
                f'the tubes of a batch differ in the shape of their features '
                f'({listed}); extract them with the same networks'
            )
        return torch.cat(features)  # (T, R, D)
