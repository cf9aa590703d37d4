"""Made-up batches with the shapes of a config and the sentences of real annotations."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from transformers import AutoConfig

from mmn_plugin.datasets import grounds_tubes, write_random_features
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.structures import GroundingDataSample
from mmn_plugin.structures.annotations import read_annotations

RECORDED = Path(__file__).with_name('annotation_statistics.json')
SPECIAL_TOKENS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


class Workload:
    """Made-up batches of a config's real shapes, seeded.

    A batch of B videos has a typical number of sentences (the middles of B equal parts of all
    videos), so that one batch stands for all.

    Args:
        cfg (Config): Of `offline_config`.
        split (str): ``'train'`` or ``'test'``.
        ann_file (str, optional): Annotation file to count in. Defaults to None: the config's.
        seed (int): Defaults to 0.

    Attributes:
        sentences (np.ndarray): (V,) sentences of each video, rising.
        tokens (np.ndarray): Sorted sample, or quantiles, of a sentence's number of tokens.
        seconds (np.ndarray): Sorted sample, or quantiles, of a video's duration.

    Raises:
        FileNotFoundError: If there is no such file, and nothing is recorded under that name.
        ValueError: If the pipeline has no ``PoolClipFeatures``.
    """

    def __init__(self, cfg: Config, split: str, ann_file: str | None = None, seed: int = 0):
        dataset = cfg[f'{split}_dataloader'].dataset
        self.sentences, self.tokens, self.seconds = annotation_statistics(dataset, split, ann_file)
        segments = [step.num_segments for step in dataset.pipeline if 'num_segments' in step]
        if not segments:
            raise InputError(
                'the pipeline of the config has no PoolClipFeatures with num_segments: the '
                'size of the inputs is not known'
            )
        self.shape = segments[0], cfg.model.backbone.in_channels
        self.words = cfg.model.data_preprocessor.tokenizer.vocab[len(SPECIAL_TOKENS) :]
        self.seed = seed

    def batch(self, num_videos: int) -> dict:
        """As a data loader gives it: ``inputs``, B tensors (R, D), and ``data_samples``."""
        generator = torch.Generator().manual_seed(self.seed)
        inputs = [torch.rand(self.shape, generator=generator) for _ in range(num_videos)]
        return dict(inputs=inputs, data_samples=self.samples(num_videos))

    def samples(self, num_videos: int | None = None) -> list[GroundingDataSample]:
        """A typical batch's videos, or all of them, with sentences and ground truth."""
        counts, rng = self.sentences, np.random.default_rng(self.seed)
        if num_videos is not None:
            places = (np.arange(num_videos) + 0.5) / num_videos * len(counts)
            counts = counts[places.astype(int)]
        return [self._sample(f'v{i}', count, rng) for i, count in enumerate(counts.tolist())]

    def _sample(self, video_id: str, count: int, rng: np.random.Generator) -> GroundingDataSample:
        duration = float(np.quantile(self.seconds, rng.random()))
        tokens = np.quantile(self.tokens, rng.random(count)).round().astype(int)
        places = [rng.integers(len(self.words), size=max(1, number - 2)) for number in tokens]
        sentences = [' '.join(self.words[place] for place in sentence) for sentence in places]
        metainfo = dict(video_id=video_id, duration=duration, sentences=sentences)
        sample = GroundingDataSample(metainfo=dict(metainfo, sentence_index=list(range(count))))
        moments = np.sort(rng.random((count, 2)) * duration, axis=1)
        moments[:, 1] += 1e-3 * duration  # no moment is empty
        sample.gt_instances = InstanceData(moments=torch.from_numpy(moments).float())
        return sample

    def write_corpus(self, folder: Path, num_videos: int, rows: int | None = None) -> dict:
        """Annotation and feature files of a typical batch; what to change in the dataset's config.

        ``rows`` are those of a video's features, by default 4 per segment.
        """
        samples = self.samples(num_videos)
        annotations = {
            sample.video_id: dict(
                duration=sample.duration,
                sentences=sample.sentences,
                timestamps=sample.gt_instances.moments.clamp(max=sample.duration).tolist(),
            )
            for sample in samples
        }
        (folder / 'train.json').write_text(json.dumps(annotations))
        num_segments, size = self.shape
        write_random_features(folder / 'f.h5', annotations, size, rows or 4 * num_segments)
        prefix = dict(features='f.h5')
        return dict(
            data_root=str(folder), ann_file='train.json', data_prefix=prefix, feature_key=None
        )


def annotation_statistics(dataset: dict, split: str, ann_file: str | None = None) -> tuple:
    """Sentences per video, tokens per sentence, and durations: of a file, else as recorded.

    A word or a punctuation mark of a file is taken for one token. The last part of the dataset's
    ``data_root`` is the name it is recorded under.
    """
    root = Path(dataset.get('data_root', ''))
    path = Path(ann_file or root / dataset['ann_file'])
    if path.is_file():
        videos = read_annotations(str(path))
        words = [
            2 + len(re.findall(r'\w+|[^\w\s]', sentence))  # [CLS] and [SEP]
            for video in videos
            for sentence in video.sentences
        ]
        counts = [len(video.sentences) for video in videos]
        return np.sort(counts), np.sort(words), np.sort([video.duration for video in videos])
    recorded = json.loads(RECORDED.read_text()).get(root.name, {})
    if ann_file or split not in recorded:
        raise MissingFileError(
            f'annotation file {path} does not exist, and nothing is recorded of a dataset '
            f'{root.name!r}: give one with --annotations'
        )
    counts = sorted((int(count), videos) for count, videos in recorded[split]['videos'].items())
    sentences = np.repeat(*map(np.array, zip(*counts, strict=True)))
    return sentences, np.array(recorded[split]['tokens']), np.array(recorded[split]['seconds'])


def offline_config(cfg: Config) -> Config:
    """A copy whose language model is of real size but random, and whose vocabulary is made up.

    A language model that is neither a folder nor in the local cache is replaced by one of
    DistilBERT-base's shape.
    """
    if grounds_tubes(cfg):
        raise InputError(
            f'{cfg.filename or "the config"} is of tubes; models of moments are measured here. '
            "A training's log tells `time` and `data_time` of its steps"
        )
    cfg = cfg.copy()
    encoder = cfg.model.text_encoder
    if name := encoder.pop('name_or_path', None):
        try:
            encoder.config = AutoConfig.from_pretrained(name, local_files_only=True).to_dict()
        except (OSError, ValueError):
            encoder.config = dict(model_type='distilbert')
            if Path(name).name != 'distilbert-base-uncased':
                print(f'{name!r} is not at hand: DistilBERT-base stands in', file=sys.stderr)
    size = AutoConfig.for_model(**encoder.config).vocab_size
    words = [f'w{index}' for index in range(size - len(SPECIAL_TOKENS))]
    cfg.model.data_preprocessor.tokenizer = dict(
        type='SentenceTokenizer', vocab=[*SPECIAL_TOKENS, *words]
    )
    return cfg
