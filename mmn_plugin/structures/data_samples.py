"""What travels from the dataset to the metric: samples, sentences, token ids, embeddings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmn_plugin.errors import InputError


class GroundingDataSample(BaseDataElement):
    """A video with all its sentences.

    Meta information: ``video_id`` (str), ``duration`` (float, seconds), ``sentences`` (list of s
    strings), ``sentence_index`` (list of s ints: the sentence's place in the annotation file,
    whose unusable sentences are dropped).

    - ``gt_instances.moments``: (W, 2) float32, seconds, the windows in which the sentences are
      true, in the sentences' order; ``gt_instances.sentence``: (W,) int64, each window's place in
      ``sentences``. The latter is there only where not every sentence has exactly one window, so
      that W = s without it. `windows` reads both.
    - ``pred_instances.moments``: (s, n, 2) float32, seconds, best first, NaN where fewer than n
      moments survive NMS; ``pred_instances.scores``: (s, n), NaN likewise; on the CPU.
    """

    @property
    def num_inputs(self) -> int:
        """Rows of a batch's ``inputs`` that are this video's."""
        return 1

    @property
    def windows(self) -> list[Tensor]:
        """For each of s sentences the windows (W_i, 2) in which it is true; W_i may be 0.

        Raises:
            InputError: If nothing is known of when the sentences are true.
        """
        if 'gt_instances' not in self:
            raise InputError(
                f'video {self.get("video_id")!r} has no windows of its sentences, which this '
                'method needs: give annotations with timestamps, and no weak=True in the dataset, '
                'or a method for weakly supervised training (docs/weak_supervision.md)'
            )
        return windows_by_sentence(self.gt_instances, len(self.sentences))

    def __getstate__(self) -> dict:
        """Ground truth leaves the process as an array: a tensor would cost a data loader more
        time than the few numbers in it (a shared file, and a connection to hand it over).
        """
        state = dict(self.__dict__)
        truth = state.get('gt_instances')
        if (
            truth is not None
            and 'moments' in truth
            and {*truth.all_keys()} <= {'moments', 'sentence'}
            and truth.moments.device.type == 'cpu'
        ):
            state['gt_instances'] = {key: value.detach().numpy() for key, value in truth.items()}
        return state

    def __setstate__(self, state: dict) -> None:
        truth = state.get('gt_instances')
        if isinstance(truth, dict):
            tensors = {key: torch.from_numpy(value.copy()) for key, value in truth.items()}
            state['gt_instances'] = InstanceData(**tensors)
        self.__dict__.update(state)


def true_windows(windows: Sequence[Sequence]) -> InstanceData:
    """Ground truth of a `GroundingDataSample`.

    Args:
        windows (Sequence[Sequence]): For each of s sentences its windows (start, end) in seconds;
            none for a sentence that does not occur.
    """
    flat = [window for own in windows for window in own]
    moments = np.asarray(flat, dtype=np.float32).reshape(-1, 2)  # (W, 2)
    truth = InstanceData(moments=torch.from_numpy(moments))
    counts = list(map(len, windows))
    if any(count != 1 for count in counts):
        truth.sentence = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return truth


def windows_by_sentence(truth: Mapping | InstanceData, num_sentences: int) -> list[Tensor]:
    """Windows (W_i, 2) of each sentence, of ``gt_instances`` or the same as a dict.

    Those of a sentence stay in their order, whatever the order of sentences.
    """
    sentence, moments = truth.get('sentence'), truth.get('moments')
    if sentence is None:
        return list(moments[:, None].unbind())
    counts = torch.bincount(sentence, minlength=num_sentences)
    return list(moments[sentence.argsort(stable=True)].split(counts.tolist()))


class TubeDataSample(GroundingDataSample):
    """A video's candidate tubes with all its sentences.

    A tube is an array (n, 5) float32 of frame, x1, y1, x2, y2 (pixels), one row per frame that has
    a box, frames rising. Tubes stay on the host, as arrays: what trains is targets made of them.

    Meta information: ``video_id`` (str), ``sentences`` (list of s strings), ``sentence_index``
    (list of s ints: the sentence's place in the file), ``tubes`` (list of T candidate tubes),
    ``tube_index`` (list of T ints: the tube's place in the file).

    - ``gt_instances.tubes``: list of s true tubes.
    - ``pred_instances.tubes``: list of s predicted tubes, each a span of a candidate;
      ``pred_instances.tube_index``: (s,) int64, the candidate's place in ``tubes``;
      ``pred_instances.scores``: (s,).
    """

    @property
    def num_inputs(self) -> int:
        """Its tubes."""
        return len(self.tubes)


@dataclass
class VideoEmbedding:
    """A video after encoding; any number of sentences can be asked of it.

    A head scores its U units: moments, clips, frames or cells of tubes, as the method has it.

    Attributes:
        embeddings (dict[str, Tensor]): (U, J) per joint space, unit vectors; of a unit that several
            windows saw, the mean of their unit vectors.
        spans (Tensor): (U, 2) start and end in seconds.
        video_id (str): Name for messages and pictures.
        duration (float): Seconds.
        trust (Tensor | None): (U,) factor on the units' scores. Defaults to None: 1 for all.
        num_windows (int): Overlapping windows that a long video was encoded in. Defaults to 1: the
            video was encoded whole.
        length_in_windows (float): Seconds of the video over those of a window. Defaults to 1.
        unrelated (Tensor | None): (K,) best scores of unrelated sentences, rising, where a head
            measures presence by them; it fills them in at the first use. Defaults to None.
    """

    embeddings: dict[str, Tensor]
    spans: Tensor
    video_id: str
    duration: float
    trust: Tensor | None = None
    num_windows: int = 1
    length_in_windows: float = 1.0
    unrelated: Tensor | None = None

    @classmethod
    def stack(cls, videos: Sequence['VideoEmbedding']) -> 'VideoEmbedding':
        """B videos, each encoded whole, with a leading dimension (B,) on every tensor.

        Videos of fewer units than others are padded with units of trust 0, which no ranking gives.
        Ids and durations become lists.
        """
        first, sizes = videos[0], [len(video.spans) for video in videos]
        trust = None
        if len(set(sizes)) > 1:
            trust = _stacked([first.spans.new_ones(size) for size in sizes])  # (B, U)
        return cls(
            {
                space: _stacked([video.embeddings[space] for video in videos])
                for space in first.embeddings
            },
            _stacked([video.spans for video in videos]),
            [video.video_id for video in videos],
            [video.duration for video in videos],
            trust,
        )


def _stacked(parts: list[Tensor]) -> Tensor:
    return parts[0][None] if len(parts) == 1 else pad_sequence(parts, batch_first=True)


@dataclass
class TubeEmbedding(VideoEmbedding):
    """The candidate tubes of a video after encoding; units are the P cells of each of T tubes.

    ``spans`` (T * P, 2) count the boxes of the cell's tube, the last one exclusive, for a tube
    knows no seconds; ``duration`` is NaN.

    Attributes:
        tubes (list[np.ndarray]): T arrays (n, 5), as of `TubeDataSample`.
    """

    tubes: Sequence[np.ndarray] = ()


class TokenIds:
    """Ids of S sentences, without padding; no sequence to whatever looks for tensors to move.

    Preprocessors and DistributedDataParallel walk through every list of a batch, which takes
    longer than a step's text where it holds thousands of numbers.

    Args:
        ids (Sequence[Sequence[int]]): One entry per sentence.
    """

    def __init__(self, ids: Sequence[Sequence[int]]):
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.ids)

    def take(self, rows: Sequence[int]) -> 'TokenIds':
        """Some of the sentences."""
        return TokenIds([self.ids[row] for row in rows])


class SentenceBatch(NamedTuple):
    """All sentences of a batch of B videos, video by video; ragged is flat plus an index.

    Attributes:
        input_ids (Tensor): (S, L) int64 token ids, padded to the longest sentence.
        attention_mask (Tensor): (S, L) int64, 1 at tokens and 0 at padding.
        video (Tensor): (S,) int64, place in the batch of the video a sentence belongs to,
            never falling.
        token_ids (TokenIds | None): The same ids on the host; None where nobody has them there.
            With them sentences are encoded by length without waiting for the device. Defaults
            to None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    video: Tensor
    token_ids: TokenIds | None = None

    @property
    def lengths(self) -> list[int] | None:
        """Tokens of each sentence, where they are known on the host."""
        return None if self.token_ids is None else list(map(len, self.token_ids))

    def take(self, rows: Sequence[int]) -> 'SentenceBatch':
        """Some of the sentences, padded to the longest of them where lengths are known."""
        index = torch.tensor(rows, dtype=torch.int64)
        index = index.to(self.input_ids.device, non_blocking=True)
        token_ids, length = None, self.input_ids.shape[1]
        if self.token_ids is not None:
            token_ids = self.token_ids.take(rows)
            length = max(map(len, token_ids), default=0)
        return SentenceBatch(
            self.input_ids[index, :length],
            self.attention_mask[index, :length],
            self.video[index],
            token_ids,
        )


# Model types whose first token has position pad_token_id + 1.
POSITIONS_AFTER_PADDING = ('roberta', 'xlm-roberta', 'camembert', 'longformer', 'mpnet', 'ibert')


def token_limit(config) -> int | None:
    """Longest token sequence of a Hugging Face configuration, None where it has no limit.

    RoBERTa and its kin count positions from the one after padding's, so some are never used.
    """
    limit = getattr(config, 'max_position_embeddings', None)
    if limit is not None and config.model_type in POSITIONS_AFTER_PADDING:
        limit -= config.pad_token_id + 1
    return limit
