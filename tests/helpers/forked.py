"""What forked processes do to files, and how they end."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable

NOBODY = 65534


def fork(action: Callable[[], object]) -> tuple[int, int]:
    """Do something in a forked process; returns its id, and where its result can be read."""
    receive, send = os.pipe()
    child = os.fork()
    if child:
        os.close(send)
        return child, receive
    try:
        os.write(send, json.dumps(action()).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def result_of(action: Callable[[], object]):
    """What something returns in a forked process, as JSON has it; None: it was killed."""
    child, receive = fork(action)
    with os.fdopen(receive) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    return json.loads(text)


def calls_of(action: Callable[[], object]) -> int:
    """How many functions in C something calls, counted in a forked process."""

    def count():
        calls = 0

        def note(_frame, event, _function):
            nonlocal calls
            calls += event == 'c_call'

        sys.setprofile(note)
        action()
        sys.setprofile(None)
        return calls

    return result_of(count)


def killed_before(action: Callable[[], object], call: int) -> None:
    """Do something in a forked process that is killed before this call of a function in C."""

    def until():
        calls = 0

        def note(_frame, event, _function):
            nonlocal calls
            calls += event == 'c_call'
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(note)
        action()

    assert result_of(until) is None


def as_nobody(action: Callable[[], object]):
    """What something returns in a forked process without root's rights on files."""

    def without_rights():
        if os.geteuid() == 0:
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        return action()

    return result_of(without_rights)
