"""Start a script in several processes: torchrun, without its report where a message says enough.

dist_train.sh and dist_test.sh call it: ``python tools/launch.py [options of torchrun] SCRIPT ...``.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

# torchrun's logger of processes that ended; it speaks before it is known why they did
_LOGGER = logging.getLogger('torch.distributed.elastic.multiprocessing.api')
_STOPPED = -15  # by torchrun, after another process failed
_USAGE = 2  # argparse has printed what is wrong


class HeldBack(logging.Filter):
    """Keeps log records until it is known whether they are wanted."""

    def __init__(self):
        super().__init__()
        self.records = []

    def filter(self, record):
        """Keep the record, and let nobody else have it."""
        self.records.append(record)
        return False

    def release(self):
        """Log what was kept."""
        _LOGGER.removeFilter(self)
        for record in self.records:
            _LOGGER.handle(record)


def explained(failures, folder):
    """Whether all processes that failed of themselves have printed a message for the user.

    Args:
        failures (dict): rank -> torchrun's record of its failure.
        folder (Path): where a process leaves a file named after its rank when it prints one.
    """
    own = {rank: failure for rank, failure in failures.items() if failure.exitcode != _STOPPED}
    return bool(own) and all(
        failure.exitcode == _USAGE or (folder / f'rank_{rank}').exists()
        for rank, failure in own.items()
    )


def main():
    """Run the script in its processes; exit with 1 if one of them fails."""
    args = parse_args(sys.argv[1:])
    held = HeldBack()
    with tempfile.TemporaryDirectory(prefix='mmn_plugin_') as folder:
        os.environ['MMN_LAUNCH_FOLDER'] = folder  # see mmn_plugin/engine/runner/told_once.py
        _LOGGER.addFilter(held)
        try:
            run(args)
        except ChildFailedError as error:
            if not explained(error.failures, Path(folder)):
                held.release()
                print(error, file=sys.stderr, flush=True)
            sys.exit(1)
        except BaseException:
            held.release()
            raise


if __name__ == '__main__':
    main()
