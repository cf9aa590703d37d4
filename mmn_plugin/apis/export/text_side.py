"""What of a model a sentence goes through."""

from torch import Tensor, nn

from mmn_plugin.structures import SentenceBatch


class TextSide(nn.Module):
    """Token ids to unit embeddings of sentences.

    Args:
        model (nn.Module): An ``MMN``, in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.text_encoder, self.normalise = model.text_encoder, model.head.normalise

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(S, L) int64 ids, and 1 at tokens, 0 at padding -> ``contrastive`` and ``iou`` (S, J)."""
        encoder = self.text_encoder
        means = encoder.token_means(SentenceBatch(input_ids, attention_mask, input_ids[:, 0]))
        pooled = encoder.layernorm(means)  # (S, C)
        sentences = self.normalise(
            dict(iou=encoder.fc_iou(pooled), contrastive=encoder.fc_contrastive(pooled))
        )
        return sentences['contrastive'], sentences['iou']
