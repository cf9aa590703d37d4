"""Everything that happens in a library of Shapes' videos, from the descriptions of their scenes."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.evaluation import AskedSentence
from mmn_plugin.files import read_json
from mmn_plugin.structures.annotations import VideoAnnotation

from .corpus import CorpusError, sampler_of
from .scene import ACTIONS, COLORS, SHAPES, Combination, Event, Scene
from .sentences import say


class WholeTruth:
    """What is true in which videos of a corpus: annotations name a sentence's moments in its own
    video, and events of the same color, shape and action in other videos are as right.

    Args:
        folder (str | Path): The corpus.

    Raises:
        FileNotFoundError: If it has no manifest.
    """

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) / 'manifest.json'
        missing = f'{folder} is no corpus of Shapes: it has no manifest.json'
        manifest = read_json(path, missing, CorpusError)
        self.sampler = sampler_of(manifest)
        self._last_of_training = manifest['scene_seeds']['train'][1]

    def scene(self, video_id: str) -> Scene:
        """Description of a video."""
        index = int(video_id.rpartition('_')[2])
        return self.sampler.sample(index, video_id, index <= self._last_of_training)

    def events(self, video_id: str) -> list[Event]:
        """All that happens in a video, in order of its start, whatever its sentences are about."""
        return self.scene(video_id).events

    def answers(self, video_ids: Sequence[str]) -> dict[Combination, list[tuple]]:
        """Moments (place of the video, start, end) of each combination that occurs in a library."""
        found = defaultdict(list)
        for place, video_id in enumerate(video_ids):
            for event in self.events(video_id):
                found[event.combination].append((place, event.start, event.end))
        return found

    def asked(
        self, annotations: Sequence[VideoAnnotation], video_ids: Sequence[str]
    ) -> list[AskedSentence]:
        """Annotated sentences with every moment of a library that they are true of.

        Args:
            annotations (Sequence[VideoAnnotation]): Videos whose sentences are asked.
            video_ids (Sequence[str]): Videos of the library, in its order.

        Returns:
            list[AskedSentence]: S sentences, video by video, the moments in their own video first;
            those that are true of none there are left out.
        """
        place = {video_id: number for number, video_id in enumerate(video_ids)}
        happening, found = self.answers(video_ids), []
        for video in annotations:
            asked, own = self.scene(video.video_id).asked, place[video.video_id]
            for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
                answers = happening.get(asked[index], [])
                here = [answer for answer in answers if answer[0] == own]
                if not here:
                    continue
                others = [answer for answer in answers if answer[0] != own]
                rows = torch.tensor([*here, *others], dtype=torch.float64)
                answers = rows[:, 0].long(), rows[:, 1:].float()
                found.append(AskedSentence(sentence, *answers, len(here)))
        return found

    def drawn_sentences(
        self, video_ids: Sequence[str], number: int = 4, seed: int = 0
    ) -> tuple[list[str], list[str]]:
        """Sentences about combinations that occur in a library, and about those that never do.

        Args:
            video_ids (Sequence[str]): Videos of the library.
            number (int): Sentences of each of the 240 combinations. Defaults to 4.
            seed (int): Of their words. Defaults to 0.
        """
        rng, happening = np.random.default_rng(seed), self.answers(video_ids)
        present, absent = [], []
        for combination in itertools.product(COLORS, SHAPES, ACTIONS):
            event = Event(*combination, start=0.0, end=1.0)
            own = present if combination in happening else absent
            own += [say(rng, event) for _ in range(number)]
        return present, absent
