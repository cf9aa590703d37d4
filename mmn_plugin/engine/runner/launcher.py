"""What the processes of a run need from whatever starts them."""

import os

from mmengine.device import get_device

_CALLED = {
    'pytorch': 'torchrun (`bash tools/dist_train.sh CONFIG PROCESSES` calls it)',
    'slurm': 'srun (`bash tools/slurm_train.sh` calls it, without --launcher slurm)',
    'mpi': "Open MPI's mpirun, with MASTER_ADDR set",
}
_NEEDED = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_LOCAL_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'MASTER_ADDR',
    ),
}


def require_launcher(name: str) -> None:
    """Make sure that this process was started as ``--launcher`` says.

    Args:
        name (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If environment variables are absent, or one that is a number is none. If there
            is no GPU, which MMEngine's ``slurm`` and ``mpi`` need.
    """
    missing = [variable for variable in _NEEDED.get(name, ()) if not os.environ.get(variable)]
    if missing:
        raise ValueError(
            f'--launcher {name} is for processes that are started by {_CALLED[name]}, which sets '
            f'{", ".join(missing)}; for one process leave --launcher out'
        )
    for variable in _NEEDED.get(name, ()):
        number = variable not in ('MASTER_ADDR', 'SLURM_NODELIST')
        if number and not os.environ[variable].isdecimal():
            raise ValueError(
                f'{variable}={os.environ[variable]} is no number, which --launcher {name} needs'
            )
    if name in ('slurm', 'mpi') and get_device() == 'cpu':
        raise ValueError(
            f'--launcher {name} needs GPUs, and this process sees none: on CPUs use '
            '`bash tools/dist_train.sh`, or `tools/slurm_train.sh` with '
            'GPUS_PER_NODE=0 PROCESSES=N'
        )
