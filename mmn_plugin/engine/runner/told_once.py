"""One message of several processes that failed for the same reason."""

import hashlib
import os
import time
from pathlib import Path


def mark_explained() -> None:
    """Let ``tools/launch.py`` know that a message says why this process ends as it does.

    Raises:
        OSError: If it cannot be written.
    """
    folder = os.environ.get('MMN_LAUNCH_FOLDER')
    if folder:
        (Path(folder) / f'rank_{os.environ.get("RANK", "0")}').touch()


def tell_once(message: str, patience: float = 2.0) -> bool:
    """Whether this process is the one to print an error that it ends with.

    Under ``tools/launch.py`` the processes of a machine share a folder (``MMN_LAUNCH_FOLDER``).
    Each leaves a file there that says that its failure is explained. Of those with the same message
    one prints it: the first on the machine, for which the others wait a little; while they wait
    the launcher usually ends them. Without that folder, or where it cannot be written, every
    process prints.

    Args:
        message (str): The message.
        patience (float): Seconds that the other processes give the first. Defaults to 2.

    Returns:
        bool: False if another process of this machine has printed the same message.
    """
    folder = os.environ.get('MMN_LAUNCH_FOLDER')
    if not folder:
        return True
    claim = Path(folder) / f'message_{hashlib.sha256(message.encode()).hexdigest()}'
    try:
        mark_explained()
        if os.environ.get('LOCAL_RANK', '0') != '0':
            deadline = time.monotonic() + patience
            while not claim.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True
