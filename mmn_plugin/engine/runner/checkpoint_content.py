"""What a loaded checkpoint must be before anything is taken from it."""


def require_checkpoint_content(checkpoint, path: str | None) -> None:
    """Make sure that a loaded file has the form of a checkpoint.

    Args:
        checkpoint: What was loaded.
        path (str | None): Its file, for the message.

    Raises:
        ValueError: If it is no dict of weights, neither under ``state_dict`` nor at the top, or
            its ``meta`` is no dict.
    """
    where = path or 'the checkpoint'
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'{where} holds a {type(checkpoint).__name__} and is no checkpoint: '
            "expected a dict with the weights under 'state_dict'"
        )
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise ValueError(
            f'{where} is no checkpoint: expected weights by name, but its state_dict '
            f'is a {type(weights).__name__}'
        )
    meta = checkpoint.get('meta', {})
    if not isinstance(meta, dict):
        raise ValueError(
            f"{where} is a damaged checkpoint: its 'meta' is {meta!r:.40}, no dict. "
            "If you trust its weights, re-save its 'state_dict' alone"
        )
