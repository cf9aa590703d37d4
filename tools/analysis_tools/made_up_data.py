"""Made-up batches with the shapes of a config and the sentences of real annotations."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import DATASETS
from mmengine.config import Config
from mmengine.structures import InstanceData
from transformers import AutoConfig

from mmn_plugin.datasets import grounds_tubes, single_configs
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.hub import find_model
from mmn_plugin.structures import GroundingDataSample

RECORDED = Path(__file__).with_name('annotation_statistics.json')


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
            encoder.config = AutoConfig.from_pretrained(
                find_model(name), local_files_only=True
            ).to_dict()
        except (OSError, ValueError):
            encoder.config = dict(model_type='distilbert')
            if Path(name).name != 'distilbert-base-uncased':
                print(f'{name!r} is not at hand: DistilBERT-base stands in', file=sys.stderr)
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    count = AutoConfig.for_model(**encoder.config).vocab_size - len(special)
    vocabulary = [*special, *(f'w{index}' for index in range(count))]
    cfg.model.data_preprocessor.tokenizer = dict(type='SentenceTokenizer', vocab=vocabulary)
    return cfg


def made_up_batch(cfg: Config, split: str, num_videos: int) -> dict:
    """A batch of a config's shapes as a data loader gives it, seeded.

    Args:
        cfg (Config): Of `offline_config`.
        split (str): ``'train'`` or ``'test'``.
        num_videos (int): B.

    Returns:
        dict: ``inputs``, B tensors (R, D), and ``data_samples`` with sentences and ground truth.
    """
    rng, dataset = np.random.default_rng(0), cfg[f'{split}_dataloader'].dataset
    parts = [*single_configs(dataset)]  # corpora of a joint training have one pipeline
    found = [annotation_statistics(part, split) for part in parts]
    sentences, tokens, seconds = (
        np.sort(np.concatenate(part)) for part in zip(*found, strict=True)
    )
    num_segments = next(step.num_segments for step in parts[0].pipeline if 'num_segments' in step)
    shape = num_videos, num_segments, cfg.model.backbone.in_channels
    words = np.array(cfg.model.data_preprocessor.tokenizer.vocab[5:])
    samples = []
    for place, count in enumerate(typical(sentences, num_videos).tolist()):
        lengths = np.quantile(tokens, rng.random(count)).round().astype(int) - 2  # [CLS], [SEP]
        texts = [' '.join(rng.choice(words, max(1, length))) for length in lengths]
        duration = float(np.quantile(seconds, rng.random()))
        about = dict(video_id=f'v{place}', duration=duration, sentences=texts)
        sample = GroundingDataSample(metainfo=dict(about, sentence_index=list(range(count))))
        moments = np.sort(rng.random((count, 2)) * duration, axis=1)
        moments[:, 1] += 1e-3 * duration  # no moment is empty
        sample.gt_instances = InstanceData(moments=torch.from_numpy(moments).float())
        samples.append(sample)
    inputs = torch.from_numpy(rng.random(shape, dtype=np.float32))
    return dict(inputs=list(inputs), data_samples=samples)


def typical(sentences: np.ndarray, num_videos: int) -> np.ndarray:
    """Sentences (B,) of a batch that stands for all: the middles of B equal parts of the videos."""
    places = (np.arange(num_videos) + 0.5) / num_videos * len(sentences)
    return sentences[places.astype(int)]


def annotation_statistics(dataset: dict, split: str) -> tuple:
    """Sentences of each video, tokens of sentences, and durations, each sorted.

    Counted in the annotation file, where a word or punctuation mark is taken for one token; where
    there is none, as recorded under the last part of the dataset's ``data_root``.

    Raises:
        FileNotFoundError: If there is no such file, and nothing is recorded under that name.
    """
    root = Path(dataset.get('data_root', ''))
    path = root / dataset['ann_file']
    if path.is_file():
        settings = dict(dataset, pipeline=[], data_prefix={}, lazy_init=True)
        videos = DATASETS.build(dict(type='TemporalGroundingDataset') | settings).read_videos()
        texts = [sentence for video in videos for sentence in video.sentences]
        counts = [len(video.sentences) for video in videos]
        tokens = [2 + len(re.findall(r'\w+|[^\w\s]', text)) for text in texts]  # [CLS] and [SEP]
        return np.sort(counts), np.sort(tokens), np.sort([video.duration for video in videos])
    recorded = json.loads(RECORDED.read_text()).get(root.name, {})
    if split not in recorded:
        raise MissingFileError(
            f'annotation file {path} does not exist, and nothing is recorded of a dataset '
            f'{root.name!r}: name one with --cfg-options {split}_dataloader.dataset.ann_file=FILE'
        )
    counts = sorted((int(count), videos) for count, videos in recorded[split]['videos'].items())
    sentences = np.repeat(*map(np.array, zip(*counts, strict=True)))
    return sentences, np.array(recorded[split]['tokens']), np.array(recorded[split]['seconds'])
