"""Where and when do sentences happen in videos?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.registry import Registry

from mmn_plugin.config import load_config
from mmn_plugin.datasets import LoadTubes, TubeError, TubeVideo, grounds_tubes
from mmn_plugin.errors import InputError
from mmn_plugin.features import VideoInfo, VideoReader, probe_video
from mmn_plugin.features.extractor import TRACKERS, TUBE_EXTRACTORS

from .pretrained import load_model
from .video_input import check_sentences, plain_video


class TubeGroundingInferencer:
    """Finds which tube a sentence describes, and when.

    Args:
        config (str | Path | Config): As of `GroundingInferencer`. Its ``extractor`` describes
            tubes of a video file; its ``tracker`` finds them where none are given.
        checkpoint (str | Path): Checkpoint trained with it.
        device (str, optional): Defaults to None: the accelerator if there is one.

    Raises:
        FileNotFoundError: If config, checkpoint or vocabulary do not exist.
        ValueError: If checkpoint and config do not belong together, or the config is of moments.

    Examples:
        >>> inferencer = TubeGroundingInferencer('mmn_shapes_tubes.py', 'epoch_10.pth')
        >>> inferencer('video.mp4', ['a red circle grows'])
        [{'sentence': 'a red circle grows', 'tube': array of (n, 5), 'score': 0.9, ...}]
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | None = None
    ):
        self.config = config if isinstance(config, Config) else load_config(config)
        if not grounds_tubes(self.config):
            raise InputError(
                f'{self.config.filename or "the config"} is of moments, and this is '
                'for tubes: ask with `mmn ground`, or GroundingInferencer'
            )
        self.device = device or get_device()
        self.model = load_model(self.config, checkpoint, self.device)
        dataset = self.config.test_dataloader.dataset
        self.streams = list(dataset.streams)
        # built here: `Compose` looks them up in the default scope, which a script need not have set
        steps = [step for step in dataset.pipeline if step['type'] != LoadTubes.__name__]
        self.transforms = Compose([TRANSFORMS.build(step) for step in steps])

    def __call__(
        self,
        video: str | Path,
        sentences: str | Sequence[str],
        tubes: Sequence[np.ndarray] | TubeVideo | None = None,
    ) -> list[dict]:
        """Ground sentences in a video file.

        Args:
            video (str | Path): The video; its frames are held in memory, scaled down.
            sentences (str | Sequence[str]): One or more.
            tubes (Sequence[np.ndarray] | TubeVideo, optional): Candidates (n, 5), or what
                `read_tracks` gives: frames count the video's pictures from 0, whatever its rate,
                boxes are in pixels of an upright picture. Features that come with them are used,
                of the others the config's extractor makes them. Defaults to None: those of the
                config's tracker.

        Returns:
            list[dict]: Per sentence ``sentence``, ``tube`` (n, 5), ``span`` [start, end] in
            seconds (from when its first picture is shown until its last one is no more),
            ``tube_index`` and ``score``; an empty tube, no span and index -1 where there is no
            candidate.

        Raises:
            VideoReadError: If the video cannot be read.
            ValueError: If a sentence or a tube has no meaning, tubes cannot be of this video (see
                `TubeVideo.check_video`), or the config lacks an extractor.
        """
        video, sentences = plain_video(video), check_sentences(self.model, sentences)
        info = probe_video(video)
        given = tubes if isinstance(tubes, TubeVideo) else TubeVideo('', [], [], tubes)
        complete = set(self.streams) <= given.features.keys()
        features = given.features if complete else {}
        found = TubeVideo(Path(video).stem, sentences, [], given.tubes, features, given.source)
        if found.tubes is not None:
            found.tubes = [np.asarray(tube, np.float32) for tube in found.tubes]
            found.check(str(video))
            found.check_video(video, info)
        if found.tubes is None or (found.tubes and not complete):
            self._describe(found, video, info)
        return self._answers(self.ground(found), info)

    def _describe(self, found: TubeVideo, video: str | Path, info: VideoInfo) -> None:
        """Give a video features, and tubes where ``found.tubes`` is None."""
        extractor = self._build(TUBE_EXTRACTORS, 'extractor')
        frames = np.stack(list(VideoReader(video, None, extractor.size, info.times)))
        scale = frames.shape[-1] / np.array([info.width, info.height])  # of (F, 3, size, size)
        if found.tubes is None:
            tracks = self._build(TRACKERS, 'tracker')(frames)
            found.tubes = [_scaled(track, 1 / scale) for track in tracks]
        found.features = extractor(frames, [_scaled(tube, scale) for tube in found.tubes])

    @torch.inference_mode()
    def ground(self, video: TubeVideo):
        """Answer a video whose tubes have features; returns its `TubeDataSample`.

        Raises:
            TubeError: If a stream is absent, or something has no meaning.
        """
        video.check(f'video {video.video_id!r}')
        missing = [stream for stream in self.streams if stream not in video.features]
        if missing and video.tubes:
            raise TubeError(
                f'video {video.video_id!r} has no features {missing[0]!r}, which the '
                f'model was trained with; it has {sorted(video.features)}'
            )
        packed = self.transforms(
            dict(
                video_id=video.video_id,
                sentences=video.sentences,
                tubes=video.tubes,
                features=[video.features.get(stream, []) for stream in self.streams],
            )
        )
        if not video.tubes:
            sample, head = packed['data_samples'], self.model.head
            (encoded,) = head.split({}, [sample])
            sample.pred_instances = head.rank(encoded, torch.zeros(len(sample.sentences), 0))
            return sample
        batch = self.model.data_preprocessor(
            dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
        )
        return self.model(**batch, mode='predict')[0]

    def _answers(self, sample, info: VideoInfo) -> list[dict]:
        predicted, answers = sample.pred_instances, []
        ends = [*info.times[1:].tolist(), info.duration]
        for i, sentence in enumerate(sample.sentences):
            tube, span = predicted.tubes[i], None
            if len(tube):
                span = [float(info.times[int(tube[0, 0])]), ends[int(tube[-1, 0])]]
            index, score = int(predicted.tube_index[i]), float(predicted.scores[i])
            answers.append(
                dict(sentence=sentence, tube=tube, span=span, tube_index=index, score=score)
            )
        return answers

    def _build(self, registry: Registry, name: str):
        settings = self.config.get(name)
        if settings is None:
            raise InputError(
                f'the config has no `{name}`: give one, such as in '
                'mmn_shapes_tubes.py, or tubes with features (see `ground`)'
            )
        return registry.build(settings)


def _scaled(tube: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A tube (n, 5) in pictures that are ``scale`` (2,) times as wide and high.

    Boxes include both edges: pixels 0 to 9 become 0 to 19, and never less than a pixel.
    """
    low, high = tube[:, 1:3] * scale, (tube[:, 3:] + 1) * scale - 1
    return np.concatenate([tube[:, :1], low, np.maximum(low, high)], 1).astype(np.float32)
