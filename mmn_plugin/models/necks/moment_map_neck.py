"""From clips to embeddings of all moments."""

from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.structures import MomentGrid

from .moment_encoder import MomentEncoder


@MODELS.register_module()
class MomentMapNeck(BaseModule):
    """2D moment map, its convolutions, and a projection into each joint space.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        channels (int): Size of the clip embeddings (H).
        embed_channels (int): Size of both joint spaces (J).
        kernel_size (int): Side of the moment encoder's kernels (K).
        num_layers (int): Layers of the moment encoder (L).
        moment_map (dict): Config of the map, ``MomentMapPool`` or ``MomentMapConv``. Defaults to
            ``dict(type='MomentMapPool')``.
        conv_mode (str): How the encoder computes, ``'dense'``, ``'sparse'`` or ``'auto'``; see
            :class:`MomentEncoder`. Defaults to ``'auto'``.
        init_cfg (dict, optional): Initialisation. Defaults to None (PyTorch's own).
    """

    def __init__(
        self,
        grid: MomentGrid,
        channels: int,
        embed_channels: int,
        kernel_size: int,
        num_layers: int,
        moment_map: dict | None = None,
        conv_mode: str = 'auto',
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.moment_map = MODELS.build(
            moment_map or dict(type='MomentMapPool'),
            default_args=dict(grid=grid, channels=channels),
        )
        self.encoder = MomentEncoder(grid, channels, kernel_size, num_layers, conv_mode)
        self.fc_iou = nn.Linear(channels, embed_channels)
        self.fc_contrastive = nn.Linear(channels, embed_channels)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embed all moments.

        Args:
            clips (Tensor): (B, H, N).

        Returns:
            dict[str, Tensor]: ``iou`` and ``contrastive``, each (B, P, J), not normalised.
        """
        moments = self.encoder(self.moment_map(clips)).transpose(1, 2)  # (B, P, H)
        return dict(iou=self.fc_iou(moments), contrastive=self.fc_contrastive(moments))
