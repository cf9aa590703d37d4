"""Weakly-supervised grounding by multi-scale self-contrast."""

from mmaction.registry import MODELS

from mmn_plugin.structures import MomentGrid

from .base_localizer import BaseLocalizer


@MODELS.register_module()
class MSCL(BaseLocalizer):
    """Learns when from which sentence belongs to which video, after "Multi-Scale Self-Contrastive
    Learning with Hard Negative Mining for Weakly-Supervised Query-based Video Grounding" (2022).

    Clips (the paper's frames) and sentences are embedded, independently of each other, in one
    space; a clip's score for a sentence follows from their cosine, and moments are the runs of
    high scores. Training looks at no timestamp: samples need no ground truth.

    Args:
        num_clips (int): Clips of a video (N), whatever its length.
        backbone (dict): Config of the clip encoder.
        neck (dict): Config of the frame neck.
        text_encoder (dict): Config of the sentence encoder, of one space, ``contrastive``.
        head (dict): Config of the score-curve head.
        data_preprocessor (dict): Config of the data preprocessor, with the tokenizer.
        init_cfg (dict | list[dict], optional): Initialization. Defaults to None.

    Raises:
        ValueError: If the joint space has two sizes.
    """

    num_clips_option = 'model.num_clips'

    def __init__(
        self,
        num_clips: int,
        backbone: dict,
        neck: dict,
        text_encoder: dict,
        head: dict,
        data_preprocessor: dict,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.check_sizes(backbone, neck, text_encoder)
        self.grid = MomentGrid(num_clips, [])  # the clips alone
        self.backbone = MODELS.build(backbone)
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.neck = MODELS.build(neck, default_args=dict(num_stages=len(self.head.windows)))
        self.check_meanings()
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens

    @property
    def architecture(self) -> dict:
        """What a checkpoint's weights do not show in their shapes, as plain data."""
        return dict(
            num_clips=self.grid.num_clips,
            windows=list(self.head.windows),
            segments_per_clip=[self.backbone.pool.kernel_size[0], self.backbone.pool.stride[0]],
        )
