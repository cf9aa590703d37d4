"""Arrays and plain containers from pickles, and nothing that a file could do harm with.

`RestrictedUnpickler` reads a pickle of foreign origin; `PlainDtype`, `PlainArray`, `rebuild_array`
and `rebuild_scalar` stand in for numpy's own where PyTorch unpickles a checkpoint
(`mmn_plugin.compat.allow_checkpoint_classes`). Numpy's own cannot be let through: a pickle may
declare any bytes to be an array of objects, or change what a type says of itself, and the
interpreter then crashes at the first look at the array.
"""

import io
import math
import pickle
import re
from collections import OrderedDict
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

DEPTH = 100  # most containers within each other
SHARING = 10  # most times its own size that a file may unfold to
EMPTY = 2**20  # most elements of an array without elements, had its dimensions of length 0 length 1
CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict)
SCALARS = (type(None), bool, int, float, complex, str, bytes, bytearray)


# The instructions that make numbers, strings and containers, and name what `_ALLOWED` has.
PLAIN_CODES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT EMPTY_SET
    GLOBAL STACK_GLOBAL
"""
# Those whose operands the unpickler checks itself.
OWN_CODES = 'BYTEARRAY8 APPEND APPENDS SETITEM SETITEMS DICT ADDITEMS FROZENSET REDUCE BUILD'


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
    """Stands for ``numpy.ndarray`` in a checkpoint; it is pickled as that again."""

    __array_priority__ = -1.0  # what is computed from it and an array is an array

    def __new__(cls, *args):
        """An empty array, to be filled; a pickle gets no other."""
        if args:
            raise pickle.UnpicklingError('it asks for numpy.ndarray with arguments of its own')
        return super().__new__(cls, (0,), np.int8)

    def __setstate__(self, state: tuple) -> None:
        """Take shape, type and content."""
        super().__setstate__(_array_state(state))

    def __reduce__(self):
        return self.view(np.ndarray).__reduce__()


def rebuild_array(kind: type, shape: Any = None, code: Any = None) -> PlainArray:
    """Stands for numpy's ``_reconstruct``, which begins an array."""
    if kind is not PlainArray:
        raise pickle.UnpicklingError(f'it asks for an array of class {_short(kind)}')
    return PlainArray()


def rebuild_scalar(dtype: PlainDtype, data: bytes | str) -> np.generic:
    """Stands for numpy's ``scalar``."""
    return _array_state((1, (1,), dtype, False, data), flat=True)[0]


def _array_state(state: Any, flat: bool = False) -> Any:
    """A state that numpy may have, with a dtype of numpy's, or the array (n,) of it.

    Raises:
        pickle.UnpicklingError: If its parts are not of the types that they have to be, or the
            content is not as long as shape and type say.
    """
    if not isinstance(state, tuple) or len(state) != 5 or type(state[2]) is not PlainDtype:
        raise pickle.UnpicklingError('an array without a type of numbers or strings')
    _, shape, plain, fortran, data = state
    data = data.encode('latin1') if isinstance(data, str) else data  # Python 2's
    if (
        not isinstance(data, bytes | bytearray)
        or not isinstance(shape, tuple)
        or len(shape) > 32
        or not all(type(n) is int and 0 <= n < 2**63 for n in shape)
    ):
        raise pickle.UnpicklingError('an array without a shape or without content')
    size = math.prod(shape) * plain.dtype.itemsize
    if size != len(data) or math.prod(n or 1 for n in shape) > max(EMPTY, size):
        raise pickle.UnpicklingError(
            f'an array of shape {shape} and type {plain.dtype} takes '
            f'{size:,} bytes, but {len(data):,} are there'
        )
    if flat:
        return np.frombuffer(data, plain.dtype)
    return 1, shape, plain.dtype, bool(fortran), data


def checkpoint_globals() -> list[tuple]:
    """What PyTorch may unpickle of an MMEngine checkpoint: stand-ins, and the names they stand for.

    These are MMEngine's log history and numpy's arrays and scalars in it, under numpy 1's and numpy
    2's module names. The history names its statistics by ``getattr``, which is replaced by a
    function that knows those alone.
    """
    allowed = [
        (_log_history(), 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_statistic, 'builtins.getattr'),
        (PlainDtype, 'numpy.dtype'),
        (PlainArray, 'numpy.ndarray'),
    ]
    for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [(rebuild_array, f'{core}._reconstruct'), (rebuild_scalar, f'{core}.scalar')]
    return allowed


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
            length = state.get('max_length') if type(state) is dict else None
            for name in ('_log_history', '_count_history'):
                values = state[name] if type(length) is int else None
                plain = type(values) is PlainArray and values.ndim == 1
                if not plain or values.dtype.kind not in 'biuf':
                    raise pickle.UnpicklingError('a HistoryBuffer without its numbers')
                setattr(self, name, np.array(values))
            self.max_length = length
            self._set_default_statistics()
            self.__class__ = HistoryBuffer

    return LogHistory


