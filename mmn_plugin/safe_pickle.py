"""Arrays and plain containers from pickles, and nothing that a file could do harm with.

`RestrictedUnpickler` reads a pickle of foreign origin; `checkpoint_globals` lets PyTorch unpickle
what a checkpoint of MMEngine holds. Numpy's own types cannot be let through: a pickle may declare
any bytes to be an array of objects, or change what a type says of itself, and the interpreter then
crashes at the first look at the array. `PlainDtype` and `PlainArray` stand in for them.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Sized
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

DEPTH = 100  # most containers within each other
SHARING = 10  # most times its own size that a file may unfold to
EMPTY = 2**20  # most elements of an array without elements, had its dimensions of length 0 length 1
CONTAINERS = (list, tuple, dict, OrderedDict)
SCALARS = (type(None), bool, int, float, str, bytes, bytearray)


class PlainDtype:
    """Stands for ``numpy.dtype``: bool, integers, floats, complex numbers and strings alone.

    Args:
        spec (str): Kind and size, as numpy pickles them (``'f4'``).
        align, copy: Of no meaning for these.

    Raises:
        pickle.UnpicklingError: If it is another type.
    """

    __slots__ = ('dtype',)

    def __init__(self, spec: str, align: Any = False, copy: Any = True):
        if not isinstance(spec, str) or not re.fullmatch('[biufcSU][1-9][0-9]{0,8}', spec):
            raise pickle.UnpicklingError(f'it asks for numpy.dtype({_short(spec)})')
        self.dtype = np.dtype(spec)

    def __setstate__(self, state: tuple) -> None:
        """Take the byte order; whatever else differs from what numpy writes is refused."""
        ordered = self.dtype.newbyteorder(state[1])
        if state != ordered.__reduce__()[2]:
            raise pickle.UnpicklingError('it asks for numpy.dtype with a state of its own')
        self.dtype = ordered


class PlainArray(np.ndarray):
    """Stands for ``numpy.ndarray`` while a pickle is read; `plain_arrays` makes it one."""

    def __new__(cls, *args):
        """An empty array, to be filled; a pickle gets no other."""
        if args:
            raise pickle.UnpicklingError('it asks for numpy.ndarray with arguments of its own')
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: tuple) -> None:
        """Take shape, type and content."""
        super().__setstate__(_array(*state).__reduce__()[2])


def _array(version: Any, shape: tuple, plain: PlainDtype, fortran: Any, data: Any) -> np.ndarray:
    """The array that the parts of its state describe; the content stays where it is.

    Raises:
        pickle.UnpicklingError: If its type or content is of another kind, or the content is not
            as long as shape and type say.
    """
    data = data.encode('latin1') if isinstance(data, str) else data  # Python 2's
    if (
        type(plain) is not PlainDtype
        or not isinstance(data, bytes | bytearray)
        or not all(type(n) is int for n in shape)
    ):
        raise pickle.UnpicklingError('an array without a type of numbers, shape or content')
    size = math.prod(shape) * plain.dtype.itemsize
    if size != len(data) or math.prod(n or 1 for n in shape) > max(EMPTY, size):
        raise pickle.UnpicklingError(
            f'an array of shape {shape} and type {plain.dtype} takes '
            f'{size:,} bytes, but {len(data):,} are there'
        )
    return np.frombuffer(data, plain.dtype).reshape(shape, order='F' if fortran else 'C')


def _reconstruct(kind: Any, shape: Any, code: Any) -> PlainArray:
    return PlainArray()  # whatever class a file asks for


def _scalar(plain: PlainDtype, data: bytes | str) -> np.generic:
    return _array(1, (1,), plain, False, data)[0]


# What stands for numpy's own names, under the module names of numpy 1 and 2.
_NUMPY = {
    'numpy.dtype': PlainDtype,
    'numpy.ndarray': PlainArray,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
}


def plain_arrays(value: Any, known: dict[int, tuple] | None = None) -> Any:
    """Make every `PlainArray` in lists, tuples and dicts numpy's own.

    Args:
        value (Any): What was read; its lists and dicts are changed.
        known (dict, optional): What was met already, by its id. Defaults to None: nothing.

    Returns:
        Any: The same with plain arrays.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    made = value.view(np.ndarray) if type(value) is PlainArray else value
    known[id(value)] = value, made  # with the value, so that its id stays its own
    if isinstance(value, dict):
        for key, part in value.items():
            value[key] = plain_arrays(part, known)
    elif type(value) is list:
        value[:] = [plain_arrays(part, known) for part in value]
    elif type(value) is tuple:
        made = tuple(plain_arrays(part, known) for part in value)
        known[id(value)] = value, made
    return made


