"""Where negatives come from: this process, all processes, a memory of earlier videos."""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmn_plugin.errors import InputError

from .candidates import Candidates, NegativePool


@dataclass
class Negatives:
    """What the losses of a batch are computed against.

    Attributes:
        pools (list[NegativePool]): The first one contains the batch itself.
        share (float | None): ``W * S / S_all``: W ranks, S sentences of this rank's batch, S_all
            of all ranks' batches. None where each rank's loss stands for itself, as published.

    With a share the mean is over all ranks' sentences. Let ``t_i`` be sentence i's term, so that
    one process with all videos would minimize ``L = sum_i t_i / S_all``. Rank r computes only its
    own terms, and minimizes ``L_r = W * sum_{i of r} t_i / S_all = share_r * (mean of its
    terms)``. Gathered embeddings hand their gradient back to the rank that owns them, summed over
    ranks; so the gradient on all ranks' parameters together is that of ``sum_r L_r = W * L``, and
    DistributedDataParallel's mean over W ranks leaves exactly the gradient of L. Clipping comes
    after that mean, so it sees L's norm. The IoU loss is a mean over sentences and the P moments
    of each, P the same for all, so the same share serves it.
    """

    pools: list[NegativePool]
    share: float | None = None

    def scale(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over this rank's sentences -> losses to minimize.

        Their gradient is that of ``L_r``; their value is L's, the same on all ranks.
        """
        if self.share is None:
            return losses
        own = torch.stack(list(losses.values())) * self.share
        over_all = own.detach().clone()
        all_reduce(over_all, op='mean')
        return dict(zip(losses, own + (over_all - own.detach()), strict=True))


class _GatherRows(torch.autograd.Function):
    """All ranks' rows one after the other; backward sums what all ranks say about mine."""

    @staticmethod
    def forward(ctx, rows, sizes):
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = rows.new_empty(len(sizes), *padded.shape)
        dist.all_gather(list(gathered.unbind()), padded)
        if min(sizes) == max(sizes):
            return gathered.flatten(0, 1)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # the sum is taken in place
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[get_rank()], None


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate a tensor's rows over ranks.

    The gradient of a row is the sum of all ranks' gradients of it, as if one process had computed
    the sum of all ranks' losses.

    Args:
        rows (Tensor): (n, ...), n = ``sizes[rank]``.
        sizes (list[int]): Rows of each rank.

    Returns:
        Tensor: (sum of ``sizes``, ...), in order of ranks, the same on every rank.
    """
    return _GatherRows.apply(rows.contiguous(), sizes)


def gather_candidates(own: Candidates) -> tuple[Candidates, int, int]:
    """Every rank's candidates; ranks may have different numbers of videos and of sentences.

    Returns:
        tuple[Candidates, int, int]: All of them in order of ranks, and the places of this rank's
        first video and first sentence among them.
    """
    parts = all_gather_object((own.video_ids, own.sentence_video, own.texts))
    videos = [len(video_ids) for video_ids, _, _ in parts]
    sentences = [len(sentence_video) for _, sentence_video, _ in parts]
    first_video = [0, *accumulate(videos)]
    gathered = Candidates(
        moments=gather_rows(own.moments, videos),
        sentences=gather_rows(own.sentences, sentences),
        ground_truth=_known(gather_rows, own.ground_truth, sentences),
        sentence_video=np.concatenate(
            [
                sentence_video + first
                for (_, sentence_video, _), first in zip(parts, first_video, strict=False)
            ]
        ),
        video_ids=[name for video_ids, _, _ in parts for name in video_ids],
        texts=None if own.texts is None else [text for _, _, texts in parts for text in texts],
        iou=_known(gather_rows, own.iou, sentences),
    )
    rank = get_rank()
    return gathered, first_video[rank], sum(sentences[:rank])


def _known(change, rows: Tensor | None, *args) -> Tensor | None:
    """``change`` of rows, or None where nothing is known of when, or of how much overlaps."""
    return None if rows is None else change(rows, *args)


class MemoryBank(nn.Module):
    """A ring of the last ``size`` videos' moments, with their sentences; nothing trains through it.

    Moments lie in one buffer, allocated at the first video and overwritten in place; it is no part
    of a ``state_dict``: see `state`. A video seen again is stored again: the older embedding of it
    leaves when its turn comes.

    Args:
        size (int): Number of videos (K), at least 1.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.register_buffer('moments', None, persistent=False)  # (K, P, J), by slot
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.moments, self.next_slot = None, 0
        self.videos: list[Candidates] = []  # by slot, one each, without moments

    def __len__(self) -> int:
        """Number of videos in it."""
        return len(self.videos)

    def candidates(self, device: torch.device) -> Candidates | None:
        """What it holds, moved to a device if it is not there; None while it is empty."""
        if not self.videos:
            return None
        if self.moments.device != device:
            self.load_state(self.state(), device)
        videos, text_known = self.videos, self.videos[0].texts is not None
        truth, iou = (
            None
            if getattr(videos[0], name) is None
            else torch.cat([getattr(video, name) for video in videos])
            for name in ('ground_truth', 'iou')
        )
        return Candidates(
            self.moments[: len(self)],
            torch.cat([video.sentences for video in videos]),
            truth,
            np.repeat(np.arange(len(videos)), [len(video.sentences) for video in videos]),
            [video.video_ids[0] for video in videos],
            [text for video in videos for text in video.texts] if text_known else None,
            iou,
        )

    def push(self, new: Candidates) -> None:
        """Add videos with their sentences; the oldest ones make room.

        An embedding that is not finite (a spoilt iteration) is stored as zeros, which attract and
        repel nothing.
        """
        count = len(new.video_ids)
        for video in range(max(count - self.size, 0), count):
            self._put(new, video)

    def _put(self, new: Candidates, video: int) -> None:
        moments = new.moments.detach()[video].nan_to_num(0.0, 0.0, 0.0)  # (P, J)
        if self.moments is None:
            self.moments = moments.new_zeros(self.size, *moments.shape)
        self.moments[self.next_slot] = moments
        own = slice(*np.searchsorted(new.sentence_video, [video, video + 1]).tolist())
        self.videos[self.next_slot : self.next_slot + 1] = [
            Candidates(
                moments[:0],
                new.sentences.detach()[own].nan_to_num(0.0, 0.0, 0.0),
                _known(lambda rows: rows[own].clone(), new.ground_truth),
                np.zeros(0, dtype=np.int64),
                [new.video_ids[video]],
                _known(lambda rows: rows[own], new.texts),
                _known(lambda rows: rows[own].clone(), new.iou),
            )
        ]
        self.next_slot = (self.next_slot + 1) % self.size

    def state(self) -> dict:
        """Everything, slot by slot, on the CPU: tensors, strings and numbers only."""
        if not self.videos:
            return dict(size=self.size, video_ids=[])
        held = vars(self.candidates(self.moments.device))
        held['sentence_video'] = torch.from_numpy(held['sentence_video'])
        held = {
            name: value.cpu().clone() if torch.is_tensor(value) else value
            for name, value in held.items()
        }
        return dict(size=self.size, next=self.next_slot, **held)

    def load_state(self, state: dict, device: torch.device | str = 'cpu') -> None:
        """Take over a stored state; a bank of another size keeps the newest videos of it.

        Videos keep their slots where the size is the same, so that sums over them are rounded
        as they would have been.
        """
        self.clear()
        if not state['video_ids']:
            return
        held = {name: value for name, value in state.items() if name not in ('size', 'next')}
        held['sentence_video'] = held['sentence_video'].cpu().numpy()
        stored = Candidates(
            **{
                name: value.to(device) if torch.is_tensor(value) else value
                for name, value in held.items()
            }
        )
        order = np.arange(len(stored.video_ids))  # by slot, or from the oldest to the newest
        if self.size != state['size'] == len(order):
            order = np.roll(order, -state['next'])
        for video in order.tolist():
            self._put(stored, video)
        if self.size == state['size']:
            self.next_slot = state['next']


class NegativeSource(nn.Module):
    """Where a head's contrastive losses find their negatives: the head's ``negatives``.

    The videos of the batch on this device, as published (``scope='local'``), or the videos of all
    devices (``'global'``), and, with ``queue_size``, also those of the last so many videos. What
    counts as the same video is decided by its id, wherever its copy comes from: on another rank, or
    in the queue from an earlier epoch. Its sentences are negatives unless they overlap, its moments
    unless they are near the ground truth, as within one video.

    - ``'global'``: W ranks of b videos train as one process with W * b videos does (BatchNorm
      apart): every loss, the IoU loss too, is a mean over all ranks' sentences, and embeddings
      hand their gradient back to the rank that owns them; `Negatives` derives the scale. The
      logged losses are those means, the same on all ranks.
    - ``queue_size``: a memory bank of detached embeddings on the model's device, K * P * J floats
      in every process. A batch enters it after its own step, or not at all if the train loop
      skips that. With ``'global'`` it holds all ranks' videos and is the same on each; with
      ``'local'`` each rank has its own. Its embeddings are as old as the bank is long, so it
      suits the later epochs: see ``from_epoch`` of `CrossVideoNegativeHook`.
    - Gradient accumulation: negatives are those of the micro-batch (of all ranks, if global) and
      of the queue, which the micro-batches before it have entered; never of the accumulated batch.
    - BatchNorm's statistics are per rank whatever the scope. ``sync_bn='torch'`` in the config
      takes them over all ranks (on GPUs; PyTorch has no SyncBatchNorm for the CPU).

    The bank is written beside the checkpoints that a run resumes from: each rank its own, or rank 0
    the common one.

    Args:
        scope (str): ``'local'`` or ``'global'``. Defaults to ``'local'``, as published.
        queue_size (int): Videos in the memory bank (K); 0 means none. Defaults to 0.
        weight (float): Weight of the negatives from outside the device's batch: each adds
            ``weight * exp(similarity / temperature)`` to a denominator. Defaults to 1, like any
            other negative; with another value a sentence's loss depends on which rank it is on.
        exclude_same_text (bool): A sentence of another video with the same text, but for case,
            punctuation and white space, is no negative, and neither are the moments of that video
            near the sentence's ground truth. Defaults to False, as published.

    Attributes:
        bank (MemoryBank | None): The memory bank.
        wide (bool): Whether ``scope`` and ``queue_size`` are in force; scheduled.

    Raises:
        ValueError: If a value is out of range, or would have no effect.
    """

    def __init__(
        self,
        scope: str = 'local',
        queue_size: int = 0,
        weight: float = 1.0,
        exclude_same_text: bool = False,
    ):
        super().__init__()
        for holds, problem in (
            (scope in ('local', 'global'), f"scope={scope!r}: give 'local' or 'global'"),
            (
                isinstance(queue_size, int) and queue_size >= 0,
                f'queue_size={queue_size}: give a number of videos; 0 means no queue',
            ),
            (
                0 < weight < float('inf'),
                f'weight={weight}: give a factor above 0; without such negatives: '
                "scope='local', queue_size=0",
            ),
            (
                weight == 1 or scope == 'global' or queue_size,
                f"weight={weight}: it acts on negatives from outside the device's batch, of which "
                "scope='local', queue_size=0 has none",
            ),
        ):
            if not holds:
                raise InputError(f'model.head.negatives.{problem}')
        self.scope = scope
        self.weight = weight
        self.exclude_same_text = exclude_same_text
        self.bank = MemoryBank(queue_size) if queue_size else None
        self.wide = True
        self._seen: Candidates | None = None

    def collect(self, own: Candidates, training: bool = True) -> Negatives:
        """Negatives of a batch; in training its videos enter the bank, if there is one.

        They enter when the next batch comes, since this batch's backward still needs the bank as
        it is.

        Args:
            own (Candidates): This process's batch, sentences in order of videos.
            training (bool): Whether the batch shall be remembered. Defaults to True.
        """
        if not self.exclude_same_text:
            own = replace(own, texts=None, iou=None)
        if not self.wide:
            return Negatives([NegativePool.of(own, own, 0, 0)])
        everyone, first_video, first_sentence, share = own, 0, 0, None
        if self.scope == 'global' and get_world_size() > 1:
            everyone, first_video, first_sentence = gather_candidates(own)
            share = get_world_size() * len(own.sentences) / len(everyone.sentences)
        pools = [NegativePool.of(everyone, own, first_video, first_sentence, self.weight)]
        if self.bank is not None:
            self.settle()
            remembered = self.bank.candidates(own.moments.device)
            if remembered is not None:
                pools.append(NegativePool.of(remembered, own, weight=self.weight))
            if training:
                self._seen = everyone.detached()
        return Negatives(pools, share)

    def forget_iteration(self) -> None:
        """Keep the batch of an iteration that the train loop skips out of the bank."""
        self._seen = None

    def settle(self) -> None:
        """Put the last batch into the bank, once its backward is over."""
        if self._seen is not None:
            self.bank.push(self._seen)
            self._seen = None

    @property
    def _bank_per_rank(self) -> bool:
        return self.scope == 'local' and get_world_size() > 1

    def rank_state(self) -> dict:
        """What this rank alone knows: its own bank, if each rank has one."""
        return self._state() if self._bank_per_rank else {}

    def load_rank_state(self, state: dict) -> None:
        """Take over what ``rank_state`` returned on this rank."""
        if self._bank_per_rank:
            self._load(state)

    def common_state(self) -> dict:
        """The bank that all ranks have in common."""
        return {} if self._bank_per_rank else self._state()

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned on rank 0."""
        if not self._bank_per_rank:
            self._load(state)

    def _state(self) -> dict:
        if self.bank is None:
            return {}
        self.settle()
        return self.bank.state()

    def _load(self, state: dict) -> None:
        if self.bank is None:
            return
        if state['video_ids'] and self.exclude_same_text and state['texts'] is None:
            print_log(
                "the checkpoint's memory bank holds no texts, which model.head.negatives."
                'exclude_same_text needs; the queue begins empty',
                'current',
                30,
            )
        else:
            self.bank.load_state(state)