def _statistic(owner, name: str):
    from mmengine.logging.history_buffer import HistoryBuffer

    known = isinstance(owner, type) and issubclass(owner, HistoryBuffer)
    if known and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError('Unsupported global: GLOBAL getattr')


class _Call:
    """Stands for a function or class that a pickle may name."""

    __slots__ = ('function',)

    def __init__(self, function):
        self.function = function


class RestrictedUnpickler(pickle._Unpickler):
    """Reads arrays, numbers, strings and plain containers; refuses every other class by name.

    Of the unpickler in Python those instructions are taken that make plain data. Its calls are
    replaced by `_Call`, so that not one function of the file's choosing is called; the C unpickler
    offers no place to check what an array's state, a key or the number of a memo entry is.
    Memory stays within a multiple of the file's size.

    Args:
        file (BinaryIO): Open for reading, seekable.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding='latin1')  # what arrays need that Python 2 wrote
        start = file.tell()
        self._size = file.seek(0, io.SEEK_END) - start
        file.seek(start)
        self._file_read = lambda count: file.read(min(count, self._size))
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
            raise pickle.UnpicklingError(
                f'{error} is no instruction that makes plain data'
            ) from error
        _require_plain(value, SHARING * self._size)
        return value

    def find_class(self, module: str, name: str) -> _Call:
        """What stands for an allowed function or class.

        Raises:
            pickle.UnpicklingError: If it is not allowed; the message names it.
        """
        try:  # Python 2 wrote __builtin__, which the base class would translate only later
            return _ALLOWED[module.replace('__builtin__', 'builtins'), name]
        except KeyError:
            raise pickle.UnpicklingError(f'it asks for {_short(f"{module}.{name}")}') from None

    def spend(self, content: bytes | bytearray | str) -> None:
        """Count bytes that a call makes of what is there: no file makes more than it holds."""
        self._left -= len(content)
        if self._left < 0:
            raise pickle.UnpicklingError('it unfolds to more than its own size')

    def load_bytearray8(self) -> None:
        """Unlike the base class, make no room before the content is there."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), 'little'))))

    def load_append(self) -> None:
        """Append to a list alone."""
        value = self.stack.pop()
        self._top(list).append(value)

    def load_appends(self) -> None:
        """Append to a list alone."""
        items = self.pop_mark()
        self._top(list).extend(items)

    def load_setitem(self) -> None:
        """Fill a dict alone."""
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict, OrderedDict)[_key(key)] = value

    def load_setitems(self) -> None:
        """Fill a dict alone."""
        items = self.pop_mark()
        self._top(dict, OrderedDict).update(_pairs(items))

    def load_dict(self) -> None:
        """A dict whose keys were checked."""
        items = self.pop_mark()
        self.append(dict(_pairs(items)))

    def load_additems(self) -> None:
        """Fill a set alone."""
        items = self.pop_mark()
        self._top(set).update(map(_key, items))

    def load_frozenset(self) -> None:
        """A frozenset whose items were checked."""
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    def load_reduce(self) -> None:
        """Call what stands for an allowed function."""
        args = self.stack.pop()
        call = self._top(_Call)
        if type(args) is not tuple:
            raise pickle.UnpicklingError('a call without arguments')
        self.stack[-1] = call.function(self, *args)

    def load_build(self) -> None:
        """Give type or array its state."""
        state = self.stack.pop()
        made = self._top(PlainDtype, np.ndarray)
        if type(made) is np.ndarray:
            state = _array_state(state)
            self.spend(state[-1])
        made.__setstate__(state)

    def _top(self, *kinds: type) -> Any:
        if type(self.stack[-1]) not in kinds:
            raise pickle.UnpicklingError(
                f'an instruction for {kinds[0].__name__} on {type(self.stack[-1]).__name__}'
            )
        return self.stack[-1]

    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in PLAIN_CODES.split()
    }


RestrictedUnpickler.dispatch.update(
    (getattr(pickle, name)[0], getattr(RestrictedUnpickler, f'load_{name.lower()}'))
    for name in OWN_CODES.split()
)


def _key(key: Any) -> Any:
    """A key that is hashed at once: the hash of nested tuples takes for ever, or crashes."""
    items = key if type(key) is tuple else (key,)
    if not all(type(item) in SCALARS or isinstance(item, np.generic) for item in items):
        raise pickle.UnpicklingError(
            f'a key or an item of a set is a {type(key).__name__} that is '
            'no number, string, or tuple of them'
        )
    return key


