"""What MMEngine keeps of the runs in a process, and what costs them time in tests alone."""

import gc
import sys


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


def skip_formatting() -> None:
    """Write configs down as they are: yapf would lay each out in half a second."""
    from mmengine.config import config

    config.FormatCode = lambda text, *args, **kwargs: (text, False)


def freeze_imports(known: list[int] = [0]) -> None:  # noqa: B006  (what was imported before)
    """Keep imported modules out of garbage collections, which every dataset of a run asks for."""
    if len(sys.modules) > known[0] + 50:
        gc.collect()
        gc.freeze()
        known[0] = len(sys.modules)
