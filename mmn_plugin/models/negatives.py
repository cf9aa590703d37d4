"""Where a head's negatives come from, of one process or of all, and what is no negative."""

import inspect
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, chain

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmn_plugin.errors import InputError
from mmn_plugin.setting_types import require_types


@dataclass
class Candidates:
    """Embeddings of V videos' moments and of their S sentences, and whose they are.

    Attributes:
        moments (Tensor): (V, P, J), L2-normalized.
        sentences (Tensor): (S, J), L2-normalized.
        ground_truth (Tensor | None): (S, M, 2), seconds, up to M windows in which a sentence is
            true, as of `padded_windows`; (S, 2) becomes (S, 1, 2). None where nothing is known of
            when.
        sentence_video (np.ndarray): (S,) int64, place in ``video_ids`` of a sentence's video.
        video_ids (list[str]): V ids; a video that occurs twice is the same video.
        texts (list[str]): S normalized texts.
        iou (Tensor | None): (S, P), IoU of the moments of its video with a sentence's ground
            truth, as of `best_iou`; None where nothing is known of when.
        meaning (np.ndarray | None): (S, C) float32 unit vectors of what the sentences mean; None
            where only their texts are compared.
    """

    moments: Tensor
    sentences: Tensor
    ground_truth: Tensor | None
    sentence_video: np.ndarray
    video_ids: list[str]
    texts: list[str]
    iou: Tensor | None = None
    meaning: np.ndarray | None = None

    def __post_init__(self):
        if self.ground_truth is not None and self.ground_truth.dim() == 2:
            self.ground_truth = self.ground_truth[:, None]

    def map(self, change) -> 'Candidates':
        """The same with ``change`` applied to every tensor."""
        return replace(self, **{k: change(v) for k, v in vars(self).items() if torch.is_tensor(v)})

    def with_windows(self, count: int) -> 'Candidates':
        """The same with so many windows per sentence (M), which are no fewer than there are."""
        if self.ground_truth is None or self.ground_truth.shape[1] == count:
            return self
        more = (0, 0, 0, count - self.ground_truth.shape[1])
        return replace(self, ground_truth=F.pad(self.ground_truth, more, value=torch.nan))

    @property
    def sentence_video_ids(self) -> list[str]:
        """Id of each sentence's video."""
        return [self.video_ids[video] for video in self.sentence_video.tolist()]


Pairs = tuple[np.ndarray, np.ndarray]


def equal_pairs(left: list, right: list) -> Pairs:
    """All (i, j) with ``left[i] == right[j]``, as two (n,) int64 arrays."""
    places = {}
    for j, key in enumerate(right):
        places.setdefault(key, []).append(j)
    pairs = [(i, j) for i, key in enumerate(left) for j in places.get(key, ())]
    return tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T)


