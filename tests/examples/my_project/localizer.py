"""A localizer: how the parts are connected. The forward pass comes from the base."""

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.models.localizers import BaseLocalizer
from mmn_plugin.structures import MomentGrid


@MODELS.register_module()
class BoundaryNeck(BaseModule):
    """Embeds a moment from its first clip, its last clip and their surroundings.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        channels (int): Size of the clips' embeddings (H), even.
        embed_channels (int): Size of the joint space (J).
    """

    def __init__(self, grid: MomentGrid, channels: int, embed_channels: int):
        super().__init__()
        self.grid = grid
        self.surroundings = nn.GRU(channels, channels // 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * channels, embed_channels)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embed the moments, (B, P, J) per space, from clips (B, H, N)."""
        clips, _ = self.surroundings(clips.transpose(1, 2))  # (B, N, H)
        first, last = self.grid.clips_on(clips.device)  # (P,), (P,)
        ends = torch.cat([clips[:, first], clips[:, last]], dim=-1)  # (B, P, 2 H)
        return dict(contrastive=self.fc(ends))


@MODELS.register_module()
class BoundaryLocalizer(BaseLocalizer):
    """Scores moments by their boundaries.

    Args:
        grid (dict): ``num_clips`` and ``pooling_counts``: the moments that exist.
        backbone, neck, text_encoder, head, data_preprocessor (dict): Configs of the parts.
    """

    num_clips_option = 'model.grid.num_clips'

    def __init__(self, grid, backbone, neck, text_encoder, head, data_preprocessor):
        super().__init__(MODELS.build(data_preprocessor))
        self.check_sizes(backbone, neck, text_encoder)
        self.grid = MomentGrid(**grid)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck, default_args=dict(grid=self.grid))
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens

    @property
    def architecture(self) -> dict:
        """What a checkpoint's weights do not show in their shapes, as plain data."""
        return dict(num_clips=self.grid.num_clips, pooling_counts=list(self.grid.pooling_counts))