def _pairs(items: list) -> Any:
    return zip(map(_key, items[::2]), items[1::2], strict=True)


def _require_plain(root: Any, limit: int) -> None:
    """Refuse what is not plain data, holds itself, or unfolds to more than ``limit`` items."""
    sizes: dict[int, int] = {}  # of containers, what is shared counted each time; 0 while open
    opened = [[0, iter((root,)), 0]]
    while opened:
        this = opened[-1]
        for item in this[1]:
            kind = type(item)
            if kind is np.ndarray:
                this[2] += 1 + item.nbytes
            elif kind in SCALARS or issubclass(kind, np.generic):
                this[2] += 1
            elif kind not in CONTAINERS:
                raise pickle.UnpicklingError('it asks for a function or type as data')
            elif sizes.get(id(item), 1) == 0 or len(opened) > DEPTH:
                raise pickle.UnpicklingError(
                    f'a container holds itself, or more than {DEPTH} lie within each other'
                )
            elif id(item) in sizes:
                this[2] += sizes[id(item)]
            else:
                sizes[id(item)] = 0
                parts = chain(item, item.values()) if isinstance(item, dict) else iter(item)
                opened.append([id(item), parts, 1])
                break
        else:
            if this[2] > limit:
                raise pickle.UnpicklingError(f'it unfolds to more than {SHARING} times its size')
            sizes[this[0]] = this[2]
            opened.pop()
            if opened:
                opened[-1][2] += this[2]


def _short(value: Any) -> str:
    """For a message: a file may hold names of any length and values of any depth."""
    shown = value if isinstance(value, str) else type(value).__name__
    return shown if len(shown) <= 100 else f'{shown[:100]}...'


def _no_array(reader: RestrictedUnpickler, *args: Any) -> None:
    raise pickle.UnpicklingError('it asks for numpy.ndarray with arguments of its own')


_NDARRAY = _Call(_no_array)


def _begin_array(reader: RestrictedUnpickler, kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError('an array of another class')
    return np.ndarray((0,), np.int8)


def _make_scalar(reader: RestrictedUnpickler, dtype: PlainDtype, data: bytes) -> np.generic:
    reader.spend(data)
    return rebuild_scalar(dtype, data)


def _from_buffer(
    reader: RestrictedUnpickler, data: bytes, dtype: PlainDtype, shape: tuple, order: str
) -> np.ndarray:
    reader.spend(data)
    flat = _array_state((1, shape, dtype, False, data), flat=True)
    return flat.reshape(shape, order='F' if order == 'F' else 'C')


def _encode(reader: RestrictedUnpickler, text: str, codec: str = 'latin1') -> bytes:
    """Only what protocols below 3 write for bytes; other codecs unfold, or take for ever."""
    if type(text) is not str or codec not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'it asks for _codecs.encode with {_short(codec)}')
    reader.spend(text)
    return text.encode('latin1')


def _bytearray(reader: RestrictedUnpickler, content: bytes | str = b'', *codec: str) -> bytearray:
    content = _encode(reader, content, *codec) if codec else content
    if type(content) is not bytes:  # a number would be a length
        raise pickle.UnpicklingError('a bytearray without content')
    reader.spend(content)
    return bytearray(content)


def _complex(reader: RestrictedUnpickler, real: float, imaginary: float) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise pickle.UnpicklingError('a complex number without two floats')
    return complex(real, imaginary)


def _items(reader: RestrictedUnpickler, items: Any = ()) -> list:
    if type(items) not in (list, tuple):
        raise pickle.UnpicklingError('a container made of something else than a list')
    reader.spend(items)
    return items


_ALLOWED = {
    ('numpy', 'dtype'): _Call(lambda reader, *args: PlainDtype(*args)),
    ('numpy', 'ndarray'): _NDARRAY,
    ('_codecs', 'encode'): _Call(_encode),
    ('builtins', 'bytes'): _Call(lambda reader: b''),
    ('builtins', 'bytearray'): _Call(_bytearray),
    ('builtins', 'complex'): _Call(_complex),
    ('builtins', 'set'): _Call(lambda *args: set(map(_key, _items(*args)))),
    ('builtins', 'frozenset'): _Call(lambda *args: frozenset(map(_key, _items(*args)))),
    ('collections', 'OrderedDict'): _Call(
        lambda *args: OrderedDict((_key(key), value) for key, value in _items(*args))
    ),
    **{
        (f'{package}.{module}', name): call
        for package in ('numpy.core', 'numpy._core')
        for module, name, call in (
            ('multiarray', '_reconstruct', _Call(_begin_array)),
            ('multiarray', 'scalar', _Call(_make_scalar)),
            ('numeric', '_frombuffer', _Call(_from_buffer)),
        )
    },
}
