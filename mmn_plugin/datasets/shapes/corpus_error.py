"""The error of this room."""


class CorpusError(ValueError):
    """The corpus cannot be made as asked; the message says why and what to do."""
