"""What forked processes do to files, and how they end."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from types import ModuleType

NOBODY = 65534
OUTSIDE = ('fcntl', 'io', 'mmap', 'posix', 'sqlite3')  # modules, with an underscore or without
PURE = ('fspath', '_path_normpath', 'text_encoding', 'getpid')  # functions that touch no file


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


def watch(note: Callable[[], None]) -> None:
    """Have something called before every call of the system or of SQLite that may touch a file."""

    def profile(_frame, event: str, function) -> None:
        if event == 'c_call' and function.__name__ not in PURE:
            owner = getattr(function, '__self__', None)
            module = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
            if module.lstrip('_') in OUTSIDE:
                note()

    sys.setprofile(profile)


def calls_of(action: Callable[[], object]) -> int:
    """How often something calls the system or SQLite, counted in a forked process."""

    def counted():
        calls = []
        watch(lambda: calls.append(1))
        action()
        sys.setprofile(None)
        return len(calls)

    return result_of(counted)


def killed_before(action: Callable[[], object], call: int) -> None:
    """Do something in a forked process that is killed before one of the calls that `calls_of`
    counts.
    """

    def until():
        calls = count(1)

        def kill() -> None:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(kill)
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
