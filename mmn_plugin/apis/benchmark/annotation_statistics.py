"""How many sentences videos have, and how long these are."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmn_plugin.structures.annotations import read_annotations

from .recorded_annotations import RECORDED_ANNOTATIONS

_WORD = re.compile(r'\w+|[^\w\s]')


@dataclass
class AnnotationStatistics:
    """Distributions that made-up batches follow.

    Attributes:
        sentences (np.ndarray): (V,) sentences of each video, rising.
        tokens (np.ndarray): Sorted sample, or quantiles, of a sentence's number of tokens.
        seconds (np.ndarray): Sorted sample, or quantiles, of a video's duration.
        source (str): Where they come from, for the report.
    """

    sentences: np.ndarray
    tokens: np.ndarray
    seconds: np.ndarray
    source: str

    @classmethod
    def of_dataset(
        cls, dataset: dict, split: str, ann_file: str | None = None
    ) -> 'AnnotationStatistics':
        """From a dataset's annotation file where it exists, else as recorded for a benchmark.

        Args:
            dataset (dict): Config of the dataset; the last part of ``data_root`` is its name.
            split (str): ``'train'`` or ``'test'``.
            ann_file (str, optional): Another annotation file. Defaults to None: the config's.

        Raises:
            FileNotFoundError: If there is no such file, and nothing is recorded under that name.
        """
        path = Path(ann_file or Path(dataset.get('data_root', ''), dataset['ann_file']))
        if path.is_file():
            return cls.of_file(path)
        name = Path(dataset.get('data_root', '')).name
        if ann_file or (name, split) not in RECORDED_ANNOTATIONS:
            raise FileNotFoundError(
                f'annotation file {path} does not exist, and nothing is recorded of a dataset '
                f'{name!r}: give one with --annotations'
            )
        recorded = RECORDED_ANNOTATIONS[name, split]
        counts, videos = zip(*sorted(recorded['videos'].items()), strict=True)
        return cls(
            np.repeat(counts, videos),
            np.array(recorded['tokens']),
            np.array(recorded['seconds']),
            f'recorded of {name}, {split}',
        )

    @classmethod
    def of_file(cls, path: Path) -> 'AnnotationStatistics':
        """Counted in an annotation file; a word or a punctuation mark is taken for one token."""
        videos = read_annotations(str(path))
        tokens = [
            2 + len(_WORD.findall(sentence)) for video in videos for sentence in video.sentences
        ]  # [CLS] and [SEP]
        return cls(
            np.sort([len(video.sentences) for video in videos]),
            np.sort(tokens),
            np.sort([video.duration for video in videos]),
            str(path),
        )

    def sentences_of(self, num_videos: int) -> list[int]:
        """Sentences of a typical batch: the middles of ``num_videos`` equal parts of all videos."""
        places = (np.arange(num_videos) + 0.5) / num_videos * len(self.sentences)
        return self.sentences[places.astype(int)].tolist()

    def draw(self, values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """So many random values with the distribution of a sample or of quantiles."""
        return np.quantile(values, rng.random(count))
