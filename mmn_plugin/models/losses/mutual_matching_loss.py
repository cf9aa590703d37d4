"""Losses of MMN: mutual matching (equations 4 and 5) and IoU regression (equation 3)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmn_plugin.errors import InputError
from mmn_plugin.models.candidates import Candidates, NegativePool
from mmn_plugin.models.negatives import Negatives
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
    """

    rows: np.ndarray
    blocks: np.ndarray
    masked: Tensor

    @classmethod
    def of(cls, rows: np.ndarray, blocks: np.ndarray, masked: Tensor) -> 'PairMask':
        """From pairs in any order; where a pair occurs several times, any mask counts."""
        stride = int(rows.max(initial=0)) + 1
        pairs, place = np.unique(blocks.astype(np.int64) * stride + rows, return_inverse=True)
        place = torch.from_numpy(place).to(masked.device, non_blocking=True)
        count = masked.new_zeros(len(pairs), masked.shape[1], dtype=torch.int32)
        count.index_add_(0, place, masked.int())
        return cls(pairs % stride, pairs // stride, count > 0)

    def fill_(self, logits: Tensor, first: int, value: float) -> None:
        """Write ``value`` over the masked entries of some blocks.

        Args:
            logits (Tensor): (N, m, L), the blocks from ``first`` on; changed in place.
            first (int): Index of the first block.
            value (float): What to write.
        """
        begin, end = np.searchsorted(self.blocks, [first, first + logits.shape[1]])
        if begin == end:
            return
        rows, blocks = (
            torch.from_numpy(index).to(logits.device, non_blocking=True)
            for index in (self.rows[begin:end], self.blocks[begin:end] - first)
        )
        logits[rows, blocks] = logits[rows, blocks].masked_fill(self.masked[begin:end], value)


def streaming_logsumexp(
    rows: Tensor,
    blocks: Tensor,
    temperature: float,
    mask: PairMask | None = None,
    fill: float = -math.inf,
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
        mask (PairMask, optional): Entries whose x is ``fill`` instead; no gradient passes there.
            Defaults to None.
        fill (float): x of masked entries; minus infinity leaves them out. Defaults to that.
        log_weight (Tensor, optional): (M,), log w; None means w = 1. Defaults to None.
        chunk_elements (int): Similarities held at a time; at least one block is. Defaults to
            2**22 (16 MB in float32).

    Returns:
        Tensor: (N,); minus infinity where nothing is left to sum.
    """
    return _StreamingLogSumExp.apply(
        rows, blocks, temperature, mask, fill, log_weight, chunk_elements
    )


class _StreamingLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, blocks, temperature, mask, fill, log_weight, chunk_elements):
        ctx.settings = (temperature, mask, fill, log_weight, chunk_elements)
        result = rows.new_full((len(rows),), -math.inf)
        for first, last in _chunks(rows, blocks, chunk_elements):
            logits = _logits(rows, blocks[first:last], first, *ctx.settings[:4])
            result = torch.logaddexp(result, logits.flatten(1).logsumexp(1))
        ctx.save_for_backward(rows, blocks, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, blocks, result = ctx.saved_tensors
        # Whoever calls backward under autocast would get products in another precision than the
        # sums they are added to.
        with torch.autocast(rows.device.type, enabled=False):
            gradients = _gradients(
                rows, blocks, result, gradient, ctx.settings, ctx.needs_input_grad[:2]
            )
        return *gradients, None, None, None, None, None


def _gradients(rows, blocks, result, gradient, settings, needed):
    """(N, J) and (M, L, J) of rows and blocks, None for what needs none."""
    temperature, mask, fill, log_weight, chunk_elements = settings
    need_rows, need_blocks = needed
    of_rows = torch.zeros_like(rows) if need_rows else None
    of_blocks = torch.empty_like(blocks) if need_blocks else None
    # A row without anything to sum has no gradient: exp(-inf - 0) = 0.
    result = result.masked_fill(result == -math.inf, 0.0)[:, None, None]
    scale = (gradient / temperature)[:, None, None]
    for first, last in _chunks(rows, blocks, chunk_elements):
        chunk = blocks[first:last]
        share = _logits(rows, chunk, first, temperature, mask, fill, log_weight)
        share.sub_(result).exp_().mul_(scale)  # (N, m, L)
        if mask is not None:
            mask.fill_(share, first, 0.0)
        share = share.flatten(1)  # (N, m * L)
        if need_rows:
            of_rows.addmm_(share, chunk.flatten(0, 1))
        if need_blocks:
            torch.mm(share.T, rows, out=of_blocks[first:last].view(-1, rows.shape[1]))
    return of_rows, of_blocks


def _chunks(rows: Tensor, blocks: Tensor, chunk_elements: int):
    """(first, last) of the blocks to visit together."""
    step = max(1, chunk_elements // max(1, len(rows) * blocks.shape[1]))
    for first in range(0, len(blocks), step):
        yield first, min(first + step, len(blocks))


def _logits(rows, chunk, first, temperature, mask, fill, log_weight) -> Tensor:
    """(N, m, L), x with its masked entries and weights."""
    logits = (rows @ chunk.flatten(0, 1).T).div_(temperature).unflatten(1, chunk.shape[:2])
    if mask is not None:
        mask.fill_(logits, first, fill)
    if log_weight is not None:
        logits.add_(log_weight[first : first + len(chunk), None])
    return logits


@MODELS.register_module()
class MutualMatchingLoss(nn.Module):
    """Mutual matching (MMN, section "Mutual matching", equations 5 to 7).

    Two cross-entropies over cosine similarities: a positive moment must find its sentence among
    all sentences (inter-video and intra-video negative sentences), and a sentence its positive
    moments among all moments. "All" are those of the batch, and of whatever other videos
    ``negatives`` brings.

    The similarities to all these moments and sentences are visited in chunks (see
    `streaming_logsumexp`), so that memory does not grow with their number.

    Args:
        num_positive (int): Moments of highest IoU that are a sentence's positives.
        negative_iou (float): Moments of the sentence's own video are negatives below this IoU.
        sentence_removal_iou (float): A sentence of the same video whose ground truth overlaps
            this one's by at least this IoU is no negative.
        margin (float): Subtracted from a positive pair's similarity (m).
        temperature_video (float): Of the moment-to-sentences direction (t_v).
        temperature_sentence (float): Of the sentence-to-moments direction (t_s).
        chunk_elements (int): Similarities in memory at a time. Defaults to 2**22, 16 MB.

    Raises:
        ValueError: If ``chunk_elements`` is not positive.
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
        if chunk_elements < 1:
            raise InputError(
                f'loss_matching.chunk_elements={chunk_elements}: give the number of '
                'similarities to hold in memory at a time, such as 2**22'
            )
        self.num_positive = num_positive
        self.negative_iou = negative_iou
        self.sentence_removal_iou = sentence_removal_iou
        self.margin = margin
        self.temperature_video = temperature_video
        self.temperature_sentence = temperature_sentence
        self.chunk_elements = chunk_elements

    def forward(
        self,
        moments: Tensor,
        sentences: Tensor,
        sentence_video: Tensor,
        iou: Tensor,
        ground_truth: Tensor,
        negatives: Negatives | None = None,
        positives: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over the batch's sentences and positives.

        Args:
            moments (Tensor): (B, P, J), L2-normalized.
            sentences (Tensor): (S, J), L2-normalized.
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            iou (Tensor): (S, P), IoU of the moments of its video with a sentence's ground truth.
            ground_truth (Tensor): (S, 2), seconds.
            negatives (Negatives, optional): What to compare with; its first pool holds the batch
                itself. Defaults to None: the batch alone, every video of it another one.
            positives (Tensor, optional): (S, K) indices on the host of each sentence's moments of
                highest IoU. Defaults to None: found here, for which the host waits.

        Returns:
            tuple[Tensor, Tensor]: Moment-to-sentences loss (``loss_vid``) and
            sentence-to-moments loss (``loss_sent``), scalars.
        """
        if negatives is None:
            own = Candidates(
                moments,
                sentences,
                ground_truth,
                sentence_video.cpu().numpy(),
                list(range(len(moments))),
            )
            negatives = Negatives([NegativePool.of(own, own, 0, 0)])
        if positives is None:
            # On the CPU, because ties are resolved there as in the published figures.
            positives = iou.cpu().topk(self.num_positive, dim=1).indices
        positives = positives.to(iou.device, non_blocking=True)  # (S, K)
        positive_moments = moments[sentence_video[:, None], positives]  # (S, K, J)
        positive = (positive_moments * sentences[:, None]).sum(-1)  # (S, K)
        loss_vid = self.moment_to_sentences(positive_moments, positive, ground_truth, negatives)
        loss_sent = self.sentence_to_moments(sentences, positive, iou, negatives)
        return loss_vid, loss_sent

    def moment_to_sentences(
        self, positive_moments: Tensor, positive: Tensor, ground_truth: Tensor, negatives: Negatives
    ) -> Tensor:
        """Each positive moment against all sentences."""
        queries = positive_moments.flatten(0, 1)  # (S * K, J)
        parts = []
        for pool in negatives.pools:
            candidates, log_weight = pool.candidates, pool.log_weight
            if log_weight is not None:
                video = _on(candidates.sentence_video, log_weight.device)
                log_weight = log_weight[video]  # (S',)
            parts.append(
                streaming_logsumexp(
                    queries,
                    candidates.sentences[:, None],
                    self.temperature_video,
                    self.no_negative_sentences(pool, ground_truth),
                    -math.inf,
                    log_weight,
                    self.chunk_elements,
                )
            )
        others = torch.stack(parts).logsumexp(0).view_as(positive)  # (S, K)
        logit = (positive - self.margin) / self.temperature_video
        return (torch.logaddexp(logit, others) - logit).mean()

    def no_negative_sentences(self, pool: NegativePool, ground_truth: Tensor) -> PairMask:
        """Sentences of the pool that are no negatives: of the same video and moment, or text.

        Rows are the S * K positive moments; a sentence's positives all have its mask.
        """
        rows, columns = pool.same_video_sentences
        here, there = (_on(index, ground_truth.device) for index in (rows, columns))
        overlap = temporal_iou(ground_truth[here], pool.candidates.ground_truth[there])
        masked = overlap >= self.sentence_removal_iou  # (n,)
        if pool.first_sentence is not None:
            # Oneself is the positive, whatever its overlap.
            masked = masked | (here + pool.first_sentence == there)
        if pool.same_text is not None:
            rows, columns = (
                np.concatenate(pair) for pair in zip((rows, columns), pool.same_text, strict=True)
            )
            masked = torch.cat([masked, masked.new_ones(len(pool.same_text[0]))])
        K = self.num_positive
        rows = (rows[:, None] * K + np.arange(K)).reshape(-1)
        return PairMask.of(rows, columns.repeat(K), masked.repeat_interleave(K)[:, None])

    def sentence_to_moments(
        self, sentences: Tensor, positive: Tensor, iou: Tensor, negatives: Negatives
    ) -> Tensor:
        """Each sentence's positive moments against all moments."""
        # Published quirk: a moment of the same video that is no negative is multiplied by 0, so
        # it still adds exp(0) = 1.
        parts = [
            streaming_logsumexp(
                sentences,
                pool.candidates.moments,
                self.temperature_sentence,
                self.no_negative_moments(pool, iou),
                0.0,
                pool.log_weight,
                self.chunk_elements,
            )
            for pool in negatives.pools
        ]
        others = torch.stack(parts).logsumexp(0)  # (S,)
        others = torch.logaddexp(others, others.new_full((), self.LOG_EPSILON))
        logit = (positive - self.margin) / self.temperature_sentence  # (S, K)
        return (torch.logaddexp(logit, others[:, None]) - logit).mean()

    def no_negative_moments(self, pool: NegativePool, iou: Tensor) -> PairMask:
        """Moments of the pool that are no negatives: those the sentence, or its text, describes.

        Every copy of the sentence's video is masked like the video itself; where another video
        has a sentence of the same text, the moments near that sentence's ground truth are.
        """
        rows, videos = pool.same_video
        masked = iou[_on(rows, iou.device)] >= self.negative_iou  # (n, P)
        if pool.same_text is not None:
            here, there = pool.same_text
            theirs = pool.candidates.iou[_on(there, iou.device)]
            masked = torch.cat([masked, theirs >= self.negative_iou])
            rows = np.concatenate([rows, here])
            videos = np.concatenate([videos, pool.candidates.sentence_video[there]])
        return PairMask.of(rows, videos, masked)


def _on(index: np.ndarray, device: torch.device) -> Tensor:
    """An index from the host, for which nobody waits."""
    return torch.from_numpy(index).to(device, non_blocking=True)


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
