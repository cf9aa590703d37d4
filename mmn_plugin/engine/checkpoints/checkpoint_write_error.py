"""What goes wrong when a checkpoint is written."""


class CheckpointWriteError(OSError):
    """A file could not be written; the message says which, why, and what is still there."""
