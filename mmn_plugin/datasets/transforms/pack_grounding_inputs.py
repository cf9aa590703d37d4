"""Hand a sample over to the model."""

import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from ...structures import GroundingDataSample


@TRANSFORMS.register_module()
class PackGroundingInputs(BaseTransform):
    """Pack a video's pooled features and its sentences.

    Required keys: ``features`` (R, D), ``video_id``, ``duration``, ``sentences``. Optional:
    ``moments`` (list of s [start, end] in seconds), ``sentence_index``; without ``moments`` the
    sample has no ground truth, as in inference.

    Returns ``inputs``, (R, D) float32 tensor, and ``data_samples``, a `GroundingDataSample`.
    """

    def transform(self, results: dict) -> dict:
        """Make ``inputs`` and ``data_samples``."""
        sentences = list(results['sentences'])
        sample = GroundingDataSample(
            metainfo=dict(
                video_id=results['video_id'],
                duration=float(results['duration']),
                sentences=sentences,
                sentence_index=list(results.get('sentence_index', range(len(sentences)))),
            )
        )
        if 'moments' in results:
            moments = np.asarray(results['moments'], dtype=np.float32).reshape(-1, 2)  # (s, 2)
            sample.gt_instances = InstanceData(moments=torch.from_numpy(moments))
        features = np.ascontiguousarray(results['features'], dtype=np.float32)  # (R, D)
        return dict(inputs=torch.from_numpy(features), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
