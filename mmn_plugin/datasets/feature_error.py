"""What goes wrong with feature files."""


class FeatureError(ValueError):
    """Features that cannot be used; the message names file and video and says what to do."""
