"""Error of a file of predictions."""


class PredictionsError(ValueError):
    """A file of predictions that cannot be used; the message names file, video and sentence."""
