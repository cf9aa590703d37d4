"""The error of unfit feature files."""


class FeatureFileError(ValueError):
    """A feature file cannot be continued; the message says why and what to do."""
