"""Embeddings of the videos that were seen last."""

import numpy as np
import torch
from torch import Tensor

from .candidates import Candidates


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
