"""How long a sentence a language model takes."""

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
