"""Clips to embeddings in the joint space, refined stage by stage."""

import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.models.initialization import begin_as_identity


@MODELS.register_module()
class FrameNeck(BaseModule):
    """Temporal encoder of the clips (the paper's frames), and one refinement per stage.

    Residual convolutions over time give each clip its surroundings. A stage adds one more
    convolution, in the joint space, which begins as zero: a stage that has not begun changes
    nothing. No sentence takes part, so a video is embedded once for all of them.

    Args:
        channels (int): Size of the clip embeddings (H).
        embed_channels (int): Size of the joint space (J).
        num_stages (int): Refinements (K); the localizer gives the head's number of stages.
        kernel_size (int): Clips that a convolution sees, odd. Defaults to 3.
        num_layers (int): Convolutions of the temporal encoder. Defaults to 1.
        identity (bool): The projection into the joint space begins as the identity, so that
            training begins with the space of the clips. Defaults to False.

    Raises:
        ValueError: If the kernel is even: a clip would not be its own kernel's middle. If an
            identity is asked for between two sizes.
    """

    def __init__(
        self,
        channels: int,
        embed_channels: int,
        num_stages: int,
        kernel_size: int = 3,
        num_layers: int = 1,
        identity: bool = False,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise InputError(f'model.neck.kernel_size={kernel_size}; give an odd number of clips')
        padding = kernel_size // 2
        self.temporal = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=padding) for _ in range(num_layers)
        )
        self.fc = nn.Conv1d(channels, embed_channels, 1)
        if identity:
            begin_as_identity(self.fc, 'model.neck.identity=True', 'identity=False')
        self.stages = nn.ModuleList(
            nn.Conv1d(embed_channels, embed_channels, kernel_size, padding=padding)
            for _ in range(num_stages)
        )
        for stage in self.stages:
            nn.init.zeros_(stage.weight)
            nn.init.zeros_(stage.bias)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embed.

        Args:
            clips (Tensor): (B, H, N).

        Returns:
            dict[str, Tensor]: K + 1 times (B, N, J), L2-normalized: ``stage0`` before any
            refinement, ``stage1`` after the first one ..., ``contrastive`` after the last one.
        """
        for layer in self.temporal:
            clips = clips + layer(clips).relu()  # (B, H, N)
        embedding = _normalize(self.fc(clips))  # (B, J, N)
        embeddings = {}
        for k, stage in enumerate(self.stages):
            embeddings[f'stage{k}'] = embedding.transpose(1, 2)  # (B, N, J)
            embedding = _normalize(embedding + stage(embedding))
        return dict(embeddings, contrastive=embedding.transpose(1, 2))


def _normalize(embeddings: Tensor) -> Tensor:
    """Over the joint space, in float32 under mixed precision too."""
    return F.normalize(embeddings.float() if embeddings.dtype.itemsize < 4 else embeddings, dim=1)
