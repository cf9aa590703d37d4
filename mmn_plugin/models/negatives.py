"""Where negatives come from: this process, all processes, a memory of earlier videos."""

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass
class Candidates:
    """Embeddings of V videos' moments and of their S sentences, and whose they are.

    Attributes:
        moments (Tensor): (V, P, J), L2-normalised.
        sentences (Tensor): (S, J), L2-normalised.
        ground_truth (Tensor | None): (S, 2), seconds; None where nothing is known of when.
        sentence_video (np.ndarray): (S,) int64, place in ``video_ids`` of a sentence's video.
        video_ids (list[str]): V ids; a video that occurs twice is the same video.
        texts (list[str] | None): S normalised texts; None where they play no role.
        iou (Tensor | None): (S, P), IoU of the moments of its video with a sentence's ground
            truth; None where it plays no role.
    """

    moments: Tensor
    sentences: Tensor
    ground_truth: Tensor | None
    sentence_video: np.ndarray
    video_ids: list[str]
    texts: list[str] | None = None
    iou: Tensor | None = None

    def detached(self) -> 'Candidates':
        """The same without a way back to the model."""
        return Candidates(
            self.moments.detach(),
            self.sentences.detach(),
            self.ground_truth,
            self.sentence_video,
            self.video_ids,
            self.texts,
            self.iou,
        )

    def sentence_video_ids(self) -> list[str]:
        """Id of each sentence's video."""
        return [self.video_ids[video] for video in self.sentence_video.tolist()]


Pairs = tuple[np.ndarray, np.ndarray]


def equal_pairs(left: list, right: list) -> Pairs:
    """All (i, j) with ``left[i] == right[j]``, as two (n,) int64 arrays."""
    places = {}
    for j, key in enumerate(right):
        places.setdefault(key, []).append(j)
    found = [places.get(key, ()) for key in left]
    rows = np.repeat(np.arange(len(left)), [len(js) for js in found])
    return rows, np.array([j for js in found for j in js], dtype=np.int64)


@dataclass
class NegativePool:
    """Candidates, and how they relate to the S sentences of this process's batch.

    Attributes:
        candidates (Candidates): V videos, S' sentences.
        same_video (Pairs): (sentence of the batch, video here) that belong together.
        same_video_sentences (Pairs): (sentence of the batch, sentence here) of the same video.
        same_text (Pairs | None): (sentence of the batch, sentence here) of the same text in
            different videos; None where text plays no role.
        first_sentence (int | None): Place here of the batch's first sentence; None where the
            batch is not part of this pool.
        log_weight (Tensor | None): (V,), logarithm of the weight of each video's moments and
            sentences as negatives; None means 1 for all.
    """

    candidates: Candidates
    same_video: Pairs
    same_video_sentences: Pairs
    same_text: Pairs | None = None
    first_sentence: int | None = None
    log_weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        own: Candidates,
        first_video: int | None = None,
        first_sentence: int | None = None,
        weight: float = 1.0,
    ) -> 'NegativePool':
        """Compare candidates with a batch.

        Args:
            candidates (Candidates): Of the batch, of all ranks' batches, or of a memory bank.
            own (Candidates): This process's batch.
            first_video (int, optional): Where the batch's videos begin among the candidates.
                Defaults to None: they are not part of them.
            first_sentence (int, optional): Likewise for its sentences. Defaults to None.
            weight (float): Weight of the candidates that are not this batch's. Defaults to 1.
        """
        video_ids, others = own.sentence_video_ids(), candidates.sentence_video_ids()
        log_weight = None
        if weight != 1:
            moments = candidates.moments
            log_weight = moments.new_full((len(moments),), math.log(weight))  # (V,)
            if first_video is not None:
                log_weight[first_video : first_video + len(own.video_ids)] = 0.0
        same_text = None
        if own.texts is not None:
            rows, columns = equal_pairs(own.texts, candidates.texts)
            elsewhere = np.array(
                [
                    video_ids[i] != others[j]
                    for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
                ],
                dtype=bool,
            )
            same_text = rows[elsewhere], columns[elsewhere]
        return cls(
            candidates,
            equal_pairs(video_ids, candidates.video_ids),
            equal_pairs(video_ids, others),
            same_text,
            first_sentence,
            log_weight,
        )


