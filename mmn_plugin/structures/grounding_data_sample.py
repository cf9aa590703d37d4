"""What is known and predicted about one video."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData


class GroundingDataSample(BaseDataElement):
    """A video with all its sentences.

    Meta information: ``video_id`` (str), ``duration`` (float, seconds), ``sentences`` (list of s
    strings), ``sentence_index`` (list of s ints: the sentence's place in the annotation file,
    whose unusable sentences are dropped).

    - ``gt_instances.moments``: (s, 2) float32, seconds.
    - ``pred_instances.moments``: (s, n, 2) float32, seconds, best first, NaN where fewer than n
      moments survive NMS; ``pred_instances.scores``: (s, n), NaN likewise; on the CPU.
    """

    @property
    def gt_instances(self) -> InstanceData:
        """Ground truth: ``moments`` (s, 2) in seconds."""
        return self._gt_instances

    @gt_instances.setter
    def gt_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_gt_instances', dtype=InstanceData)

    @gt_instances.deleter
    def gt_instances(self) -> None:
        del self._gt_instances

    @property
    def pred_instances(self) -> InstanceData:
        """Predictions: ``moments`` (s, n, 2) in seconds and ``scores`` (s, n)."""
        return self._pred_instances

    @pred_instances.setter
    def pred_instances(self, value: InstanceData) -> None:
        self.set_field(value, '_pred_instances', dtype=InstanceData)

    @pred_instances.deleter
    def pred_instances(self) -> None:
        del self._pred_instances

    def __getstate__(self) -> dict:
        """Ground truth leaves the process as an array: a tensor would cost a data loader more
        time than the few numbers in it (a shared file, and a connection to hand it over).
        """
        state = dict(self.__dict__)
        truth = state.get('_gt_instances')
        if truth is not None and set(truth.keys()) == {'moments'} and not truth.metainfo_keys():
            moments = truth.moments
            if torch.is_tensor(moments) and moments.device.type == 'cpu':
                state['_gt_instances'] = moments.detach().numpy()
        return state

    def __setstate__(self, state: dict) -> None:
        truth = state.get('_gt_instances')
        if isinstance(truth, np.ndarray):
            state['_gt_instances'] = InstanceData(moments=torch.from_numpy(truth.copy()))
        self.__dict__.update(state)
