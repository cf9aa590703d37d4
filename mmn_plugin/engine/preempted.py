"""The end of a run that was asked to stop."""


class Preempted(SystemExit):
    """Raised on all ranks at the same iteration; a checkpoint is saved while it passes the loop.

    Args:
        code (int): Exit code of the process.
        reason (str): For the log.
    """

    def __init__(self, code: int, reason: str):
        super().__init__(code)
        self.reason = reason
