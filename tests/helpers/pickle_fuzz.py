"""Pickles made to do harm: by hand, from these by other parts in their calls, by mutation."""

import codecs
import copyreg
import io
import os
import pickle
import random
import resource
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
from mmengine.runner.checkpoint import CheckpointLoader

from mmn_plugin.safe_pickle import PlainDtype, RestrictedUnpickler

RECONSTRUCT, SCALAR = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
FROM_BUFFER = np.zeros(2).__reduce_ex__(5)[0]
FOREIGN = b'\x41' * 64  # no address of anything
ROOM = 2**30  # bytes of memory that reading a pickle of some kB may take


class Call:
    """Pickles as a call of a function, and a state for what it gives."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


class Subclass(np.ndarray):
    """Not to be made."""


def array(dtype, data=FOREIGN, shape=(8,), kind=np.ndarray, fortran=False):
    return Call(RECONSTRUCT, kind, (0,), b'b', state=(1, shape, dtype, fortran, data))


def dtype(spec, order='|', fields=(None, None, None), size=-1, align=-1, flags=0):
    return Call(np.dtype, spec, False, True, state=(3, order, *fields, size, align, flags))


OBJECTS = dtype('O')  # with its flags cleared, so that numpy takes it for numbers
CALLED = {  # all are calls of what numpy and Python themselves pickle
    'objects over a buffer': Call(np.ndarray, (8,), OBJECTS, bytearray(FOREIGN)),
    'objects over bytes': array(OBJECTS),
    'objects in a list': array(dtype('O', flags=63), [1] * 8),
    'an object scalar': Call(SCALAR, OBJECTS, FOREIGN[:8]),
    'objects from a buffer': Call(FROM_BUFFER, FOREIGN, OBJECTS, (8,), 'C'),
    'floats that are objects': array(dtype('f8', '<', flags=63), [1] * 8),
    'a field of objects': array(dtype('V8', '|', (None, ('a',), {'a': (OBJECTS, 0)}), 8, 1, 27)),
    'floats with fields': array(dtype('f8', '<', (None, ('a',), {'a': (OBJECTS, 0)}))),
    'a type within a type': array(dtype('f8', '<', ((OBJECTS, (2,)), None, None))),
    'strings of length -1': array(dtype('S8', '|', size=-1)),
    'a type of many fields': array(Call(np.dtype, 'O,i4', False, True)),
    'a type of objects by dict': Call(np.dtype, {'names': ['a'], 'formats': ['O']}),
    'a gigantic array': Call(np.ndarray, (2**33,), dtype('f8', '<')),
    'a shape beyond its content': array(dtype('f8', '<'), shape=(2**40,)),
    'a shape beyond all numbers': array(dtype('f8', '<'), shape=(2**62, 2**62, 2**62)),
    'a gigantic shape without elements': array(dtype('f8', '<'), b'', (0, 2**50)),
    'a shape of floats': array(dtype('f8', '<'), shape=(8.0,)),
    'an array of a class': array(dtype('f8', '<'), kind=Subclass),
    'an array of the class list': array(dtype('f8', '<'), kind=list),
    'a plain reconstructor': Call(copyreg._reconstructor, np.ndarray, object, None),
}
SIXTEEN = pickle.dumps(b'a' * 16, 3)[2:-1]
RAW = {
    'a number of a memo entry': b'\x80\x02Nr\xff\xff\xff\x7f.',
    'the same as text': b'Np2000000000\n.',
    'bytearray claims gigabytes': b'\x80\x05\x96' + struct.pack('<Q', 2**33) + b'abc.',
    'bytes claim all there is': b'\x80\x04\x8e' + struct.pack('<Q', 2**60) + b'abc.',
    'a frame claims all there is': b'\x80\x04\x95' + struct.pack('<Q', 2**60) + b'abc.',
    'a long number claims gigabytes': b'\x80\x02\x8b' + struct.pack('<i', 2**31 - 1) + b'abc.',
    'bytearray of a length': pickle.dumps([Call(bytearray, 2**33)], 2),
    'a key as deep as the stack': b'\x80\x02}' + b')' + b'\x85' * 500_000 + b'Ns.',
    'a key that unfolds': b'\x80\x02})' + b'q\x00h\x00\x86' * 60 + b'Ns.',
    'tuples that unfold': b'\x80\x02)' + b'q\x00h\x00\x86' * 60 + b'.',
    'lists that unfold': b'\x80\x02]'
    + b''.join(b'q%c](' % i + b'h%c' % i * 50 + b'e' for i in range(12))
    + b'.',
    'a list as deep as the stack': b'\x80\x02' + b']' * 500_000 + b'a' * 499_999 + b'.',
    'a list of itself': b'\x80\x02]q\x00h\x00a.',
    'an encoding that unfolds': b'\x80\x03c_codecs\nencode\nq\x01'
    + b'h\x01' * 40
    + SIXTEEN
    + (pickle.dumps('hex', 2)[2:-1] + b'\x86R') * 40
    + b'.',
    'bytes unfolded from one string': b'\x80\x02]q\x00(c_codecs\nencode\nq\x01h\x01X'
    + struct.pack('<I', 10**6)
    + b'a' * 10**6
    + b'q\x02'
    + b'X\x06\x00\x00\x00latin1q\x03\x86R'
    + b'h\x01h\x02h\x03\x86R' * 5000
    + b'e.',
    'a persistent id': b'\x80\x02NQ.',
    'a persistent id as text': b'Pname\n.',
    'an extension': b'\x80\x02\x82\x01.',
    'a buffer from elsewhere': b'\x80\x05\x97.',
    'a buffer made read-only': b'\x80\x05C\x01a\x98.',
    'a class': b'cnumpy\nndarray\n.',
    'a function in a list': b'\x80\x02]c_codecs\nencode\na.',
    'an instance': b'(inumpy\nndarray\n.',
    'an object': b'(cnumpy\nndarray\nK\x08o.',
    'a new object': b'\x80\x02cnumpy\nndarray\nK\x08\x85\x81.',
    'attributes of a function': b'\x80\x02c_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.',
    'attributes of a class': b'\x80\x02ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aK\x01s\x86b.',
    'items of an array': pickle.dumps(np.zeros(3), 2)[:-1] + b'K\x00K\x01s.',
}
ATTACKS = {**{name: pickle.dumps([call], 4) for name, call in CALLED.items()}, **RAW}
ODD = (
    *(None, True, 0, 1, -1, 2**31, 2**63, -(2**63), 2**100, 0.5),
    *('', 'O', 'f8', '<f8', 'V8', 'U2', 'M8[s]', 'hex', 'latin1', '|', '<'),
    *(b'', FOREIGN, b'\0' * 8, (), (8,), (2**40,), (0, 2**60), ((8,), 2), [], [1] * 8),
    *({}, {'a': 1}, {1}, np.ndarray, np.dtype, RECONSTRUCT, SCALAR, FROM_BUFFER, Subclass),
    *(list, object, codecs.encode, set, frozenset, bytearray, bytes, complex, OrderedDict),
    *(copyreg._reconstructor, getattr, os.getcwd),
)
INSTRUCTIONS = b'bRtsuaeq.(h}])l\x85\x86\x81\x8f\x90\x91\x93\x94'


def contents():
    """Honest ones."""
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    return [
        {'a': [numbers, np.asfortranarray(numbers), numbers.astype('>f8')], 'b': ('x', b'y')},
        OrderedDict(a=(1, 2), b=b'ab', c=[{}]),
        [np.array(['s', 'tt']), np.float64(3), np.int8(1), np.bool_(True), np.zeros((0, 4))],
        [True, None, 2.5, 2**70, b''],
        {('video', i): [[float(i), 1.0, 2.0]] * 3 for i in range(4)},
    ]


def spoil(rng, value):
    """The same calls, some of whose parts are others."""
    if rng.random() < 0.1:
        return rng.choice(ODD)
    if isinstance(value, Call):
        made = Call(*value.reduced[:1])
        made.reduced = tuple(spoil(rng, part) for part in value.reduced)
        return made
    return tuple(spoil(rng, part) for part in value) if type(value) is tuple else value


def mutate(rng, content, others):
    """Flip, cut, repeat, join, or put in an instruction or a number at its limit."""
    content = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(content) + 1)
        end, how = at + rng.randrange(1, 12), rng.randrange(5)
        if how == 0 and at < len(content):
            content[at] = rng.randrange(256)
        elif how == 1:
            del content[at:end]
        elif how == 2:
            content[at:at] = content[at:end] * rng.randrange(1, 4)
        elif how == 3:
            other = rng.choice(others)
            content[at:] = other[rng.randrange(len(other)) :]
        else:
            put = rng.choice(
                (
                    bytes([rng.choice(INSTRUCTIONS)]),
                    struct.pack('<q', rng.choice((-1, 2**31 - 1, 2**40, 2**63 - 1))),
                )
            )
            content[at : at + rng.randrange(len(put) + 1)] = put
    return bytes(content)


def generate(seed, count, protocols):
    rng = random.Random(seed)
    honest = [pickle.dumps(content, protocol) for content in contents() for protocol in protocols]
    yield from honest
    bases = [*honest, *(pickle.dumps(call, 2) for call in CALLED.values())]
    while count:
        if rng.random() < 0.3:
            try:
                call = spoil(rng, rng.choice(list(CALLED.values())))
                yield pickle.dumps([call], rng.choice(protocols))
            except (pickle.PicklingError, TypeError, ValueError):  # no call
                continue
        else:
            yield mutate(rng, rng.choice(bases), bases)
        count -= 1


def plain(value, names=False, depth=0):
    """Whether it is data alone, or with `names` functions and types too; arrays are looked into."""
    if type(value) is np.ndarray:
        return not value.dtype.hasobject and bool(repr(value.tolist() if value.size < 999 else 0))
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return depth < 200 and all(plain(item, names, depth + 1) for item in value)
    if names and (callable(value) or isinstance(value, PlainDtype)):
        return True
    return value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, bytearray, np.generic)
    )


def read_plain(content):
    return RestrictedUnpickler(io.BytesIO(content)).load()


def read_checkpoint(content, file='fuzz.pth'):
    with zipfile.ZipFile(file, 'w') as archive:
        for name, part in (('data.pkl', content), ('byteorder', b'little'), ('version', b'3')):
            archive.writestr(f'archive/{name}', part)
    return CheckpointLoader.load_checkpoint(file, map_location='cpu', logger='silent')


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(seed, count, checkpoint=False):
    """What became of them; for a process of its own, which they may end or fill."""
    protocols, read = ((2,), read_checkpoint) if checkpoint else (range(6), read_plain)
    called = {name: pickle.dumps([call], 2) for name, call in CALLED.items()}
    attacks = called if checkpoint else ATTACKS
    cases = [*attacks.items(), *(('', content) for content in generate(seed, count, protocols))]
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    before, found = peak(), dict(errors=Counter(), attacks={}, plain=0, other=[])
    for number, (name, content) in enumerate(cases):
        print(f'pickle {number} {name}', flush=True)  # the last one is what ended the process
        try:
            value = read(content)
        except Exception as error:
            found['errors'][type(error).__name__] += 1
            if name:
                found['attacks'][name] = str(error)[-300:]
            continue
        if plain(value, names=checkpoint):
            found['plain'] += 1
        else:
            found['other'].append(f'{number}: {value!r}'[:200])
    return dict(found, grown=peak() - before)
