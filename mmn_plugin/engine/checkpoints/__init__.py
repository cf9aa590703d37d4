"""Writing checkpoints, and finding them again."""
from .atomic_local_backend import AtomicLocalBackend
from .checkpoint_write_error import CheckpointWriteError
from .newest_checkpoint import damage, newest_checkpoint
from .write_atomically import PARTIAL, write_atomically

__all__ = ['PARTIAL', 'AtomicLocalBackend', 'CheckpointWriteError', 'damage', 'newest_checkpoint',
           'write_atomically']
