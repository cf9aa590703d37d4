"""The error of unreadable videos."""


class VideoReadError(ValueError):
    """A video cannot be decoded; the message names the file and the cause."""