def checkpoint_globals() -> list[tuple]:
    """What PyTorch may unpickle of an MMEngine checkpoint: stand-ins, and the names they stand for.

    These are MMEngine's log history and numpy's arrays and scalars in it. The history names its
    statistics by ``getattr``, which is replaced by a function that knows those alone.
    """
    allowed = {
        'mmengine.logging.history_buffer.HistoryBuffer': _log_history(),
        'builtins.getattr': _statistic,
        **_NUMPY,
    }
    return [(stand_in, name) for name, stand_in in allowed.items()]


def _log_history() -> type:
    """What stands for MMEngine's log history until it has its state, and is one then.

    MMEngine's own takes any attribute from the file, and statistics for the histories of the whole
    process: a file could replace ``mean``. Here numbers are taken, and statistics are MMEngine's.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    class LogHistory(HistoryBuffer):
        def __init__(self):
            super().__init__()

        def __setstate__(self, state):
            values, counts = parts = state['_log_history'], state['_count_history']
            numbers = all(type(part) is PlainArray and part.dtype.kind in 'biuf' for part in parts)
            if not numbers or values.shape != (len(counts),):
                raise pickle.UnpicklingError('a HistoryBuffer without its numbers')
            super().__init__(values, counts, int(state['max_length']))
            self.__class__ = HistoryBuffer

    return LogHistory


def _statistic(owner, name: str):
    from mmengine.logging.history_buffer import HistoryBuffer

    known = isinstance(owner, type) and issubclass(owner, HistoryBuffer)
    if known and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError('Unsupported global: GLOBAL getattr')


# The instructions that make numbers, strings and containers, and name what `_ALLOWED` has.
PLAIN_CODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP APPEND APPENDS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT
    GLOBAL STACK_GLOBAL
"""


