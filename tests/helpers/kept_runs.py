"""What MMEngine keeps of the runs in a process, and what it may keep."""


def kept_of_runs() -> list[dict]:
    """What MMEngine keeps by the name of a run, which is that of its config and the second.

    Every class has a dictionary of its own; a subclass's is not its base's.
    """
    from mmengine.utils import ManagerMixin

    kinds = [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return [kind._instance_dict for kind in kinds]


def forget_runs() -> None:
    """Let a run that begins in the same second as another one have a log of its own."""
    for instances in kept_of_runs():
        instances.clear()


def remember_formatting() -> None:
    """Format a config's text once per process: a run asks four times, for half a second of yapf."""
    from mmengine.config import config

    known, form = {}, config.FormatCode

    def remembered(text, *args, **kwargs):
        if text not in known:
            known[text] = form(text, *args, **kwargs)
        return known[text]

    config.FormatCode = remembered
