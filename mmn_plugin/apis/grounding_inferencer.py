"""When do sentences happen in videos?"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from mmaction.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.config import require_device
from mmn_plugin.datasets import LoadClipFeatures, grounds_tubes, single_configs
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.features import Rewriter, build_extractor
from mmn_plugin.files import OutputFolder
from mmn_plugin.hub import with_model_root
from mmn_plugin.structures import GroundingDataSample, MomentGrid, VideoEmbedding
from mmn_plugin.visualization import draw_timelines, timeline_files

from .candidates import Candidate, find_candidates
from .long_video import LongVideo, VideoEncoder
from .presence import result_dicts, threshold_at
from .pretrained import (
    build_model,
    is_folder,
    named_models,
    plain_meta,
    read_checkpoint,
    resolve_model,
    write_folder,
)
from .video_input import (
    VideoFeatures,
    as_videos,
    check_sentence_lists,
    check_sentences,
    one_each,
    plain_video,
    video_name,
)

# Scores held at once, in float32: long videos have many moments, some callers many sentences.
_CELLS = 1 << 24


class GroundingInferencer(BaseInferencer):
    """Finds the moments that sentences describe.

    A video is encoded once; every sentence after that costs its own encoding and a product. The
    steps are those of MMEngine's inferencers. Several threads may use one inferencer.

    Args:
        config (str | Path | Config, optional): Name of a model of this package (``mmn_shapes``,
            ``zero_shot_siglip2``), path or name of a config, or a config. Its test pipeline pools
            the features; its ``extractor`` describes how features are made from a video file, its
            ``long_video`` how long videos are cut into windows. Defaults to None: the checkpoint's
            own.
        checkpoint (str | Path, optional): File trained with it, or a folder of
            `save_pretrained`. Defaults to None: the published weights of a named model; a model
            that needs no training has none.
        device (str, optional): Defaults to None: the accelerator if there is one.
        top_n (int, optional): Moments per sentence. Defaults to None: as in the config.
        sentence_batch (int): Sentences that go through the model together. Defaults to 256.
        presence_threshold (float, optional): Sentences of less presence do not occur, in a video of
            any length. Defaults to None: the checkpoint's, higher in longer ones (`threshold_at`).
        long_video (dict, optional): Instead of the config's, see `LongVideo`; ``{}`` looks at
            every video whole. Defaults to None.
        model_root (str | Path, optional): Folder with the models of Hugging Face that the config
            names, see `find_model`. Defaults to None.
        rewrite (Callable, optional): Makes another sentence of each before the model sees it, such
            as a statement of a question; called once for a sentence. Defaults to None.

    Raises:
        FileNotFoundError: If config, checkpoint or vocabulary do not exist.
        ValueError: If checkpoint and config do not belong together, no checkpoint is given or
            known, the config is of tubes, or a number is out of its range.

    Examples:
        >>> inferencer = GroundingInferencer('mmn_shapes', 'epoch_30.pth')
        >>> inferencer('video.mp4', ['a red circle grows'])
        [{'sentence': 'a red circle grows', 'moments': [[4.5, 9.0], ...], 'scores': [0.93, ...]}]
        >>> encoded = inferencer.encode('video.mp4')
        >>> inferencer.ground(encoded, ['a blue square moves left'])
    """

    preprocess_kwargs = {'sentences', 'duration', 'fps', 'video_id'}
    forward_kwargs = {'top_n', 'curves'}
    visualize_kwargs = {'show', 'out_dir'}
    postprocess_kwargs = {'drop_absent'}

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        top_n: int | None = None,
        sentence_batch: int = 256,
        presence_threshold: float | None = None,
        long_video: dict | None = None,
        model_root: str | Path | None = None,
        rewrite: Callable[[str], str] | None = None,
    ) -> None:
        for name, value in dict(sentence_batch=sentence_batch, top_n=top_n).items():
            if value is not None and value < 1:
                raise InputError(f'{name}={value}; it must be at least 1')
        if presence_threshold is not None and not -1 <= presence_threshold <= 1:
            raise InputError(f'presence_threshold={presence_threshold}; it must be from -1 to 1')
        config, path = resolve_model(config, checkpoint)
        self.device = require_device(device or get_device())
        self._own_config = path is not None and (config is None or is_folder(path))
        config, self._loaded = read_checkpoint(path, config)
        config = with_model_root(config, model_root)
        if grounds_tubes(config):
            raise InputError(
                f'{config.filename or path} is of tubes, and this is for moments: '
                'ask with `mmn ground --config`, or TubeGroundingInferencer'
            )
        super().__init__(config, path, self.device, scope='mmaction', show_progress=False)
        self.config = self.cfg
        self.meta = plain_meta(self._loaded.get('meta', {}))
        del self._loaded
        if self.config.get('presence'):
            self.meta.setdefault('presence', self.config.presence.to_dict())
        self.rewrite = rewrite and Rewriter(rewrite)
        self.top_n = top_n or self.model.head.top_n
        self.sentence_batch = sentence_batch
        if presence_threshold is not None:
            self.meta['presence'] = dict(threshold=presence_threshold, tail=0.0)
        if long_video is not None:
            self.config.long_video = long_video
        settings = LongVideo(**self.config.get('long_video') or {})
        fingerprints = self.meta.get('extractor')  # of the training's features
        self.video_encoder = VideoEncoder(
            self.model, self.pipeline, self.device, settings, fingerprints, path or 'the model'
        )
        self._extractor, self._lock = None, threading.Lock()

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options) -> 'GroundingInferencer':
        """The inferencer that `save_pretrained` wrote; answers are the same to the bit.

        Options are those of the class, but for config and checkpoint.

        Raises:
            FileNotFoundError: If it is no such folder.
        """
        if not is_folder(folder):
            raise MissingFileError(f'{folder} is no folder of save_pretrained: no config.json')
        return cls(None, folder, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config, weights (safetensors), tokenizer and a model card to complete.

        Of a tower only its name and fingerprint are written; it is looked for when a sentence is
        embedded, and another one is refused then.

        Raises:
            ValueError: If the folder cannot be made, or the config is more than plain data.
        """
        write_folder(folder, self.config, self.model, self.meta)

    @staticmethod
    def list_models(scope: str | None = None, patterns: str = r'.*') -> list[str]:
        """Names that ``config`` takes, of those that match a regular expression."""
        return [name for name in named_models() if re.match(patterns, name)]

    @property
    def presence_threshold(self) -> float | None:
        """Presence from which a sentence occurs in a video of one window; None: nobody measured."""
        return self.meta.get('presence', {}).get('threshold')

    def threshold_of(self, sample: GroundingDataSample) -> float | None:
        """`presence_threshold` in the video of a sample of `predict`."""
        found = self.meta.get('presence')
        return None if found is None else threshold_at(found, sample.length_in_windows)

    @property
    def extractor(self):
        """The config's feature extractor, built at the first use; the model's tower if it is that.

        Raises:
            ValueError: If the config has none, or another one than made the training's features.
        """
        with self._lock:
            if self._extractor is None:
                settings = self.config.get('extractor')
                if settings is None:
                    raise InputError(
                        'the config has no `extractor`, so that a video file cannot be used: give '
                        'features, (T, D) with duration=<seconds>, or add the extractor that made '
                        "the training's, such as extractor = dict(type='GridFeatureExtractor')"
                    )
                shared = settings == self.config.model.get('tower')
                built = self.model.tower if shared else build_extractor(settings, self.device)
                if self.video_encoder.fingerprints or (self.model.head.tower_spaces and not shared):
                    name = f"the config's extractor ({settings['type']})"
                    self.video_encoder.require_features(built.fingerprint, name)
                self._extractor = built
            return self._extractor

    def __call__(
        self,
        video,
        sentences,
        duration=None,
        return_datasamples: bool = False,
        batch_size: int = 4,
        **kwargs,
    ) -> list:
        """Ground sentences in a video, or in each of several.

        Args:
            video: What `encode` takes; or a list or tuple of such, or an array of paths.
            sentences (str | Sequence[str] | Sequence[Sequence[str]]): What to look for; with
                several videos the same in all, or a list of sentences for each.
            duration (float | Sequence[float], optional): As of `encode`, for each video.
            return_datasamples (bool): Give data samples instead of dicts. Defaults to False.
            batch_size (int): Videos in memory at once. Defaults to 4.
            **kwargs: ``fps`` and ``video_id`` (as of `encode`), ``top_n``, ``drop_absent`` (as of
                `ground`), ``out_dir`` (folder for a picture of each video, see `draw_timelines`),
                ``show``.

        Returns:
            list[dict] | list[list[dict]]: As of `ground`; for several videos a list of such.

        Raises:
            ValueError: As of `encode` and `ground`, or if the lists are of different lengths; like
                the next before any video costs time, where that is possible.
            OutputError: If pictures cannot be written.
        """
        several, out_dir = as_videos(video), kwargs.get('out_dir')
        videos = [plain_video(entry) for entry in ([video] if several is None else several)]
        count = None if several is None else len(videos)
        sentences = check_sentence_lists(self.model, sentences, count, self.rewrite)
        names = one_each(kwargs.get('video_id'), len(videos))
        if out_dir is not None and len(names) == len(videos):  # else `preprocess` refuses them
            names = [name or video_name(one) for name, one in zip(names, videos, strict=True)]
            folder = OutputFolder(out_dir)
            folder.claim(timeline_files(folder, videos, names, keep=False))
        results = super().__call__(
            videos,
            return_datasamples,
            batch_size,
            sentences=sentences,
            duration=duration,
            curves=bool(kwargs.get('show')) or out_dir is not None,
            **kwargs,
        )
        return results[0] if several is None else results

    def preprocess(
        self,
        inputs: list,
        batch_size: int,
        sentences: list[list[str]],
        duration=None,
        fps: float | None = None,
        video_id=None,
    ) -> Iterator[list[tuple[VideoFeatures, list[str]]]]:
        """Features of the videos with their sentences, a batch of videos at a time."""
        durations, names = (one_each(value, len(inputs)) for value in (duration, video_id))
        counts = len(inputs), len(durations), len(names)
        if len(set(counts)) > 1:
            raise InputError('{} videos, but {} durations and {} names'.format(*counts))

        def read(video, texts, seconds, name):
            return VideoFeatures.of(video, lambda: self.extractor, seconds, name, fps), texts

        yield from self._get_chunk_data(map(read, inputs, sentences, durations, names), batch_size)

    @torch.inference_mode()
    def forward(
        self,
        inputs: list[tuple[VideoFeatures, list[str]]],
        top_n: int | None = None,
        curves: bool = False,
    ) -> list[GroundingDataSample]:
        """Encode a batch of videos and rank their moments; with ``curves`` for a picture."""
        samples, encoded = [], self.video_encoder([features for features, _ in inputs])
        for video, (_, texts) in zip(encoded, inputs, strict=True):
            samples.append(self.predict(video, texts, top_n, curves))
        return samples

    def visualize(
        self,
        inputs: list,
        preds: list[GroundingDataSample],
        show: bool = False,
        out_dir: str | Path | None = None,
    ) -> list | None:
        """Timelines, shown or written as ``<out_dir>/<video>_timeline.png``, where asked for."""
        asked = show or out_dir is not None
        return draw_timelines(inputs, preds, show, out_dir) if asked else None

    def postprocess(
        self,
        preds: list[GroundingDataSample],
        visualization=None,
        return_datasamples: bool = False,
        drop_absent: bool = False,
    ) -> list:
        """Samples as they are, or as lists of dicts."""
        if return_datasamples:
            return preds
        return [self.result_dicts(sample, drop_absent) for sample in preds]

    def encode(
        self,
        video,
        duration: float | None = None,
        video_id: str | None = None,
        fps: float | None = None,
    ) -> VideoEmbedding:
        """Do everything that does not depend on a sentence, for `ground`.

        Args:
            video (str | bytes | PathLike | IO[bytes] | np.ndarray | Tensor | h5py.Dataset): A video
                file, an open file, frames (T, H, W, 3) uint8 RGB with ``fps``, or features: (T, D),
                an entry of an HDF5 file, or ``'FILE.h5::ENTRY'``.
            duration (float, optional): Seconds; needed with features that do not tell it. Defaults
                to None: the file's.
            video_id (str, optional): Name for messages. Defaults to None: the file's.
            fps (float | str, optional): Frames per second of an array of frames.

        Raises:
            VideoReadError: If the file cannot be read.
            ValueError: If the features' shape or size is wrong, or their duration is missing.
        """
        features = VideoFeatures.of(video, lambda: self.extractor, duration, video_id, fps)
        return self.video_encoder([features])[0]

    def ground(
        self,
        encoded: VideoEmbedding,
        sentences: str | Sequence[str],
        top_n: int | None = None,
        drop_absent: bool = False,
    ) -> list[dict]:
        """Rank the moments of an encoded video for each sentence.

        Args:
            encoded (VideoEmbedding): From `encode`.
            sentences (str | Sequence[str]): One or more.
            top_n (int, optional): Moments per sentence. Defaults to None: as of the class.
            drop_absent (bool): No moments for sentences that do not occur, where a
                ``presence_threshold`` is known. Defaults to False.

        Returns:
            list[dict]: Per sentence ``sentence``, ``moments`` ([start, end] in seconds, best first)
            and ``scores``; where a ``presence_threshold`` is known also ``presence`` and
            ``present``, whether the sentence occurs at all.

        Raises:
            ValueError: If a sentence is empty or holds no word that the model knows.
        """
        return self.result_dicts(self.predict(encoded, sentences, top_n), drop_absent)

    def result_dicts(self, sample: GroundingDataSample, drop_absent: bool = False) -> list[dict]:
        """What `ground` returns, from a sample of `predict`.

        Raises:
            ValueError: If ``drop_absent`` is asked for and no threshold is known.
        """
        return result_dicts(sample, self.threshold_of(sample), drop_absent)

    def check_sentences(self, sentences: str | Sequence[str]) -> list[str]:
        """One or more sentences as a list; an `InputError` where the model knows no word of one."""
        return check_sentences(self.model, sentences, self.rewrite)

    def candidates(
        self, video, sentence: str, n: int = 3, pad: float = 5.0, **options
    ) -> list[Candidate]:
        """Clips of the best moments, for a video LLM that may refine them: `find_candidates`."""
        return find_candidates(self, video, sentence, n, pad, **options)

    @torch.inference_mode()
    def predict(
        self,
        encoded: VideoEmbedding,
        sentences: str | Sequence[str],
        top_n: int | None = None,
        whole: bool = False,
    ) -> GroundingDataSample:
        """As `ground`, but a data sample with ``pred_instances``, as metrics and pictures take: of
        `BaseHead.ground`, on the CPU; with ``whole`` also all scores, and their curves.
        """
        head, sentences = self.model.head, self.check_sentences(sentences)
        result = GroundingDataSample(
            metainfo=dict(
                video_id=encoded.video_id,
                duration=encoded.duration,
                length_in_windows=encoded.length_in_windows,
                sentences=sentences,
                sentence_index=list(range(len(sentences))),
            )
        )
        parts = self.embed(sentences, len(encoded.spans))
        found = [head.ground(encoded, part, top_n or self.top_n, whole) for part in parts]
        result.pred_instances = InstanceData.cat(found)
        return result

    @torch.inference_mode()
    def score_moments(self, encoded: VideoEmbedding, sentences: str | Sequence[str]) -> Tensor:
        """Score of every unit, before ranking: (s, U) on the CPU; of what, ``encoded.spans`` tells.

        In a video that was looked at whole these are the moments of the model's grid, or its clips.
        """
        head, sentences = self.model.head, self.check_sentences(sentences)
        parts = self.embed(sentences, len(encoded.spans))
        return torch.cat([head.score(encoded, part).cpu() for part in parts])

    def moment_map(self, encoded: VideoEmbedding) -> MomentGrid | None:
        """Grid to draw a video's `score_moments` on; None where they are no moments of one grid."""
        return self.model.head.moment_map if encoded.num_windows == 1 else None

    def embed(self, sentences: list[str], scores: int) -> Iterator[dict[str, Tensor]]:
        """Embeddings (s, J) per space, as many together as memory for ``scores`` of each allows."""
        if self.rewrite:
            sentences = list(map(self.rewrite, sentences))
        size = max(min(self.sentence_batch, _CELLS // scores), 1)
        for first in range(0, len(sentences), size):
            yield self.model.encode_sentences(sentences[first : first + size])

    def _init_model(self, cfg: Config, weights: str, device: str = 'cpu'):
        return build_model(cfg, self._loaded, weights, device, self._own_config)

    def _init_pipeline(self, cfg: Config) -> Compose:
        """The test pipeline, but for the step that reads features from files."""
        dataset = next(single_configs(cfg.test_dataloader.dataset))  # of several all are alike
        built = [TRANSFORMS.build(step) for step in dataset.pipeline]
        return Compose([step for step in built if not isinstance(step, LoadClipFeatures)])

    def _init_collate(self, cfg: Config) -> None:
        """Windows are batched by `VideoEncoder`, whatever a test's loader does."""

    def _init_visualizer(self, cfg: Config) -> None:
        """Pictures are drawn where they are asked for; the config's back ends are a run's."""