@dataclass
class Negatives:
    """What the losses of a batch are computed against: candidates, the batch among them.

    Attributes:
        candidates (Candidates): V videos, S' sentences.
        same_video (Pairs): (sentence of the batch, video here) that belong together.
        same_video_sentences (Pairs): (sentence of the batch, sentence here) of the same video.
        same_meaning (Pairs): (sentence of the batch, sentence here) of the same text or of similar
            meaning in different videos; none where neither plays a role. A pair may occur twice.
        first_sentence (int): Place here of the batch's first sentence. Defaults to 0.
        log_weight (Tensor | None): (V,), logarithm of the weight of each video's moments and
            sentences as negatives; None means 1 for all.
        share (float | None): ``W * S / S_all``: W ranks, S sentences of this rank's batch, S_all
            of all ranks' batches. None where each rank's loss stands for itself, as published.
        row_share (float | None): ``share`` of the rows over which contrastive losses are means,
            where they are not one for each sentence. Defaults to None: ``share``.

    With a share the mean is over all ranks' sentences, or rows. Let ``t_i`` be a row's term, so
    that one process with all videos would minimize ``L = sum_i t_i / S_all``. Rank r computes its
    own terms alone, and minimizes ``L_r = W * sum_{i of r} t_i / S_all = share_r * (mean of its
    terms)``. Gathered embeddings hand their gradient back to the rank that owns them, summed over
    ranks; so the gradient on all ranks' parameters together is that of ``sum_r L_r = W * L``, and
    DistributedDataParallel's mean over W ranks leaves exactly the gradient of L. Clipping comes
    after that mean, so it sees L's norm. The IoU loss is a mean over sentences and the P moments
    of each, P the same for all, so the share of sentences serves it.
    """

    candidates: Candidates
    same_video: Pairs
    same_video_sentences: Pairs
    same_meaning: Pairs
    first_sentence: int = 0
    log_weight: Tensor | None = None
    share: float | None = None
    row_share: float | None = None

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        own: Candidates,
        first: tuple[int, int],
        weight: float = 1.0,
        exclude_same_text: bool = False,
        exclude_similar: float | None = None,
    ) -> 'Negatives':
        """Compare candidates with a batch.

        Args:
            candidates (Candidates): Of the batch, or of all ranks' batches, this one's among them;
                with ``exclude_similar`` both have ``meaning``.
            own (Candidates): This process's batch.
            first (tuple[int, int]): Where the batch's videos and its sentences begin among the
                candidates.
            weight (float): Weight of the candidates that are not this batch's. Defaults to 1.
            exclude_same_text (bool): Whether text plays a role. Defaults to False.
            exclude_similar (float, optional): Cosine of ``meaning`` from which on sentences mean
                the same. Defaults to None: meaning plays no role.
        """
        first_video, first_sentence = first
        log_weight = None
        if weight != 1:
            moments = candidates.moments
            log_weight = moments.new_full((len(moments),), math.log(weight))  # (V,)
            log_weight[first_video : first_video + len(own.video_ids)] = 0.0
        video_ids, others = own.sentence_video_ids, candidates.sentence_video_ids
        same = equal_pairs(own.texts if exclude_same_text else [], candidates.texts)
        if exclude_similar is not None:
            similar = np.nonzero(own.meaning @ candidates.meaning.T >= exclude_similar)
            same = tuple(map(np.concatenate, zip(same, similar, strict=True)))
        elsewhere = np.array([video_ids[i] != others[j] for i, j in zip(*same, strict=True)])
        same = tuple(index[elsewhere.astype(bool)] for index in same)
        own_places = equal_pairs(video_ids, candidates.video_ids), equal_pairs(video_ids, others)
        return cls(candidates, *own_places, same, first_sentence, log_weight)

    def excluded_sentences(self) -> Pairs:
        """(Sentence of the batch, sentence here) of the same video, then of the same meaning."""
        pairs = zip(self.same_video_sentences, self.same_meaning, strict=True)
        return tuple(map(np.concatenate, pairs))

    def excluded_videos(self) -> Pairs:
        """(Sentence of the batch, video here): its own, then those that have its meaning."""
        here, there = self.same_meaning
        pairs = zip(self.same_video, (here, self.candidates.sentence_video[there]), strict=True)
        return tuple(map(np.concatenate, pairs))

    def sentence_log_weight(self) -> Tensor | None:
        """(S',) ``log_weight`` of each sentence's video."""
        if self.log_weight is None:
            return None
        return self.log_weight[on(self.candidates.sentence_video, self.log_weight.device)]

    def scale(
        self, losses: dict[str, Tensor], over_sentences: Container[str] = ()
    ) -> dict[str, Tensor]:
        """Means over this rank's rows -> losses of ``L_r``'s gradient and ``L``'s value.

        Args:
            losses (dict[str, Tensor]): Scalars.
            over_sentences (Container[str]): Names of those that are means over sentences where the
                others are over rows. Defaults to none.
        """
        if self.share is None:
            return losses
        rows = self.share if self.row_share is None else self.row_share
        own = torch.stack(
            [
                value * (self.share if name in over_sentences else rows)
                for name, value in losses.items()
            ]
        )
        over_all = own.detach().clone()
        all_reduce(over_all, op='mean')
        return dict(zip(losses, own + (over_all - own.detach()), strict=True))


def on(index: np.ndarray, device: torch.device) -> Tensor:
    """An index from the host, for which nobody waits."""
    return torch.from_numpy(index).to(device, non_blocking=True)


