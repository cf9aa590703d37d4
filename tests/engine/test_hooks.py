"""What happens at which epoch."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import MultiStepLR
from torch import nn

from mmn_plugin.engine import (
    CrossVideoNegativeHook,
    FreezeLanguageModelHook,
)


def runner_of(epoch=0, **model):
    return SimpleNamespace(epoch=epoch, model=SimpleNamespace(**model))


def test_the_contrastive_factor_falls_after_the_last_full_epoch():
    hook = CrossVideoNegativeHook(full_through_epoch=2)
    head = SimpleNamespace(negatives=SimpleNamespace())
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(runner_of(epoch, head=head))
        seen.append(head.contrastive_factor)
    assert seen == [1.0, 1.0, 0.01, 0.01]


def test_the_language_model_trains_after_the_last_frozen_epoch():
    hook, text_encoder = FreezeLanguageModelHook(through_epoch=2), nn.Module()
    text_encoder.bert, text_encoder.layernorm = nn.Linear(2, 2), nn.LayerNorm(2)
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(runner_of(epoch, text_encoder=text_encoder))
        seen.append([p.requires_grad for p in text_encoder.bert.parameters()])
    assert seen == [[False] * 2] * 2 + [[True] * 2] * 2
    assert all(p.requires_grad for p in text_encoder.layernorm.parameters())


def test_a_milestone_takes_effect_in_the_epoch_after_it():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = MultiStepLR(optimizer, milestones=[2], gamma=0.1), []
    for _ in range(4):  # epochs 1 to 4
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])
