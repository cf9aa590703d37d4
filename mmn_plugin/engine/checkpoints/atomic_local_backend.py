"""MMEngine's local files, written atomically."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from .write_atomically import write_atomically


class AtomicLocalBackend(LocalBackend):
    """``LocalBackend`` whose files are never there in part.

    ``CheckpointHook(backend_args=dict(backend='AtomicLocalBackend'))`` makes MMEngine write with
    it; `SafeCheckpointHook` does so by itself.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see `write_atomically`."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text; see `write_atomically`."""
        write_atomically(obj.encode(encoding), filepath)


register_backend('AtomicLocalBackend', AtomicLocalBackend, force=True)
