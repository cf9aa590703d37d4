"""A model, a dataset and a metric that train in milliseconds, for the tests of the tools."""

import torch
from mmaction.registry import DATASETS, METRICS, MODELS
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn

from mmn_plugin.files import find_config


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(width, 1)
        self.unused = nn.Linear(2, 2)  # as a frozen part is: needs find_unused_parameters

    def forward(self, inputs, targets=None, mode='loss'):
        scores = self.layer(torch.stack(list(inputs)))
        if mode == 'loss':
            target = torch.as_tensor(targets, dtype=torch.float32)
            return {'loss': ((scores[:, 0] - target) ** 2).mean()}
        return list(scores[:, 0])


@DATASETS.register_module()
class ToyDataset(torch.utils.data.Dataset):
    metainfo = {}

    def __init__(self, size=8, broken=None, missing=None):
        self.size, self.broken, self.missing = size, broken, missing

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index == self.broken:
            raise RuntimeError('a bug of the toy')
        if index == self.missing:
            find_config(f'video_{index}')  # raises an error meant for the user
        return {'inputs': torch.full((4,), float(index)), 'targets': float(index)}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results.extend(float(score) for score in data_samples)

    def compute_metrics(self, results):
        return {'items': len(results)}
