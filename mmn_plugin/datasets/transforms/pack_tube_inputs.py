"""Hand a video's tubes over to the model."""

import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from ...structures import TubeDataSample


@TRANSFORMS.register_module()
class PackTubeInputs(BaseTransform):
    """Pack a video's pooled tubes and its sentences.

    Required keys: ``features`` (T, R, D), ``video_id``, ``sentences``, ``tubes``. Optional:
    ``ground_truth`` (one tube per sentence), ``sentence_index``; without ``ground_truth`` the
    sample has none, as in inference.

    Returns ``inputs``, (T, R, D) float32 tensor, and ``data_samples``, a `TubeDataSample`.
    """

    def transform(self, results: dict) -> dict:
        """Make ``inputs`` and ``data_samples``."""
        sentences = list(results['sentences'])
        sample = TubeDataSample(
            metainfo=dict(
                video_id=results['video_id'],
                sentences=sentences,
                sentence_index=list(results.get('sentence_index', range(len(sentences)))),
                tubes=list(results['tubes']),
                tube_index=list(range(len(results['tubes']))),
            )
        )
        if results.get('ground_truth'):
            sample.gt_instances = InstanceData(tubes=list(results['ground_truth']))
        features = np.ascontiguousarray(results['features'], dtype=np.float32)
        return dict(inputs=torch.from_numpy(features), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
