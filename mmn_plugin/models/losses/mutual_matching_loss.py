"""Losses of MMN: mutual matching (equations 4 and 5) and IoU regression (equation 3)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmn_plugin.models.negatives import Candidates, Negatives, Pairs, on
from mmn_plugin.structures import temporal_iou


@dataclass
class PairMask:
    """Masked entries of an (N, M, L) array of logits, as n pairs (row, block) of L entries each.

    Pairs are few (a sentence and the videos it knows something about), the array is large, so the
    pairs are listed on the host, where they come from, and no array of its size is ever made.

    Attributes:
        rows (np.ndarray): (n,) int64 in [0, N).
        blocks (np.ndarray): (n,) int64 in [0, M), never falling; no pair occurs twice.
        masked (Tensor): (n, L) bool, on the logits' device.
        fill (float): Logit of the masked entries.
    """

    rows: np.ndarray
    blocks: np.ndarray
    masked: Tensor
    fill: float

    @classmethod
    def of(cls, rows: np.ndarray, blocks: np.ndarray, masked: Tensor, fill: float) -> 'PairMask':
        """From pairs in any order; where a pair occurs several times, any mask counts."""
        stride = int(rows.max(initial=0)) + 1
        pairs, place = np.unique(blocks * stride + rows, return_inverse=True)
        count = masked.new_zeros(len(pairs), masked.shape[1], dtype=torch.int32)
        count.index_add_(0, on(place, masked.device), masked.int())
        return cls(pairs % stride, pairs // stride, count > 0, fill)

    def write(self, logits: Tensor, first: int, value: float) -> None:
        """Overwrite the masked entries of the blocks from ``first`` on, (N, m, L), in place."""
        begin, end = np.searchsorted(self.blocks, [first, first + logits.shape[1]])
        place = (
            on(self.rows[begin:end], logits.device),
            on(self.blocks[begin:end] - first, logits.device),
        )
        logits[place] = logits[place].masked_fill(self.masked[begin:end], value)


def streaming_logsumexp(
    rows: Tensor,
    blocks: Tensor,
    temperature: float,
    mask: PairMask | None = None,
    log_weight: Tensor | None = None,
    chunk_elements: int = 2**22,
) -> Tensor:
    """``log sum over m, l of w[m] * exp(x[n, m, l])``, x = ``rows . blocks / temperature``.

    Blocks are visited a chunk at a time with a running logarithm, and visited again in backward,
    where a chunk's share of the gradient needs its similarities and the final sum alone. Beside
    inputs and their gradients, memory is one chunk, whatever the number of blocks; the work is
    one product forward and three backward (two where ``blocks`` needs no gradient).

    Args:
        rows (Tensor): (N, J).
        blocks (Tensor): (M, L, J).
        temperature (float): Divisor of the similarities.
        mask (PairMask, optional): Entries whose x is the mask's ``fill`` instead (minus infinity
            leaves them out); no gradient passes there. Defaults to None.
        log_weight (Tensor, optional): (M,), log w; None means w = 1. Defaults to None.
        chunk_elements (int): Similarities held at a time; at least one block is. Defaults to
            2**22 (16 MB in float32).

    Returns:
        Tensor: (N,); minus infinity where nothing is left to sum.
    """
    return _StreamingLogSumExp.apply(rows, blocks, temperature, mask, log_weight, chunk_elements)


class _StreamingLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, blocks, *settings):
        ctx.settings = settings
        result = rows.new_full((len(rows),), -math.inf)
        for _, _, logits in _chunks(rows, blocks, *settings):
            result = torch.logaddexp(result, logits.flatten(1).logsumexp(1))
        ctx.save_for_backward(rows, blocks, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, blocks, result = ctx.saved_tensors
        temperature, mask, *_ = ctx.settings
        of_rows = torch.zeros_like(rows) if ctx.needs_input_grad[0] else None
        of_blocks = torch.empty_like(blocks) if ctx.needs_input_grad[1] else None
        # A row without anything to sum has no gradient: exp(-inf - 0) = 0.
        result = result.masked_fill(result == -math.inf, 0.0)[:, None, None]
        scale = (gradient / temperature)[:, None, None]
        for first, chunk, logits in _chunks(rows, blocks, *ctx.settings):
            share = logits.sub_(result).exp_().mul_(scale)  # (N, m, L)
            if mask is not None:
                mask.write(share, first, 0.0)
            share = share.flatten(1)  # (N, m * L)
            if of_rows is not None:
                of_rows.addmm_(share, chunk.flatten(0, 1))
            if of_blocks is not None:
                own = of_blocks[first : first + len(chunk)]
                torch.mm(share.T, rows, out=own.view(-1, rows.shape[1]))
        return of_rows, of_blocks, None, None, None, None


def _chunks(rows, blocks, temperature, mask, log_weight, chunk_elements):
    """(first block, m blocks, logits (N, m, L)) of the blocks that are visited together."""
    step = max(1, chunk_elements // max(1, len(rows) * blocks.shape[1]))
    for number, chunk in enumerate(blocks.split(step)):
        first = number * step
        logits = (rows @ chunk.flatten(0, 1).T).div_(temperature).unflatten(1, chunk.shape[:2])
        if mask is not None:
            mask.write(logits, first, mask.fill)
        if log_weight is not None:
            logits.add_(log_weight[first : first + len(chunk), None])
        yield first, chunk, logits


@MODELS.register_module()
class MutualMatchingLoss(nn.Module):
    """Mutual matching (MMN, section "Mutual matching", equations 5 to 7).

    Two cross-entropies over cosine similarities: a positive moment must find its sentence among
    all sentences (inter-video and intra-video negative sentences), and a sentence its positive
    moments among all moments. "All" are those of the batch, and of whatever other videos
    ``negatives`` brings. Their similarities are visited in chunks (see `streaming_logsumexp`), so
    that memory does not grow with their number.

    Args:
        num_positive (int): Moments of highest IoU that are a sentence's positives (K).
        negative_iou (float): Moments of the sentence's own video are negatives below this IoU with
            all of its windows.
        sentence_removal_iou (float): A sentence of the same video is no negative of a positive
            moment if one of its windows overlaps the moment's by at least this IoU.
        margin (float): Subtracted from a positive pair's similarity (m).
        temperature_video (float): Of the moment-to-sentences direction (t_v).
        temperature_sentence (float): Of the sentence-to-moments direction (t_s).
        chunk_elements (int): Similarities in memory at a time. Defaults to 2**22, 16 MB.
    """

    # The published code adds this inside the logarithm of the sentence-to-moments direction.
    LOG_EPSILON = math.log(1e-6)

    def __init__(
        self,
        num_positive: int,
        negative_iou: float,
        sentence_removal_iou: float,
        margin: float,
        temperature_video: float,
        temperature_sentence: float,
        chunk_elements: int = 2**22,
    ):
        super().__init__()
        self.num_positive = num_positive
        self.negative_iou = negative_iou
        self.sentence_removal_iou = sentence_removal_iou
        self.margin = margin
        self.temperature_video = temperature_video
        self.temperature_sentence = temperature_sentence
        self.chunk_elements = chunk_elements

    def forward(
        self,
        own: Candidates,
        positives: Tensor,
        negatives: Negatives,
        *,
        sentence: np.ndarray | None = None,
        window: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over the batch's positives; 0 where there is none.

        Args:
            own (Candidates): The batch.
            positives (Tensor): (G, K) indices on the host of moments of highest IoU.
            negatives (Negatives): What to compare with, the batch among it.
            sentence (np.ndarray, optional): (G,) int64, never falling, the sentence that each row
                of ``positives`` is of. Defaults to None: G = S, one row for each.
            window (Tensor, optional): (G, K) on the host, each positive's window among those of its
                sentence. Defaults to None: the first.

        Returns:
            tuple[Tensor, Tensor]: Moment-to-sentences loss (``loss_vid``) and
            sentence-to-moments loss (``loss_sent``), scalars.
        """
        device = own.moments.device
        rows = _Rows(own, sentence, window)
        video = own.sentence_video if sentence is None else own.sentence_video[sentence]
        place = on(video, device)[:, None], positives.to(device, non_blocking=True)  # (G, K)
        moments = own.moments[place]  # (G, K, J)
        positive = (moments * rows.of(own.sentences)[:, None]).sum(-1) - self.margin  # (G, K)
        of_video, of_sentence = self._all_negatives(negatives, own, moments, rows)
        of_sentence = of_sentence.logaddexp(torch.full_like(of_sentence, self.LOG_EPSILON))
        return (
            self._cross_entropy(positive / self.temperature_video, of_video),
            self._cross_entropy(positive / self.temperature_sentence, of_sentence),
        )

    def _all_negatives(
        self, negatives: Negatives, own: Candidates, moments: Tensor, rows: '_Rows'
    ) -> tuple[Tensor, Tensor]:
        """All sentences against the positives (G, K, J), as (G, K), and all moments against their
        sentences, as (G, 1): logarithms of sums.
        """
        of_video = streaming_logsumexp(
            moments.flatten(0, 1),
            negatives.candidates.sentences[:, None],
            self.temperature_video,
            self.ignored_sentences(negatives, rows),
            negatives.sentence_log_weight(),
            self.chunk_elements,
        )
        of_sentence = streaming_logsumexp(
            own.sentences,
            negatives.candidates.moments,
            self.temperature_sentence,
            self.ignored_moments(negatives, own.iou),
            negatives.log_weight,
            self.chunk_elements,
        )
        return of_video.view(moments.shape[:2]), rows.of(of_sentence)[:, None]

    @staticmethod
    def _cross_entropy(logits: Tensor, others: Tensor) -> Tensor:
        """Mean over positives (G, K), each against itself and all others, (G, K) or (G, 1)."""
        terms = torch.logaddexp(logits, others) - logits
        return terms.mean() if len(terms) else terms.sum()

    def ignored_sentences(self, negatives: Negatives, rows: '_Rows') -> PairMask:
        """Sentences that are no negatives: of the same video and moment, or meaning.

        Rows are the G * K positive moments, each with its own window.
        """
        device = rows.windows.device
        here, there = rows.pairs(negatives.same_video_sentences)
        truth = negatives.candidates.ground_truth[on(there, device)][:, None]  # (n, 1, M, 2)
        overlap = temporal_iou(rows.windows[on(here, device)][:, :, None], truth)  # (n, 1 or K, M)
        masked = (overlap >= self.sentence_removal_iou).any(-1)
        # Oneself is the positive, whatever its overlap.
        oneself = rows.sentence[here] + negatives.first_sentence == there
        masked = masked | on(oneself, device)[:, None]
        here_too, there_too = rows.pairs(negatives.same_meaning)
        K = self.num_positive
        masked = torch.cat([masked.expand(-1, K), masked.new_ones(len(here_too), K)])
        here = (np.concatenate([here, here_too])[:, None] * K + np.arange(K)).reshape(-1)
        there = np.concatenate([there, there_too]).repeat(K)
        return PairMask.of(here, there, masked.reshape(-1, 1), -math.inf)

    def ignored_moments(self, negatives: Negatives, iou: Tensor) -> PairMask:
        """Moments that are no negatives, by IoU (S, P): those that sentences of the same meaning
        describe.

        Every copy of the sentence's video is masked like the video itself; where another video
        has a sentence of the same meaning, the moments near that sentence's ground truth are.
        Published quirk: such a moment is multiplied by 0, so it still adds exp(0) = 1.
        """
        own = iou[on(negatives.same_video[0], iou.device)]  # (n, P)
        of_others = negatives.candidates.iou[on(negatives.same_meaning[1], iou.device)]
        masked = torch.cat([own, of_others]) >= self.negative_iou
        return PairMask.of(*negatives.excluded_videos(), masked, 0.0)


