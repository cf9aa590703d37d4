"""What is wrong with an annotation file."""


class AnnotationError(ValueError):
    """An annotation file that cannot be used; the message names file, video and sentence."""
