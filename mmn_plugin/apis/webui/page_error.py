"""What a visitor of the page did wrong."""


class PageError(ValueError):
    """A message for the visitor, to be shown on the page."""