@dataclass
class Negatives:
    """What the losses of a batch are computed against.

    Attributes:
        pools (list[NegativePool]): The first one contains the batch itself.
        share (float | None): ``W * S / S_all``: W ranks, S sentences of this rank's batch, S_all
            of all ranks' batches. None where each rank's loss stands for itself, as published.

    With a share the mean is over all ranks' sentences. Let ``t_i`` be sentence i's term, so that
    one process with all videos would minimise ``L = sum_i t_i / S_all``. Rank r computes only its
    own terms, and minimises ``L_r = W * sum_{i of r} t_i / S_all = share_r * (mean of its
    terms)``. Gathered embeddings hand their gradient back to the rank that owns them, summed over
    ranks; so the gradient on all ranks' parameters together is that of ``sum_r L_r = W * L``, and
    DistributedDataParallel's mean over W ranks leaves exactly the gradient of L. Clipping comes
    after that mean, so it sees L's norm. The IoU loss is a mean over sentences and the P moments
    of each, P the same for all, so the same share serves it.
    """

    pools: list[NegativePool]
    share: float | None = None

    def scale(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over this rank's sentences -> losses to minimise.

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


def _gather_known(rows: Tensor | None, sizes: list[int]) -> Tensor | None:
    return None if rows is None else gather_rows(rows, sizes)


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
        ground_truth=_gather_known(own.ground_truth, sentences),
        sentence_video=np.concatenate(
            [
                sentence_video + first
                for (_, sentence_video, _), first in zip(parts, first_video, strict=False)
            ]
        ),
        video_ids=[name for video_ids, _, _ in parts for name in video_ids],
        texts=None if own.texts is None else [text for _, _, texts in parts for text in texts],
        iou=_gather_known(own.iou, sentences),
    )
    rank = get_rank()
    return gathered, first_video[rank], sum(sentences[:rank])


class MemoryBank:
    """A ring of the last ``size`` videos' moments, with their sentences; nothing trains through it.

    Moments lie in one buffer on the model's device, allocated at the first video and overwritten
    in place; sentences, whose number varies, in one tensor from the oldest to the newest.

    A video seen again is stored again: the older embedding of it leaves when its turn comes.

    Args:
        size (int): Number of videos (K), at least 1.
    """

    def __init__(self, size: int):
        self.size = size
        self._next = 0  # slot that the next video gets
        self._video_ids: list[str] = []  # by slot
        self._moments: Tensor | None = None  # (K, P, J)
        self._rest: Candidates | None = None  # its moments are not used

    def __len__(self) -> int:
        """Number of videos in it."""
        return len(self._video_ids)

    def candidates(self, device: torch.device) -> Candidates | None:
        """What it holds, moved to a device if it is not there; None while it is empty."""
        if not self._video_ids:
            return None
        if self._moments.device != device:
            self._move(device)
        rest = self._rest
        return Candidates(
            self._moments[: len(self)],
            rest.sentences,
            rest.ground_truth,
            rest.sentence_video,
            list(self._video_ids),
            rest.texts,
            rest.iou,
        )

    def _move(self, device: torch.device) -> None:
        rest, self._moments = self._rest, self._moments.to(device)
        self._rest = Candidates(
            rest.moments,
            rest.sentences.to(device),
            _each(lambda rows: rows.to(device), rest.ground_truth),
            rest.sentence_video,
            [],
            rest.texts,
            _each(lambda rows: rows.to(device), rest.iou),
        )

    def push(self, new: Candidates) -> None:
        """Add videos with their sentences; the oldest ones make room.

        An embedding that is not finite (a spoilt iteration) is stored as zeros, which attract and
        repel nothing.
        """
        if len(new.video_ids) > self.size:
            new = _newest(new, self.size)
        moments = _finite(new.moments.detach())
        if self._moments is None:
            self._moments = moments.new_zeros(self.size, *moments.shape[1:])
        slots = (self._next + np.arange(len(moments))) % self.size
        slot_index = torch.from_numpy(slots).to(moments.device, non_blocking=True)
        self._moments[slot_index] = moments
        self._push_sentences(new, slots)
        for slot, video_id in zip(slots.tolist(), new.video_ids, strict=True):
            self._video_ids[slot : slot + 1] = [video_id]
        self._next = int(slots[-1] + 1) % self.size

    def _push_sentences(self, new: Candidates, slots: np.ndarray) -> None:
        sentences, slot = _finite(new.sentences.detach()), slots[new.sentence_video]
        truth, iou, texts = new.ground_truth, new.iou, new.texts
        old = self._rest
        if old is not None:
            # The videos that leave are the oldest, so their sentences are the first.
            gone = int(np.isin(old.sentence_video, slots).sum())
            sentences = torch.cat([old.sentences[gone:], sentences])
            truth = _each(lambda *rows: torch.cat(rows), _from(old.ground_truth, gone), truth)
            slot = np.concatenate([old.sentence_video[gone:], slot])
            iou = _each(lambda *rows: torch.cat(rows), _from(old.iou, gone), iou)
            texts = None if texts is None else [*old.texts[gone:], *texts]
        self._rest = Candidates(new.moments.new_empty(0), sentences, truth, slot, [], texts, iou)

    def state_dict(self) -> dict:
        """Everything, slot by slot, on the CPU: tensors, strings and numbers only."""
        if not self._video_ids:
            return dict(size=self.size, video_ids=[])
        rest = self._rest
        return dict(
            size=self.size,
            next=self._next,
            video_ids=list(self._video_ids),
            moments=self._moments[: len(self)].cpu().clone(),
            sentences=rest.sentences.cpu().clone(),
            ground_truth=_each(lambda rows: rows.cpu().clone(), rest.ground_truth),
            sentence_video=torch.from_numpy(rest.sentence_video.copy()),
            texts=rest.texts,
            iou=_each(lambda rows: rows.cpu().clone(), rest.iou),
        )

    def load_state_dict(self, state: dict) -> None:
        """Take over a stored state; a bank of another size keeps the newest videos of it.

        Videos keep their slots where the size is the same, so that sums over them are rounded
        as they would have been.
        """
        self.__init__(self.size)
        if not state['video_ids']:
            return
        stored = Candidates(
            state['moments'],
            state['sentences'],
            state['ground_truth'],
            state['sentence_video'].cpu().numpy().copy(),
            list(state['video_ids']),
            state['texts'],
            state['iou'],
        )
        if state['size'] != self.size:
            age = np.arange(len(stored.video_ids))
            if len(age) == state['size']:
                age = np.roll(age, -state['next'])  # slots from the oldest to the newest
            self.push(_reordered(stored, age))
            return
        self._moments = stored.moments.new_zeros(self.size, *stored.moments.shape[1:])
        self._moments[: len(stored.moments)] = stored.moments
        self._next, self._video_ids, self._rest = state['next'], stored.video_ids, stored
        self._rest.moments = stored.moments.new_empty(0)


