"""Mutual Matching Network."""

from mmaction.registry import MODELS

from mmn_plugin.errors import InputError
from mmn_plugin.setting_types import require_types
from mmn_plugin.structures import MomentGrid

from .base_localizer import BaseLocalizer


@MODELS.register_module()
class MMN(BaseLocalizer):
    """Mutual Matching Network, of "Negative Sample Matters: A Renaissance of Metric Learning for
    Temporal Grounding" (AAAI 2022).

    Moments and sentences are embedded, independently of each other, in one space; a moment's
    score for a sentence is a cosine.

    Args:
        grid (dict): ``num_clips`` and ``pooling_counts``: the moments that exist.
        backbone (dict): Config of the clip encoder.
        neck (dict): Config of the moment-map neck.
        text_encoder (dict): Config of the sentence encoder.
        head (dict): Config of the mutual-matching head.
        data_preprocessor (dict): Config of the data preprocessor, with the tokenizer.
        tower (dict, optional): Config of the dual encoder that made the features, for
            ``head.tower_weight`` above 0 (`BaseLocalizer`). Defaults to None.
        init_cfg (dict | list[dict], optional): Initialization. Defaults to None.
    """

    num_clips_option = 'model.grid.num_clips'

    def __init__(
        self,
        grid: dict,
        backbone: dict,
        neck: dict,
        text_encoder: dict,
        head: dict,
        data_preprocessor: dict,
        tower: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.check_sizes(backbone, neck, text_encoder)
        require_types(MomentGrid, grid, 'model.grid')
        self.grid = MomentGrid(**grid)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck, default_args=dict(grid=self.grid))
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.build_tower(tower, head)
        self.check_meanings()
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens
        self._check_settings(neck, head)

    def _check_settings(self, neck: dict, head: dict) -> None:
        compiled, piece = neck.get('compile'), self.head.negatives.piece
        if compiled and piece is not None:
            raise InputError(
                f'model.neck.compile={compiled} and model.head.negatives.piece={piece} do not go '
                'together: PyTorch embeds pieces for the second time without its compiler, and so '
                'must the first time'
            )
        positives = head.get('loss_matching', {}).get('num_positive', 1)
        if positives > self.grid.num_moments:
            raise InputError(
                f'model.head.loss_matching.num_positive={positives}, but {self.grid} '
                'has fewer moments'
            )

    @property
    def architecture(self) -> dict:
        """What a checkpoint's weights do not show in their shapes, as plain data."""
        return dict(
            num_clips=self.grid.num_clips,
            pooling_counts=list(self.grid.pooling_counts),
            moment_map=type(self.neck.moment_map).__name__,
            segments_per_clip=[self.backbone.pool.kernel_size[0], self.backbone.pool.stride[0]],
        )
