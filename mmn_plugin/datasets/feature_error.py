"""What goes wrong with feature files."""


class FeatureError(ValueError):
    """Features that cannot be used; the message names file and video and says what to do.

    Args:
        message (str): For the user.
        kind (str): What kind of fault it is, in a few words, for tables. Defaults to
            'unreadable features'.
    """

    def __init__(self, message: str, kind: str = 'unreadable features'):
        super().__init__(message)
        self.kind = kind
