"""Writing checkpoints, and finding them again."""

from .atomic_local_backend import AtomicLocalBackend
from .changed_settings import changed_settings
from .checkpoint_write_error import CheckpointWriteError
from .newest_checkpoint import damage, newest_checkpoint
from .plain_data import make_plain, plain, restore_histories
from .training_record import TrainingRecord, WorkFolderInUseError
from .write_atomically import PARTIAL, write_atomically

__all__ = [
    'PARTIAL',
    'AtomicLocalBackend',
    'CheckpointWriteError',
    'TrainingRecord',
    'WorkFolderInUseError',
    'changed_settings',
    'damage',
    'make_plain',
    'newest_checkpoint',
    'plain',
    'restore_histories',
    'write_atomically',
]
