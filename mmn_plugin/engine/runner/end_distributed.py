"""The end of a process of a distributed run."""

import atexit
import os
import sys

import torch


def end_distributed(runner, code: int = 0) -> None:
    """End a process of a distributed run that is over; does nothing in an ordinary run.

    gloo's threads can outlive the interpreter, which then ends now and then with "terminate called
    without an active exception" (https://github.com/pytorch/pytorch/issues/190489), and a finished
    training counts as failed; ``destroy_process_group`` alone does not prevent it. So whatever is
    still to be written is written here, and the process ends without tearing down the rest.

    Args:
        runner (Runner): the runner; its visualisation back ends are closed.
        code (int): exit code. Defaults to 0.
    """
    if not torch.distributed.is_initialized():
        return
    try:
        runner.visualizer.close()
    except Exception as error:  # figures are saved; a back end's end must not undo the run
        print(f'closing the visualiser failed: {error}', file=sys.stderr)
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
