"""Grounding by a frozen dual encoder, without training."""

from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.necks.tower_pool import clip_means
from mmn_plugin.structures import GroundingDataSample, MomentGrid, VideoEmbedding

from .base_localizer import BaseLocalizer


@MODELS.register_module()
class ZeroShotGrounding(BaseLocalizer):
    """Grounds sentences with a dual encoder of images (or videos) and text as it is.

    The features of a video are the tower's embeddings of its frames or windows; they are averaged
    to the clips of the grid, and pooled into moments in the spaces that the head's score needs. A
    sentence is the tower's embedding of it in all of them. Nothing is trained, and nothing knows
    which tower it is.

    Args:
        grid (dict): ``num_clips`` and ``pooling_counts``: the moments that exist.
        tower (dict): Config of the tower, such as `DualTower`; the same as ``extractor`` where
            features are made from video files.
        head (dict): Config of the `ZeroShotHead`.
        neck (dict, optional): Config of the pooling. Defaults to None: `TowerPool`.
        data_preprocessor (dict, optional): Defaults to None: without a tokenizer.
        init_cfg (dict | list[dict], optional): Not used.
    """

    num_clips_option = 'model.grid.num_clips'
    needs_weights = False

    def __init__(
        self,
        grid: dict,
        tower: dict,
        head: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        preprocessor = data_preprocessor or dict(type='GroundingDataPreprocessor')
        super().__init__(MODELS.build(preprocessor), init_cfg)
        self.grid = MomentGrid(**grid)
        self.backbone = self.text_encoder = None
        self.tower = MODELS.build(tower)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid, tower=self.tower))
        self.neck = MODELS.build(
            neck or dict(type='TowerPool'),
            default_args=dict(grid=self.grid, spaces=self.head.tower_spaces),
        )

    @property
    def architecture(self) -> dict:
        """What tells its moments from those of another config, as plain data."""
        return dict(num_clips=self.grid.num_clips, pooling_counts=list(self.grid.pooling_counts))

    def forward(self, inputs: Tensor, sentences=None, data_samples=None, mode: str = 'tensor'):
        """As of `BaseLocalizer`; there are no losses, and ``'tensor'`` gives the moments alone."""
        if mode == 'loss':
            return self.head.loss({}, {}, None, data_samples)
        return super().forward(inputs, sentences, data_samples, mode)

    def encode_videos(
        self, inputs: Tensor, data_samples: list[GroundingDataSample]
    ) -> list[VideoEmbedding]:
        """Moments in every space of the head's score; args as of `BaseLocalizer`."""
        return self.head.split(self.neck(self.encode_clips(inputs, data_samples)), data_samples)

    def encode_clips(self, inputs: Tensor, data_samples=None) -> Tensor:
        """Means of the features of each clip: (B, R, D) -> (B, D, N).

        Raises:
            ValueError: If there are fewer rows than clips.
        """
        if inputs.shape[1] < self.grid.num_clips:
            raise InputError(
                f'{inputs.shape[1]} feature rows give no {self.grid.num_clips} clips '
                f'({self.num_clips_option}): raise num_segments of PoolClipFeatures in every '
                'pipeline, at best to a multiple of it'
            )
        return clip_means(inputs, self.grid.num_clips).transpose(1, 2)
