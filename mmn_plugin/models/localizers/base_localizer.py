"""What the localizers share."""

from mmengine.model import BaseModel
from torch import Tensor

from mmn_plugin.errors import InputError


class ClipLocalizer(BaseModel):
    """A model with a ``backbone`` that gives the ``grid.num_clips`` clips of a video.

    Its option for their number is ``num_clips_option``, for messages.
    """

    num_clips_option: str

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the losses; their values to log stay in ``log_vars``, for the train loop's check.

        Args:
            losses (dict[str, Tensor]): By name.

        Returns:
            tuple[Tensor, dict[str, Tensor]]: The sum to minimize; it and the losses, detached.
        """
        total, values = super().parse_losses(losses)
        self.log_vars = {name: value.detach() for name, value in values.items()}
        return total, self.log_vars

    @staticmethod
    def check_joint_space(neck: dict, text_encoder: dict) -> None:
        """Refuse two sizes of the joint space.

        Args:
            neck (dict): Config of the neck.
            text_encoder (dict): Config of the sentence encoder.

        Raises:
            ValueError: If their ``embed_channels`` differ.
        """
        sizes = neck.get('embed_channels'), text_encoder.get('embed_channels')
        if None not in sizes and sizes[0] != sizes[1]:
            raise InputError(
                f'model.neck.embed_channels={sizes[0]} and model.text_encoder.'
                f'embed_channels={sizes[1]} must be one size, that of the joint space'
            )

    def encode_clips(self, inputs: Tensor, data_samples=None) -> Tensor:
        """Embed the clips before the neck: (B, R, D) -> (B, H, N).

        Raises:
            ValueError: If the features' size or number does not fit the model.
        """
        videos = ', '.join(s.video_id for s in data_samples or []) or 'of this batch'
        if inputs.shape[-1] != self.backbone.in_channels:
            raise InputError(
                f'the features of video {videos} have size {inputs.shape[-1]}, but '
                f'model.backbone.in_channels is {self.backbone.in_channels}: set in_channels to '
                "the features' size, or give the feature files this config was written for"
            )
        clips = self.backbone(inputs)  # (B, H, N)
        if clips.shape[-1] != self.grid.num_clips:
            raise InputError(
                f'the {inputs.shape[1]} feature rows of video {videos} give {clips.shape[-1]} '
                f'clips, but {self.num_clips_option} is {self.grid.num_clips}: num_segments of '
                'PoolClipFeatures (in every pipeline), model.backbone.kernel_size and stride, '
                'and num_clips belong together'
            )
        return clips