class RestrictedUnpickler(pickle._Unpickler):
    """Reads arrays, numbers, strings, lists, tuples and dicts; refuses every other class by name.

    Of the unpickler in Python those instructions are taken that make plain data, and those that
    hash, call or give a state look at their operands first; the C unpickler offers no place for
    that. Memory stays within a multiple of the file's size.

    Args:
        file (BinaryIO): Open for reading.
    """

    def __init__(self, file: BinaryIO):
        content = file.read()
        # latin1 is what arrays need that Python 2 wrote
        super().__init__(io.BytesIO(content), encoding='latin1')
        self._size = len(content)
        self._left = 2 * self._size  # a string becomes bytes, which become an array

    def load(self) -> Any:
        """The content.

        Raises:
            pickle.UnpicklingError: If it asks for anything else (the message then begins with
                'it asks for'), or is damaged; damage shows in other errors too.
        """
        try:
            value = super().load()
        except KeyError as error:  # of `dispatch`
            raise pickle.UnpicklingError(f'it asks for the instruction {error}') from error
        _require_plain(value, SHARING * self._size, {})
        return plain_arrays(value)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for an allowed function or class.

        Raises:
            pickle.UnpicklingError: If it is not allowed; the message names it.
        """
        # Python 2 wrote __builtin__, which the base class would translate only later
        name = f'{module.replace("__builtin__", "builtins")}.{name}'
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f'it asks for {_short(name)}')
        return _ALLOWED[name]

    def load_bytearray8(self) -> None:
        """Unlike the base class, make no room before the content is there."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), 'little'))))

    def load_setitem(self) -> None:
        """Fill a dict alone."""
        self._require_dict(self.stack[-3])
        _require_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        """Fill a dict alone."""
        self._require_dict(self.metastack[-1][-1])
        _require_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        """A dict whose keys were checked."""
        _require_keys(self.stack[::2])
        super().load_dict()

    def load_reduce(self) -> None:
        """Call what stands for a function; altogether no file makes more than it holds."""
        args = self.stack[-1]
        if type(args) is not tuple:
            raise pickle.UnpicklingError('a call without arguments')
        self._spend(sum(len(arg) for arg in args if isinstance(arg, Sized)))
        super().load_reduce()

    def load_build(self) -> None:
        """Give type or array its state."""
        state = self.stack.pop()
        if type(self.stack[-1]) not in (PlainDtype, PlainArray):
            raise pickle.UnpicklingError(f'a state for {type(self.stack[-1]).__name__}')
        self._spend(len(state[-1]) if type(self.stack[-1]) is PlainArray else 0)
        self.stack[-1].__setstate__(state)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise pickle.UnpicklingError('it unfolds to more than its own size')

    @staticmethod
    def _require_dict(value: Any) -> None:
        if type(value) not in (dict, OrderedDict):
            raise pickle.UnpicklingError(f'items for {type(value).__name__}')

    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in PLAIN_CODES.split()
    } | {
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }


def _require_keys(keys: list) -> None:
    """Refuse what takes for ever to hash, or crashes: nested tuples."""
    for key in keys:
        items = key if type(key) is tuple else (key,)
        if not all(type(item) in SCALARS or isinstance(item, np.generic) for item in items):
            raise pickle.UnpicklingError(
                f'a key is a {type(key).__name__} that is no number, string, or tuple of them'
            )


def _require_plain(value: Any, limit: int, sizes: dict[int, int], depth: int = 0) -> int:
    """Refuse what is not plain data, holds itself, or unfolds to more than ``limit`` items.

    Returns:
        int: Number of its items, what is shared counted each time; ``sizes`` has those of the
        containers that were met, by their ids.
    """
    if isinstance(value, np.ndarray):
        return 1 + value.nbytes
    if type(value) in SCALARS or isinstance(value, np.generic):
        return 1
    if type(value) not in CONTAINERS:
        raise pickle.UnpicklingError('it asks for a function or type as data')
    if depth > DEPTH:
        raise pickle.UnpicklingError(
            f'a container holds itself, or more than {DEPTH} lie within each other'
        )
    if id(value) not in sizes:
        parts = chain(value, value.values()) if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_require_plain(part, limit, sizes, depth + 1) for part in parts)
    if sizes[id(value)] > limit:
        raise pickle.UnpicklingError(f'it unfolds to more than {SHARING} times its size')
    return sizes[id(value)]


def _short(value: Any) -> str:
    """For a message: a file may hold names of any length and values of any depth."""
    shown = value if isinstance(value, str) else type(value).__name__
    return shown if len(shown) <= 100 else f'{shown[:100]}...'


def _encode(text: str, codec: str = 'latin1') -> bytes:
    """Only what protocols below 3 write for bytes; other codecs unfold, or take for ever."""
    if codec not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'it asks for _codecs.encode with {_short(codec)}')
    return text.encode('latin1')


def _from_buffer(data: bytes, plain: PlainDtype, shape: tuple, order: str) -> np.ndarray:
    return _array(1, shape, plain, order == 'F', data)


_ALLOWED = {
    **_NUMPY,
    'numpy.core.numeric._frombuffer': _from_buffer,
    'numpy._core.numeric._frombuffer': _from_buffer,
    '_codecs.encode': _encode,
    'builtins.bytes': lambda: b'',  # what protocols below 3 write for none
    'collections.OrderedDict': lambda: OrderedDict(),
}
