"""From a video and sentences to moments."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.datasets import LoadClipFeatures
from mmn_plugin.engine.runner import load_config
from mmn_plugin.ranking import moment_scores
from mmn_plugin.structures import GroundingDataSample

from .encoded_video import EncodedVideo
from .extractors import matching_extractor
from .load_model import load_model
from .video_duration import video_duration


class GroundingInferencer:
    """Finds the moments that sentences describe.

    A video is encoded once; every sentence after that costs its own encoding and a product.

    Args:
        config (str | Path | Config): Path of a config, the name of one of this package, or a
            config. Its test pipeline pools the features; its ``extractor`` describes how features
            are made from a video file.
        checkpoint (str | Path): Checkpoint trained with it.
        device (str, optional): Defaults to None: the accelerator if there is one.
        top_n (int, optional): Moments per sentence. Defaults to None: as in the config.
        sentence_batch (int): Sentences that go through the model together; memory grows with it,
            not with the number of sentences. Defaults to 256.

    Raises:
        FileNotFoundError: If config, checkpoint or vocabulary do not exist.
        ValueError: If checkpoint and config do not belong together, or ``sentence_batch`` < 1.

    Examples:
        >>> inferencer = GroundingInferencer('mmn_shapes.py', 'epoch_30.pth')
        >>> inferencer('video.mp4', ['a red circle grows'])
        [{'sentence': 'a red circle grows', 'moments': [[4.5, 9.0], ...], 'scores': [0.93, ...]}]
        >>> encoded = inferencer.encode('video.mp4')
        >>> inferencer.ground(encoded, ['a blue square moves left'])
    """

    def __init__(self, config: str | Path | Config, checkpoint: str | Path,
                 device: str | None = None, top_n: int | None = None,
                 sentence_batch: int = 256) -> None:
        if sentence_batch < 1:
            raise ValueError(f'sentence_batch={sentence_batch}; it must be at least 1')
        self.sentence_batch = sentence_batch
        self.config = config if isinstance(config, Config) else load_config(str(config))
        self.device = device or get_device()
        self.model = load_model(self.config, checkpoint, self.device)
        if top_n is not None:
            self.model.head.top_n = top_n
        self.transforms = self._build_transforms()
        self._extractor = None

    def __call__(self, video, sentences: str | Sequence[str],
                 duration: float | None = None) -> list[dict]:
        """Ground sentences in a video: `encode`, then `ground`."""
        self._check_sentences(sentences)  # before the video costs time
        return self.ground(self.encode(video, duration), sentences)

    @property
    def extractor(self):
        """The config's feature extractor, built at the first use.

        Raises:
            ValueError: If the config has none, or another one than made the training's features.
        """
        if self._extractor is None:
            settings = self.config.get('extractor')
            if settings is None:
                raise ValueError(
                    'the config has no `extractor`, so that a video file cannot be used: give '
                    'features, (T, D) with duration=<seconds>, or add the extractor that made the '
                    "training's features, such as extractor = dict(type='GridFeatureExtractor')")
            self._extractor = matching_extractor(settings, self.model, self.device)
        return self._extractor

    @torch.inference_mode()
    def encode(self, video, duration: float | None = None,
               video_id: str | None = None) -> EncodedVideo:
        """Do everything that does not depend on a sentence.

        Args:
            video (str | Path | np.ndarray | Tensor): A video file, or its features (T, D).
            duration (float, optional): Seconds; needed with features. Defaults to None: the
                file's.
            video_id (str, optional): Name for messages. Defaults to None: the file's.

        Returns:
            EncodedVideo: For `ground`.

        Raises:
            VideoReadError: If the file cannot be read.
            ValueError: If the features' shape or size is wrong, or their duration is missing.
        """
        if isinstance(video, str | Path):
            video_id = video_id or Path(video).stem
            duration = duration or video_duration(video)
            video = self.extractor(video)
        video_id = video_id or 'array'
        features = self._check_features(video, video_id, duration)
        packed = self.transforms(dict(
            features=features, video_id=video_id, duration=float(duration), sentences=[]))
        inputs = packed['inputs'].to(self.device)  # (R, D)
        moments = self.model.encode_moments(inputs[None], [packed['data_samples']])  # (1, P, J)
        return EncodedVideo(video_id, float(duration), inputs, moments)

    def ground(self, encoded: EncodedVideo, sentences: str | Sequence[str]) -> list[dict]:
        """Rank the moments of an encoded video for each sentence.

        Args:
            encoded (EncodedVideo): From `encode`.
            sentences (str | Sequence[str]): One or more.

        Returns:
            list[dict]: Per sentence ``sentence``, ``moments`` ([start, end] in seconds, best first)
            and ``scores``.

        Raises:
            ValueError: If a sentence is empty or holds no word that the model knows.
        """
        sentences = self._check_sentences(sentences)
        found = self._predict(encoded, sentences).pred_instances
        results = []
        for i, sentence in enumerate(sentences):
            there = ~found.scores[i].isnan()  # (n,)
            results.append(dict(sentence=sentence, moments=found.moments[i][there].tolist(),
                                scores=found.scores[i][there].tolist()))
        return results

    def predict(self, encoded: EncodedVideo,
                sentences: str | Sequence[str]) -> GroundingDataSample:
        """As `ground`, but a data sample with ``pred_instances``, as metrics and pictures take."""
        return self._predict(encoded, self._check_sentences(sentences))

    @torch.inference_mode()
    def score_moments(self, encoded: EncodedVideo, sentences: str | Sequence[str]) -> Tensor:
        """Score of every moment of the grid, before NMS: (s, P), on the CPU, for moment maps."""
        batches = self._batches(encoded, self._check_sentences(sentences))
        return torch.cat([self._score(encoded, sample).cpu() for sample in batches])

    @torch.inference_mode()
    def _predict(self, encoded: EncodedVideo, sentences: list[str]) -> GroundingDataSample:
        found = []
        for sample in self._batches(encoded, sentences):
            scores = self._score(encoded, sample)
            video = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
            self.model.head.rank(scores, video, [sample])
            found.append(sample.pred_instances.to('cpu'))  # all that is kept of a batch
        result = self._sample(encoded, sentences)
        result.pred_instances = InstanceData.cat(found)
        return result

    def _batches(self, encoded: EncodedVideo, sentences: list[str]):
        for first in range(0, len(sentences), self.sentence_batch):
            yield self._sample(encoded, sentences[first:first + self.sentence_batch])

    @staticmethod
    def _sample(encoded: EncodedVideo, sentences: list[str]) -> GroundingDataSample:
        return GroundingDataSample(metainfo=dict(
            video_id=encoded.video_id, duration=encoded.duration, sentences=sentences,
            sentence_index=list(range(len(sentences)))))

    def _score(self, encoded: EncodedVideo, sample: GroundingDataSample) -> Tensor:
        """(s, P), on the model's device."""
        batch = self.model.data_preprocessor(dict(inputs=[encoded.inputs], data_samples=[sample]))
        embeddings = self.model.text_encoder(batch['sentences'])  # (s, J)
        head = self.model.head
        contrastive, iou = head.score(encoded.moments, embeddings, batch['sentences'].video,
                                      [len(sample.sentences)])  # (s, P)
        return moment_scores(contrastive, iou, head.score_power)

    def _check_sentences(self, sentences: str | Sequence[str]) -> list[str]:
        sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        if not sentences:
            raise ValueError('no sentence was given; give at least one')
        for sentence in sentences:
            if not isinstance(sentence, str) or not sentence.strip():
                raise ValueError(f'the sentence {sentence!r} is empty; say what to look for')
        inspected = self.model.data_preprocessor.tokenizer.inspect(sentences)
        for sentence, (_, problem) in zip(sentences, inspected, strict=True):
            if problem:
                raise ValueError(f'the sentence {sentence!r} {problem}; the model cannot know what '
                                 'it means. Use words that it was trained with')
        return sentences

    @staticmethod
    def _check_features(features, video_id: str, duration: float | None) -> np.ndarray:
        if torch.is_tensor(features):
            features = features.detach().cpu().numpy()
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f'the features of video {video_id} have the shape {features.shape}; '
                             'expected (T, D), a row per step of time')
        if not np.isfinite(features).all():
            raise ValueError(f'the features of video {video_id} hold NaN or infinity')
        if duration is None or not duration > 0:
            raise ValueError(f'features alone do not tell how long video {video_id} is: give '
                             f'duration=<seconds above 0>, not {duration}')
        return features

    def _build_transforms(self) -> Compose:
        """The test pipeline, but for the step that reads features from files."""
        steps = self.config.test_dataloader.dataset.pipeline
        built = [TRANSFORMS.build(step) for step in steps]
        return Compose([step for step in built if not isinstance(step, LoadClipFeatures)])
