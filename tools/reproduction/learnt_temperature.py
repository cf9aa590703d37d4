"""What an experiment compares with fixed temperatures: temperatures that are learnt."""

from dataclasses import replace

import torch
from mmaction.registry import MODELS
from torch import Tensor, nn

from mmn_plugin.models.losses import MutualMatchingLoss
from mmn_plugin.models.negatives import Candidates


@MODELS.register_module()
class LearntTemperatureLoss(MutualMatchingLoss):
    """Mutual matching whose temperatures are trained, from the config's on.

    Their logarithms are the parameters, and they stay above ``LEAST``, as CLIP's does (Radford et
    al. 2021, section 2.5). Arguments as of `MutualMatchingLoss`.
    """

    LEAST = 0.01

    def __init__(self, **settings):
        super().__init__(**settings)
        first = torch.tensor([self.temperature_video, self.temperature_sentence])
        self.log_temperature = nn.Parameter(first.log())
        self.temperature_video = self.temperature_sentence = 1.0
        self.fixed_margin = self.margin

    def forward(self, own: Candidates, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """As the base class; what is compared is divided by a temperature before, in each way."""
        video, sentence = self.log_temperature.exp().clamp(min=self.LEAST)
        self.margin = self.fixed_margin / video
        loss_vid, _ = super().forward(replace(own, moments=own.moments / video), *args, **kwargs)
        self.margin = self.fixed_margin / sentence
        scaled = replace(own, sentences=own.sentences / sentence)
        _, loss_sent = super().forward(scaled, *args, **kwargs)
        return loss_vid, loss_sent