def _each(change, *known):
    """``change`` of what is known, or None: nothing is said of when, or of how much overlaps."""
    return None if any(part is None for part in known) else change(*known)


def _from(rows, first: int):
    """Rows from one on, if there are any."""
    return None if rows is None else rows[first:]


def _finite(embeddings: Tensor) -> Tensor:
    return embeddings.nan_to_num(0.0, 0.0, 0.0)


def _reordered(stored: Candidates, order: np.ndarray) -> Candidates:
    """Videos in another order; sentences stay where they are."""
    return Candidates(
        stored.moments[torch.from_numpy(order)],
        stored.sentences,
        stored.ground_truth,
        np.argsort(order)[stored.sentence_video],
        [stored.video_ids[i] for i in order],
        stored.texts,
        stored.iou,
    )


def _newest(new: Candidates, count: int) -> Candidates:
    """The last ``count`` videos, which come last among the sentences as well."""
    first = len(new.video_ids) - count
    begin = int((new.sentence_video < first).sum())
    return Candidates(
        new.moments[first:],
        new.sentences[begin:],
        _from(new.ground_truth, begin),
        new.sentence_video[begin:] - first,
        new.video_ids[first:],
        _from(new.texts, begin),
        _from(new.iou, begin),
    )


class NegativeSource:
    """Collects negatives for the head; ``CrossVideoNegativeHook`` makes it and documents it.

    Args:
        scope (str): ``'local'`` or ``'global'``. Defaults to ``'local'``.
        queue_size (int): Videos in the memory bank; 0 means no bank. Defaults to 0.
        weight (float): Weight of negatives from outside this process's batch. Defaults to 1.
        exclude_same_text (bool): Whether text decides too. Defaults to False.

    Attributes:
        bank (MemoryBank | None): The memory bank.
    """

    def __init__(
        self,
        scope: str = 'local',
        queue_size: int = 0,
        weight: float = 1.0,
        exclude_same_text: bool = False,
    ):
        self.scope = scope
        self.weight = weight
        self.exclude_same_text = exclude_same_text
        self.bank = MemoryBank(queue_size) if queue_size else None
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

    def forget(self) -> None:
        """Let the last batch not enter the bank, such as one whose iteration is skipped."""
        self._seen = None

    def settle(self) -> None:
        """Put the last batch into the bank, once its backward is over."""
        if self._seen is not None:
            self.bank.push(self._seen)
            self._seen = None
