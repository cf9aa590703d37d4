"""What MMEngine keeps of the runs in a process."""


def forget_runs() -> None:
    """Let a run that begins in the same second as another one have a log of its own."""
    for instances in kept_of_runs():
        instances.clear()


def kept_of_runs() -> list[dict]:
    """What MMEngine keeps by the name of a run, which is that of its config and the second.

    Every class has a dictionary of its own; a subclass's is not its base's.
    """
    from mmengine.utils import ManagerMixin

    kinds = [ManagerMixin]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return [kind._instance_dict for kind in kinds]
