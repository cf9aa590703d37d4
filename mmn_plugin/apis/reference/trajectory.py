"""A few optimiser steps on one batch, with the parts that a real run is made of."""

import numpy as np
import torch
from mmengine.optim import build_optim_wrapper

from mmn_plugin.engine import CrossVideoNegativeHook, FreezeLanguageModelHook


def train_trajectory(model, batch: dict, config: dict, steps: int) -> np.ndarray:
    """Train on one batch; a step counts as an epoch of the schedules.

    Args:
        model (MMN): In the state and precision to start from.
        batch (dict): Preprocessed.
        config (dict): Settings of a golden file, with ``trajectory``.
        steps (int): Number of steps.

    Returns:
        np.ndarray: (steps, 5) float64: loss_vid and loss_sent times the contrastive weight
        (without the late factor), loss_iou, total (with it), gradient norm before clipping.
    """
    settings = config['trajectory']
    optim_wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(
                type='AdamW',
                lr=settings['lr'],
                betas=settings['betas'],
                weight_decay=settings['weight_decay'],
            ),
            clip_grad=dict(max_norm=settings['clip']),
            paramwise_cfg=dict(
                custom_keys=dict(bert=dict(lr_mult=settings['bert_lr'] / settings['lr']))
            ),
        ),
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optim_wrapper.optimizer, [settings['milestone']], settings['gamma']
    )
    negatives = CrossVideoNegativeHook(
        settings['full_contrastive_through_step'], settings['late_contrastive_factor']
    )
    model.train()
    rows = []
    for step in range(1, steps + 1):
        FreezeLanguageModelHook.freeze(model, step <= settings['bert_frozen_through_step'])
        model.head.contrastive_factor = factor = negatives.factor(step)
        losses = model(**batch, mode='loss')
        total = sum(losses.values())
        norm = _step(optim_wrapper, total)
        scheduler.step()
        rows.append(
            [
                losses['loss_vid'].item() / factor,
                losses['loss_sent'].item() / factor,
                losses['loss_iou'].item(),
                total.item(),
                norm,
            ]
        )
    FreezeLanguageModelHook.freeze(model, False)
    return np.array(rows)


def _step(optim_wrapper, loss: torch.Tensor) -> float:
    """One update; returns the gradient norm before clipping."""
    optim_wrapper.zero_grad()
    optim_wrapper.backward(loss)
    parameters = [
        p for group in optim_wrapper.param_groups for p in group['params'] if p.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
    optim_wrapper.step()
    return norm
