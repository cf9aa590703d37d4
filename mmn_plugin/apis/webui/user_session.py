"""One visitor's video."""

import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mmn_plugin.apis.encoded_video import EncodedVideo


@dataclass
class UserSession:
    """A video that one visitor chose, with what the model has made of it.

    Attributes:
        name (str): The video's name, as the visitor knows it.
        path (Path): The file that is played.
        duration (float): Seconds.
        folder (Path | None): Folder to delete with the session; None for an example's, which
            all visitors share.
        truth (dict): Sentence -> true moment (start, end), where known.
        encoded (EncodedVideo | None): None until the model has seen the video.
        used (float): When it was last asked about (`time.monotonic`).
        deleted (bool): Whether the visitor has left it; nothing more is to be done for it.
    """

    name: str
    path: Path
    duration: float
    folder: Path | None = None
    truth: dict = field(default_factory=dict)
    encoded: EncodedVideo | None = None
    used: float = field(default_factory=time.monotonic)
    deleted: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def delete(self) -> None:
        """Forget the video; its file is deleted if it was uploaded."""
        self.encoded, self.deleted = None, True
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which lives on when the first one is deleted."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