class _GatherRows(torch.autograd.Function):
    """All ranks' rows one after the other; backward sums what all ranks say about mine."""

    @staticmethod
    def forward(ctx, rows, sizes):
        ctx.sizes = sizes
        padded = rows.new_zeros(max(1, *sizes), *rows.shape[1:])  # not all backends gather nothing
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # the sum is taken in place
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[get_rank()], None


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate a tensor's rows, (n, ...) with n = ``sizes[rank]``, over ranks.

    The gradient of a row is the sum of all ranks' gradients of it, as if one process had computed
    the sum of all ranks' losses.
    """
    return _GatherRows.apply(rows.contiguous(), sizes)


@cache
def host_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """All ranks, in a group whose objects do not pass through a device for which the host waits."""
    return world if dist.get_backend(world) == 'gloo' else dist.new_group(backend='gloo')


def gather_candidates(
    own: Candidates, num_rows: int | None = None
) -> tuple[Candidates, tuple[int, int], int | None]:
    """Every rank's candidates; ranks may have different numbers of videos and of sentences.

    Args:
        own (Candidates): This rank's.
        num_rows (int, optional): A number to add up over ranks. Defaults to None.

    Returns:
        tuple[Candidates, tuple[int, int], int | None]: All of them in order of ranks, the places of
        this rank's first video and first sentence among them, and the sum of ``num_rows``.
    """
    windows = 0 if own.ground_truth is None else own.ground_truth.shape[1]
    about = own.video_ids, own.sentence_video, own.texts, own.meaning, windows, num_rows
    parts = all_gather_object(about, host_group(dist.group.WORLD))
    video_ids, sentence_videos, texts, meanings, windows, rows = zip(*parts, strict=True)
    own = own.with_windows(max(windows))
    videos, sentences = list(map(len, video_ids)), list(map(len, texts))
    first_video, rank = [0, *accumulate(videos)], get_rank()
    places = zip(sentence_videos, first_video, strict=False)
    gathered = replace(
        own.map(lambda rows: gather_rows(rows, videos if rows is own.moments else sentences)),
        sentence_video=np.concatenate([video + first for video, first in places]),
        video_ids=[*chain(*video_ids)],
        texts=[*chain(*texts)],
        meaning=None if own.meaning is None else np.concatenate(meanings),
    )
    first = first_video[rank], sum(sentences[:rank])
    return gathered, first, None if num_rows is None else sum(rows)


class NegativeSource(nn.Module):
    """Where a head's contrastive losses find their negatives: the head's ``negatives``.

    The videos of the batch on this device, as published (``scope='local'``), or the videos of all
    devices (``'global'``). What counts as the same video is decided by its id, on whichever rank
    its copy is. Its sentences are negatives unless they overlap, its moments unless they are near
    the ground truth, as within one video.

    - ``'global'``: W ranks of b videos train as one process with W * b videos does (BatchNorm
      apart): every loss, the IoU loss too, is a mean over all ranks' sentences, and embeddings
      hand their gradient back to the rank that owns them; `Negatives` derives the scale. The
      logged losses are those means, the same on all ranks.
    - Gradient accumulation: negatives are those of the micro-batch (of all ranks, if global), never
      of the accumulated batch.
    - BatchNorm's statistics are per rank whatever the scope. ``sync_bn='torch'`` in the config
      takes them over all ranks (on GPUs; PyTorch has no SyncBatchNorm for the CPU).
    - ``piece``: a step of many videos in the memory of ``piece`` videos, beside all embeddings, at
      the cost of embedding twice (`embed_in_pieces`). Losses and gradients are those of the batch
      at once, but for two things: dropout draws masks piece by piece, the same in both passes; and
      of BatchNorm ``piece_statistics`` decides. With ``'piece'`` each piece is normalized by its
      own statistics, as in a batch of that size, and running statistics are updated once for each
      piece. With ``'whole'`` a pass without graph over the whole batch (more time, and the memory
      of its largest layer; it draws dropout of its own) takes the statistics of the batch and
      updates the running ones; the pieces are normalized by them as constants, so that the
      embeddings and losses are those of the batch at once, and the gradients lack what runs
      through mean and variance.

    Args:
        scope (str): ``'local'`` or ``'global'``. Defaults to ``'local'``, as published.
        weight (float): Weight of the negatives from outside the device's batch: each adds
            ``weight * exp(similarity / temperature)`` to a denominator. Defaults to 1, like any
            other negative; with another value a sentence's loss depends on which rank it is on.
        exclude_same_text (bool): A sentence of another video with the same text, but for case,
            punctuation and white space, is no negative, and neither are the moments of that video
            near the sentence's ground truth (each still adds 1 to a denominator, as published for
            its own video's). Defaults to False, as published.
        exclude_similar (float, optional): Likewise a sentence of another video that means nearly
            the same: the cosine of their vectors of the model's ``tower``, or of its frozen
            language model where it has no tower, is at least so much, in (0, 1). Defaults to None:
            only texts are compared.
        videos_per_step (int, optional): Videos of a step of all processes together;
            `ResumableTrainLoop` sets ``train_dataloader.batch_size`` to each one's share. Defaults
            to None: the loader's batch size.
        piece (int, optional): Videos that a process embeds at a time. Defaults to None: all.
        piece_statistics (str): ``'piece'`` or ``'whole'``. Defaults to ``'piece'``.

    Attributes:
        wide (bool): Whether ``scope`` is in force; scheduled.

    Raises:
        ValueError: If a value is out of range, or would have no effect.
    """

    def __init__(
        self,
        scope: str = 'local',
        *,
        weight: float = 1.0,
        exclude_same_text: bool = False,
        exclude_similar: float | None = None,
        videos_per_step: int | None = None,
        piece: int | None = None,
        piece_statistics: str = 'piece',
    ):
        super().__init__()
        problem = _problem_of_pieces(videos_per_step, piece, piece_statistics)
        if scope not in ('local', 'global'):
            problem = f"scope={scope!r}: give 'local' or 'global'"
        elif not 0 < weight < math.inf:
            problem = f'weight={weight}: give a factor above 0'
        elif weight != 1 and scope == 'local':
            problem = f"weight={weight}: scope='local' has no negatives to weigh"
        elif exclude_similar is not None and not 0 < exclude_similar < 1:
            problem = f'exclude_similar={exclude_similar}: give a cosine between 0 and 1, or None'
        if problem:
            raise InputError(f'model.head.negatives.{problem}')
        self.scope = scope
        self.weight = weight
        self.exclude_same_text = exclude_same_text
        self.exclude_similar = exclude_similar
        self.videos_per_step = videos_per_step
        self.piece, self.piece_statistics = piece, piece_statistics
        self.wide = True

    @classmethod
    def of(cls, settings: Mapping, known: Sequence[str] | None = None) -> 'NegativeSource':
        """From a config.

        Args:
            settings (Mapping): Arguments by name.
            known (Sequence[str], optional): Those that a head has a use for. Defaults to None: all.

        Raises:
            ValueError: If one is unknown, of another type, out of range, or would have no effect.
        """
        known = known or [*inspect.signature(cls).parameters]
        if unknown := [name for name in settings if name not in known]:
            raise InputError(
                f'model.head.negatives.{unknown[0]}: there is no such setting here; there are '
                f'{", ".join(known)}'
            )
        require_types(cls, settings, 'model.head.negatives')
        return cls(**settings)

    def collect(self, own: Candidates, *, num_rows: int | None = None) -> Negatives:
        """Negatives of a batch.

        Args:
            own (Candidates): This process's batch, sentences in order of videos.
            num_rows (int, optional): Rows of this batch over which the contrastive losses are
                means. Defaults to None: one for each sentence.

        Returns:
            Negatives: The batch's own or, with scope ``'global'`` in force, those of all ranks.

        Raises:
            ValueError: If ``exclude_similar`` is set, and the head gives no ``meaning``.
        """
        if self.exclude_similar is not None and own.meaning is None:
            raise InputError(
                'model.head.negatives.exclude_similar compares vectors of meaning, and this head '
                "gives none: hand sentences['meaning'] to its `candidates`"
            )
        how = {k: getattr(self, k) for k in ('weight', 'exclude_same_text', 'exclude_similar')}
        if not (self.wide and self.scope == 'global' and get_world_size() > 1):
            return Negatives.of(own, own, (0, 0), **how)
        everyone, first, all_rows = gather_candidates(own, num_rows)
        return replace(
            Negatives.of(everyone, own, first, **how),
            share=_share(len(own.sentences), len(everyone.sentences)),
            row_share=None if num_rows is None else _share(num_rows, all_rows),
        )


def _problem_of_pieces(videos_per_step, piece, piece_statistics) -> str | None:
    """What is wrong with these settings of `NegativeSource`."""
    for name, count in dict(videos_per_step=videos_per_step, piece=piece).items():
        if count is not None and not (isinstance(count, int) and count >= 1):
            return f'{name}={count!r}: give a number of videos, or None'
    if piece_statistics not in ('piece', 'whole'):
        return f"piece_statistics={piece_statistics!r}: give 'piece' or 'whole'"
    if piece is None and piece_statistics == 'whole':
        return "piece_statistics='whole': without `piece` it has no effect"
    return None


def _share(own: int, everyone: int) -> float:
    """`Negatives.share` of so many of this rank's and of all ranks'."""
    return get_world_size() * own / max(everyone, 1)
