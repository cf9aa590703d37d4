"""What `SimilarVideoSampler` knows of the videos of a training."""

import torch
import torch.nn.functional as F
from mmaction.registry import HOOKS
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from torch import Tensor
from torch.utils.data import DataLoader

from mmn_plugin.datasets import SimilarVideoSampler
from mmn_plugin.errors import InputError

from .dist import bare_model, isolated_random_state
from .resume import SeededDataset


@HOOKS.register_module()
class SimilarVideoHook(Hook):
    """Embed all videos of the training for `SimilarVideoSampler`, shared out among processes.

    A video's vector is the mean of its pooled features (with features of a dual encoder, of its
    space), made once; or, by the model as it is, the mean of its contrastive embeddings, made again
    every ``interval`` epochs: that costs a forward pass of all videos. The model's vectors are part
    of the run's state, so a resumed epoch goes on in its order.

    Args:
        by (str): ``'features'`` or ``'model'``. Defaults to ``'features'``.
        interval (int): Epochs after which the model's vectors are made again. Defaults to 1.
        batch_size (int): Videos that a process embeds at a time. Defaults to 32.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, by: str = 'features', interval: int = 1, batch_size: int = 32):
        if by not in ('features', 'model') or interval < 1 or batch_size < 1:
            raise InputError(
                f'SimilarVideoHook: by={by!r}, interval={interval}, batch_size={batch_size}; give '
                "'features' or 'model', and numbers from 1"
            )
        self.by, self.interval, self.batch_size = by, interval, batch_size
        self.vectors: Tensor | None = None  # (N, C)
        self.epoch = 0  # in which they were made

    def before_train(self, runner) -> None:
        """Check that the training's sampler has a use for vectors.

        Raises:
            ValueError: If it has not.
        """
        sampler = runner.train_dataloader.sampler
        if not isinstance(sampler, SimilarVideoSampler):
            raise InputError(
                'SimilarVideoHook is for train_dataloader.sampler=dict(_delete_=True, '
                f"type='SimilarVideoSampler', group_size=...), not {type(sampler).__name__}"
            )

    def before_train_epoch(self, runner) -> None:
        """Give the sampler its vectors, new ones where it is time."""
        sampler = runner.train_dataloader.sampler
        due = self.by == 'model' and runner.epoch - self.epoch >= self.interval
        if due or self.vectors is None or len(self.vectors) != len(sampler.dataset):
            self.epoch = runner.epoch
            with isolated_random_state():
                self.vectors = self._embed(runner, sampler)
        sampler.vectors = self.vectors.numpy()

    @torch.no_grad()
    def _embed(self, runner, sampler: SimilarVideoSampler) -> Tensor:
        """Unit vectors (N, C) of all videos, on the CPU."""
        loader, model = runner.train_dataloader, bare_model(runner).eval()  # until the loop's train
        keys = [(index, (sampler.seed, index)) for index in range(len(sampler.dataset))]
        own = keys[get_rank() :: get_world_size()]
        starts = range(0, len(own), self.batch_size)
        batches = DataLoader(
            SeededDataset(sampler.dataset),
            batch_sampler=[own[start : start + self.batch_size] for start in starts],
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
        means = []
        for batch in batches:
            if self.by == 'model':
                data = model.data_preprocessor(batch)
                videos = model.encode_videos(data['inputs'], data['data_samples'])
                rows = [video.embeddings['contrastive'].mean(0) for video in videos]
            else:
                rows = [features.flatten(0, -2).mean(0) for features in batch['inputs']]
            means.append(F.normalize(torch.stack(rows).float(), dim=-1).cpu())
        parts = all_gather_object(torch.cat(means))
        vectors = parts[0].new_empty(len(keys), parts[0].shape[1])
        for rank, part in enumerate(parts):
            vectors[rank :: len(parts)] = part
        return vectors

    def common_state(self) -> dict:
        """The model's vectors, and the epoch in which they were made."""
        if self.by == 'features' or self.vectors is None:
            return {}
        return dict(vectors=self.vectors, epoch=self.epoch)

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned on rank 0."""
        if self.by == 'model':
            self.vectors, self.epoch = state['vectors'].cpu(), state['epoch']