class _Rows:
    """Which sentence each of the G rows of positives is of, and which window each positive.

    Args: as of `MutualMatchingLoss.forward`.

    Attributes:
        sentence (np.ndarray): (G,) int64, never falling.
        windows (Tensor): (G, K, 2), or (G, 1, 2) where a row's positives all have one.
    """

    def __init__(self, own: Candidates, sentence: np.ndarray | None, window: Tensor | None):
        self._all = sentence is None
        count, device = len(own.sentences), own.ground_truth.device
        self.sentence = np.arange(count) if sentence is None else sentence
        self._counts = np.bincount(self.sentence, minlength=count)  # (S,) rows of each sentence
        if window is None:
            self.windows = self.of(own.ground_truth[:, :1])
        else:
            place = on(self.sentence, device)[:, None], window.to(device, non_blocking=True)
            self.windows = own.ground_truth[place]

    def of(self, values: Tensor) -> Tensor:
        """Values (S, ...) of the sentences as those of the rows, (G, ...)."""
        return values if self._all else values[on(self.sentence, values.device)]

    def pairs(self, pairs: Pairs) -> Pairs:
        """Pairs (sentence of the batch, other) as pairs (row, other): one for each of its rows."""
        here, there = pairs
        if self._all:
            return pairs
        counts = self._counts[here]
        number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        first = self._counts.cumsum() - self._counts  # (S,) place of each sentence's first row
        return np.repeat(first[here], counts) + number, np.repeat(there, counts)


@MODELS.register_module()
class IoURegressionLoss(nn.Module):
    """Binary cross-entropy of the IoU score against the scaled IoU (2D-TAN, equation 2).

    The target is ``clamp((IoU - min_iou) / (max_iou - min_iou), 0, 1)``.

    Args:
        min_iou (float): IoU whose target is 0.
        max_iou (float): IoU whose target is 1.
    """

    def __init__(self, min_iou: float, max_iou: float):
        super().__init__()
        self.min_iou = min_iou
        self.max_iou = max_iou

    def forward(self, logits: Tensor, iou: Tensor) -> Tensor:
        """Mean over all sentences and moments.

        Args:
            logits (Tensor): (S, P), the IoU score before the sigmoid.
            iou (Tensor): (S, P), IoU of each moment with the sentence's ground truth.

        Returns:
            Tensor: Scalar.
        """
        target = ((iou - self.min_iou) / (self.max_iou - self.min_iou)).clamp(0, 1)
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
