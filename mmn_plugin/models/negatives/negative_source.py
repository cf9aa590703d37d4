"""From a batch to everything its losses are computed against."""

from dataclasses import replace

from mmengine.dist import get_world_size

from .candidates import Candidates
from .gather import gather_candidates
from .memory_bank import MemoryBank
from .negative_pool import NegativePool
from .negatives import Negatives


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
