"""Error of a golden file."""


class GoldenFileError(ValueError):
    """A golden file that cannot be used; the message names the file and the key."""
