"""What goes wrong with tubes."""


class TubeError(ValueError):
    """Tubes, or their features, that cannot be used; the message names file and video."""
