"""Where a head's negatives come from: this process, all processes, a memory of earlier videos."""

import math
from dataclasses import replace

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor, nn

from mmn_plugin.errors import InputError

from .momentum_encoder import MomentumEncoder
from .negatives import Candidates, NegativePool, Negatives, gather_candidates


class MemoryBank(nn.Module):
    """A ring of the last ``size`` (K) videos' moments, with their sentences, all detached.

    Moments lie in one buffer, allocated at the first video and overwritten in place; it is no part
    of a ``state_dict``: see `state`. A video seen again is stored again: the older embedding of it
    leaves when its turn comes.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.register_buffer('moments', None, persistent=False)  # (K, P, J), by slot
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.moments, self.next_slot = None, 0
        self.videos: list[Candidates | None] = [None] * self.size  # by slot, without moments

    def __len__(self) -> int:
        return self.size - self.videos.count(None)

    def candidates(self, device: torch.device) -> Candidates | None:
        """What it holds, moved to a device if it is not there; None while it is empty."""
        if self.moments is None:
            return None
        if self.moments.device != device:
            self.load_state(self.state(), device)
        videos = self.videos[: len(self)]
        first = videos[0]
        if first.ground_truth is not None:
            most = max(video.ground_truth.shape[1] for video in videos)
            videos = [video.with_windows(most) for video in videos]
        joined = {
            name: torch.cat([getattr(video, name) for video in videos])
            for name in ('sentences', 'ground_truth', 'iou')
            if getattr(first, name) is not None
        }
        if first.meaning is not None:
            joined['meaning'] = np.concatenate([video.meaning for video in videos])
        return replace(
            first,
            moments=self.moments[: len(videos)],
            sentence_video=np.repeat(range(len(videos)), [len(v.texts) for v in videos]),
            video_ids=[video.video_ids[0] for video in videos],
            texts=[text for video in videos for text in video.texts],
            **joined,
        )

    def ages(self) -> np.ndarray:
        """(V,) int64, how many videos were stored after each of those of `candidates`."""
        return (self.next_slot - 1 - np.arange(len(self))) % self.size

    def push(self, new: Candidates) -> None:
        """Add videos; the oldest make room, and embeddings that are not finite become zeros."""
        truth = new.ground_truth  # NaN is no flaw there
        new = new.map(lambda rows: rows.detach().nan_to_num(0.0, 0.0, 0.0))
        new = replace(new, ground_truth=truth)
        for video in range(len(new.video_ids)):
            self._put(new, video)

    def _put(self, new: Candidates, video: int) -> None:
        if self.moments is None:
            self.moments = new.moments.new_zeros(self.size, *new.moments.shape[1:])
        self.moments[self.next_slot] = new.moments[video]
        own = slice(*np.searchsorted(new.sentence_video, [video, video + 1]).tolist())
        self.videos[self.next_slot] = replace(
            # copies, even of nothing: a view would keep the memory of the whole batch
            new.map(lambda rows: rows[slice(0) if rows is new.moments else own].clone()),
            video_ids=[new.video_ids[video]],
            texts=new.texts[own],
            meaning=None if new.meaning is None else new.meaning[own].copy(),
        )
        self.next_slot = (self.next_slot + 1) % self.size

    def state(self) -> dict:
        """Everything, slot by slot, on the CPU: tensors, strings and numbers only."""
        if self.moments is None:
            return dict(size=self.size, video_ids=[])
        held = vars(self.candidates(self.moments.device).map(lambda rows: rows.cpu().clone()))
        arrays = {k: torch.from_numpy(v) for k, v in held.items() if isinstance(v, np.ndarray)}
        return dict(held, **arrays, size=self.size, next=self.next_slot)

    def load_state(self, state: dict, device: torch.device | str = 'cpu') -> None:
        """Take over a stored state; a bank of another size keeps the newest videos of it.

        Videos keep their slots where the size is the same, so that sums over them are rounded
        as they would have been.
        """
        self.clear()
        held = {name: value for name, value in state.items() if name not in ('size', 'next')}
        if not held['video_ids']:
            return
        for name in ('sentence_video', 'meaning'):
            held[name] = None if held.get(name) is None else held[name].cpu().numpy()
        stored, count = Candidates(**held).map(lambda rows: rows.to(device)), len(held['video_ids'])
        oldest = state['next'] if count == state['size'] else 0  # of a full ring
        if self.size == state['size']:
            self.next_slot = oldest
        for video in np.roll(np.arange(count), -oldest).tolist():
            self._put(stored, video)


def _share(own: int, everyone: int) -> float:
    """`Negatives.share` of so many of this rank's and of all ranks'."""
    return get_world_size() * own / max(everyone, 1)


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

    The bank is written beside the checkpoints that a run resumes from: each rank its own, or rank 0
    the common one.

    Args:
        scope (str): ``'local'`` or ``'global'``. Defaults to ``'local'``, as published.
        queue_size (int): Videos in the memory bank (K); 0 means none. Defaults to 0.
        weight (float): Weight of the negatives from outside the device's batch: each adds
            ``weight * exp(similarity / temperature)`` to a denominator. Defaults to 1, like any
            other negative; with another value a sentence's loss depends on which rank it is on.
        half_life (float, optional): A video of the queue weighs half as much again for so many
            videos that were stored after it. Defaults to None: its age plays no role.
        exclude_same_text (bool): A sentence of another video with the same text, but for case,
            punctuation and white space, is no negative, and neither are the moments of that video
            near the sentence's ground truth. Defaults to False, as published.
        exclude_similar (float, optional): Likewise a sentence of another video that means nearly
            the same: the cosine of their vectors of the model's ``tower``, or of its frozen
            language model where it has no tower, is at least so much, in (0, 1). Defaults to None:
            only texts are compared.
        videos_per_step (int, optional): Videos of a step of all processes together;
            `ResumableTrainLoop` sets ``train_dataloader.batch_size`` to each one's share. Defaults
            to None: the loader's batch size.
        piece (int, optional): Videos that a process embeds at a time. Defaults to None: all.
        piece_statistics (str): ``'piece'`` or ``'whole'``. Defaults to ``'piece'``.
        momentum (float, optional): The queue is filled by a `MomentumEncoder`, whose average keeps
            so much of itself at every batch, such as 0.99. Its embeddings of the batch and of the
            queue, the keys, are compared with what is trained in losses of their own
            (``loss_vid_keys``, ``loss_sent_keys``), in which the positive is a key as well: moving
            away from all keys gains nothing there. Costs one more forward pass. Defaults to None:
            the queue keeps what was trained.

    Attributes:
        momentum_encoder (MomentumEncoder | None): What fills the bank, with ``momentum``.
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
        exclude_similar: float | None = None,
        videos_per_step: int | None = None,
        piece: int | None = None,
        piece_statistics: str = 'piece',
        momentum: float | None = None,
        half_life: float | None = None,
    ):
        super().__init__()
        problem = _problem_of_pieces(videos_per_step, piece, piece_statistics)
        if scope not in ('local', 'global'):
            problem = f"scope={scope!r}: give 'local' or 'global'"
        elif not (isinstance(queue_size, int) and queue_size >= 0):
            problem = f'queue_size={queue_size}: give a number of videos; 0 means no queue'
        elif not 0 < weight < math.inf:
            problem = f'weight={weight}: give a factor above 0'
        elif weight != 1 and scope == 'local' and not queue_size:
            problem = f"weight={weight}: scope='local', queue_size=0 has no negatives to weigh"
        elif exclude_similar is not None and not 0 < exclude_similar < 1:
            problem = f'exclude_similar={exclude_similar}: give a cosine between 0 and 1, or None'
        elif half_life is not None and not (queue_size and 0 < half_life < math.inf):
            problem = (
                f'half_life={half_life}, queue_size={queue_size}: give a number of videos above 0, '
                'and a queue whose videos age, or None'
            )
        elif momentum is not None and not (queue_size and 0 <= momentum < 1):
            problem = (
                f'momentum={momentum}, queue_size={queue_size}: give a number below 1, and a queue '
                'to fill, or None'
            )
        if problem:
            raise InputError(f'model.head.negatives.{problem}')
        self.scope = scope
        self.weight = weight
        self.exclude_same_text = exclude_same_text
        self.exclude_similar = exclude_similar
        self.videos_per_step = videos_per_step
        self.piece, self.piece_statistics = piece, piece_statistics
        self.bank = MemoryBank(queue_size) if queue_size else None
        self.half_life = half_life
        self.momentum_encoder = None if momentum is None else MomentumEncoder(momentum)
        self.wide = True
        self._seen: Candidates | None = None

    def collect(
        self,
        own: Candidates,
        training: bool = True,
        keys: Candidates | None = None,
        num_rows: int | None = None,
    ) -> Negatives:
        """Negatives of a batch; in training its videos enter the bank, if there is one.

        They enter when the next batch comes, since this batch's backward still needs the bank as
        it is.

        Args:
            own (Candidates): This process's batch, sentences in order of videos.
            training (bool): Whether the batch shall be remembered. Defaults to True.
            keys (Candidates, optional): The same batch, embedded by `momentum_encoder`. Defaults to
                None: there is none.
            num_rows (int, optional): Rows of this batch over which the contrastive losses are
                means. Defaults to None: one for each sentence.

        Raises:
            ValueError: If ``exclude_similar`` or ``momentum`` is set, and the head gives neither
                ``meaning`` nor ``keys``.
        """
        self._require(own, training, keys)
        how = {k: getattr(self, k) for k in ('weight', 'exclude_same_text', 'exclude_similar')}
        everyone, first, share, row_share = own, (0, 0), None, None
        if self.wide and self.scope == 'global' and get_world_size() > 1:
            everyone, first, all_rows = gather_candidates(own, num_rows)
            share = _share(len(own.sentences), len(everyone.sentences))
            row_share = None if num_rows is None else _share(num_rows, all_rows)
        pools, key_pools = [NegativePool.of(everyone, own, first, **how)], []
        if keys is not None:
            everyone = keys if everyone is own else gather_candidates(keys)[0]
            key_pools = [NegativePool.of(everyone, own, first, **how)]
        if self.wide and self.bank is not None:
            self.settle()
            remembered = self.bank.candidates(own.moments.device)
            if remembered is not None:
                pool = NegativePool.of(remembered, own, **how)
                if self.half_life is not None:
                    pool = pool.weighted(-math.log(2) / self.half_life * self.bank.ages())
                (pools if keys is None else key_pools).append(pool)
            if training:
                self._seen = everyone.map(Tensor.detach)
        return Negatives(pools, share, keys, key_pools, row_share)

    def _require(self, own: Candidates, training: bool, keys: Candidates | None) -> None:
        """Refuse a batch that lacks what a setting needs."""
        if self.exclude_similar is not None and own.meaning is None:
            raise InputError(
                'model.head.negatives.exclude_similar compares vectors of meaning, and this head '
                "gives none: hand sentences['meaning'] to its `candidates`"
            )
        if self.momentum_encoder is not None and self.wide and training and keys is None:
            raise InputError(
                'model.head.negatives.momentum compares with keys of a momentum encoder, and this '
                'head gives none: leave it out'
            )

    def forget_iteration(self) -> None:
        """Keep the batch of an iteration that the train loop skips out of the bank."""
        self._seen = None

    def settle(self) -> None:
        """Put the last batch into the bank, once its backward is over."""
        if self._seen is not None:
            self.bank.push(self._seen)
            self._seen = None

    def _bank(self, common: bool) -> MemoryBank | None:
        """The bank, if there is one and it is as asked: common to all ranks, or each rank's own."""
        self.settle()
        return self.bank if common == (self.scope == 'global' or get_world_size() == 1) else None

    def rank_state(self) -> dict:
        """What this rank alone knows: its own bank, if each rank has one."""
        bank = self._bank(common=False)
        return {} if bank is None else bank.state()

    def load_rank_state(self, state: dict) -> None:
        """Take over what ``rank_state`` returned on this rank."""
        self._load(self._bank(common=False), state)

    def common_state(self) -> dict:
        """The bank that all ranks have in common."""
        bank = self._bank(common=True)
        return {} if bank is None else bank.state()

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned on rank 0."""
        self._load(self._bank(common=True), state)

    def _load(self, bank: MemoryBank | None, state: dict) -> None:
        if bank is None:
            return
        if state['video_ids'] and (state.get('meaning') is None) != (self.exclude_similar is None):
            return print_log(
                'exclude_similar was switched on or off: the memory bank begins anew', 'current'
            )
        bank.load_state(state)
