"""Everything about a video that does not depend on a sentence."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from mmn_plugin.datasets.features.fingerprint import require_same_extractor
from mmn_plugin.structures import GroundingDataSample

from .encoded_video import EncodedVideo
from .long_video import LongVideo
from .moment_sums import MomentSums
from .video_features import VideoFeatures
from .window_plan import WindowPlan


class VideoEncoder:
    """Encodes videos, the windows of several together.

    Args:
        model (nn.Module): An ``MMN``, in evaluation mode.
        pipeline (Callable): The test pipeline from features on.
        device (str): The model's.
        long_video (LongVideo): How long videos are cut into windows.
        window_batch (int): Windows that go through the model together.
    """

    def __init__(
        self,
        model: nn.Module,
        pipeline: Callable,
        device: str,
        long_video: LongVideo,
        window_batch: int,
    ):
        self.model = model
        self.pipeline = pipeline
        self.device = device
        self.long_video = long_video
        self.window_batch = window_batch

    @torch.inference_mode()
    def __call__(self, videos: Sequence[VideoFeatures]) -> list[EncodedVideo]:
        """Encode.

        Raises:
            ValueError: If the features' size is not the model's, or another extractor made them
                than those of its training.
        """
        for video in videos:
            self._require_same_extractor(video)
        plans = [self._plan(video) for video in videos]
        sums = [MomentSums(plan) for plan in plans]
        for chunk in _chunks(self._windows(videos, plans), self.window_batch):
            inputs = torch.stack([packed['inputs'] for _, _, packed in chunk]).to(self.device)
            samples = [packed['data_samples'] for _, _, packed in chunk]
            moments = self.model.encode_moments(inputs, samples)  # (W, P, J) per space
            moments = self.model.head.normalise(moments)
            for row, (video, window, _) in enumerate(chunk):
                sums[video].add(window, {space: part[row] for space, part in moments.items()})
        return [self._encoded(*item) for item in zip(videos, plans, sums, strict=True)]

    @torch.inference_mode()
    def encode_pooled(self, inputs: Tensor, sample: GroundingDataSample) -> EncodedVideo:
        """Encode a video as a dataset gives it, (R, D) after pooling: always as one window."""
        plan = WindowPlan(self.model.grid, len(inputs), 1.0, sample.duration)
        sums = MomentSums(plan)
        moments = self.model.encode_moments(inputs[None].to(self.device), [sample])  # (1, P, J)
        moments = self.model.head.normalise(moments)
        sums.add(0, {space: part[0] for space, part in moments.items()})
        return self._encoded(sample, plan, sums)

    def _require_same_extractor(self, video: VideoFeatures) -> None:
        if video.fingerprint is not None:
            require_same_extractor(
                getattr(self.model, 'extractor_fingerprints', None),
                [video.fingerprint],
                str(getattr(self.model, 'loaded_from', 'the checkpoint')),
                [f'the file with the features of {video.video_id}'],
            )

    def _plan(self, video: VideoFeatures) -> WindowPlan:
        window = self.long_video.window_of(video.duration)
        return WindowPlan(
            self.model.grid,
            len(video.values),
            video.row_seconds,
            video.duration,
            window,
            self.long_video.overlap,
        )

    def _windows(self, videos, plans) -> Iterator[tuple[int, int, dict]]:
        """(place of the video, number of the window, packed inputs) of all windows."""
        for place, (video, plan) in enumerate(zip(videos, plans, strict=True)):
            for window in range(len(plan)):
                yield (
                    place,
                    window,
                    self.pipeline(
                        dict(
                            features=plan.features(video.values, window),
                            video_id=video.video_id,
                            duration=plan.window,
                            sentences=[],
                        )
                    ),
                )

    def _encoded(
        self, video: VideoFeatures | GroundingDataSample, plan: WindowPlan, sums: MomentSums
    ) -> EncodedVideo:
        power = self.model.head.score_power
        if len(plan) > 1 and self.long_video.score_power is not None:
            power = self.long_video.score_power
        return EncodedVideo(
            video_id=video.video_id,
            duration=video.duration,
            moments=sums.mean(),
            spans=plan.spans.to(self.device),
            trust=plan.trust.to(self.device),
            num_windows=len(plan),
            length_in_windows=plan.duration / plan.window,
            score_power=power,
        )


def _chunks(items: Iterator, size: int) -> Iterator[list]:
    while chunk := list(islice(items, size)):
        yield chunk
