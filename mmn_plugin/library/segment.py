"""One immutable file of moments: rotated vectors level by level, spans, lengths and trust."""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mmn_plugin.errors import InputError, MissingFileError

LEVELS = (16, 48, 144)  # coordinates read before the next bound
# The first level holds this share of the squared norms, if one of these does: the flatter the
# spectrum, the less a short one rules out.
_FIRST, _SHARE = (16, 32, 64, 96), 0.75
ROTATION_ROWS = 100_000  # a rotation is computed on no more rows than that
DTYPES = {'float16': np.float16, 'float32': np.float32}
_MAGIC = b'MMNMOMNT'
_VERSION = 2
_ALIGN = 64
_CHUNK = 16_384  # rows


class Axes(NamedTuple):
    """Coordinates of a space.

    Attributes:
        rotation (np.ndarray): (J, J) float32; a vector's coordinates are this times the vector.
        levels (tuple[int, ...]): Numbers of coordinates after which there is a bound, rising.
    """

    rotation: np.ndarray
    levels: tuple[int, ...] = LEVELS


def axes_of(chunks: Iterable[np.ndarray], width: int) -> Axes:
    """Eigenvectors of the uncentered second moment, by falling eigenvalue, in float64.

    The first level is the shortest of 16, 32, 64 and 96 coordinates that hold three quarters of the
    squared norms; 16 if none does.

    Args:
        chunks (Iterable[np.ndarray]): (n, J) vectors, some at a time.
        width (int): J.

    """
    moment = np.zeros((width, width))
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK):
            part = chunk[start : start + _CHUNK].astype(np.float64)
            moment += part.T @ part
    values, vectors = np.linalg.eigh(moment)
    held = np.cumsum(values[::-1]) / max(values.sum(), 1e-300)
    first = next((n for n in _FIRST if n < width and held[n - 1] >= _SHARE), LEVELS[0])
    rotation = np.ascontiguousarray(vectors.T[::-1], dtype=np.float32)
    return Axes(rotation, (first, 3 * first, 9 * first))


class SegmentWriter:
    """Write a segment of a known number of moments, some at a time; a context manager.

    The file is complete, and on the disk, after `close`; until then it has no header.

    Args:
        path (str | Path): The file.
        rows (int): M, all moments together.
        axes (Mapping[str, Axes]): Of each space, see `axes_of`.
        dtype (str): What coordinates are rounded to, ``float16`` or ``float32``. Defaults to
            ``float16``.
        trust (bool): Whether moments have a factor of trust. Defaults to False.
        own_rotation (bool): Whether the rotations were computed on these moments. Defaults to True.
    """

    def __init__(
        self,
        path: str | Path,
        rows: int,
        axes: Mapping[str, Axes],
        dtype: str = 'float16',
        trust: bool = False,
        own_rotation: bool = True,
    ) -> None:
        self._rotations = {s: np.ascontiguousarray(a[0], np.float32) for s, a in axes.items()}
        self._dtype = DTYPES[dtype]
        widths = {space: len(rotation) for space, rotation in self._rotations.items()}
        self._levels = {space: _levels(widths[space], own.levels) for space, own in axes.items()}
        self._blocks = _layout(rows, widths, self._levels, dtype, trust)
        self._header = dict(
            version=_VERSION,
            rows=rows,
            dtype=dtype,
            own_rotation=own_rotation,
            levels=self._levels,
            spectrum={space: [0.123456] * len(levels) for space, levels in self._levels.items()},
            blocks=self._blocks,
            size=10**15,
        )
        offset = self._start = _aligned(len(_packed(self._header)))  # no number will be longer
        for block in self._blocks:
            block['offset'] = offset
            offset += _aligned(_size(block))
        self._header['size'] = offset
        self._crc = {block['name']: 0 for block in self._blocks}
        self._energy = {space: np.zeros(len(levels) + 1) for space, levels in self._levels.items()}
        self._written = 0
        self._file = open(path, 'wb')  # noqa: SIM115  (closed by __exit__)
        try:
            for space, rotation in self._rotations.items():
                self._write(f'rotation of {space}', rotation)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> 'SegmentWriter':
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def append(
        self,
        vectors: Mapping[str, np.ndarray],
        spans: np.ndarray,
        lengths: np.ndarray,
        trust: np.ndarray | None = None,
    ) -> None:
        """Write the next n moments.

        Args:
            vectors (Mapping[str, np.ndarray]): (n, J) float32 of each space, not rotated.
            spans (np.ndarray): (n, 2) float32, seconds.
            lengths (np.ndarray): (n,) float32.
            trust (np.ndarray | None): (n,) float32. Defaults to None: 1 for all.
        """
        for start in range(0, len(spans), _CHUNK):
            part = slice(start, start + _CHUNK)
            rotated = {s: values[part] @ self._rotations[s].T for s, values in vectors.items()}
            self._append(
                rotated, spans[part], lengths[part], None if trust is None else trust[part]
            )

    def copy(self, segment: 'Segment', rows: np.ndarray) -> None:
        """Write moments of another segment; with the same rotation exactly as they are stored.

        Args:
            segment (Segment): The other one, of the same spaces.
            rows (np.ndarray): (n,) which moments, rising.
        """
        turns = {  # (J, J)
            space: (segment.rotation[space].astype(np.float64) @ new.T).astype(np.float32)
            for space, new in self._rotations.items()
            if not np.array_equal(segment.rotation[space], new)
        }
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            rotated = {space: segment.vectors(space, part) for space in segment.spaces}
            rotated.update((space, rotated[space] @ turn) for space, turn in turns.items())
            trust = None if segment.trust is None else segment.trust[part]
            self._append(rotated, segment.spans[part], segment.lengths[part], trust)

    def close(self) -> None:
        """Write the header and wait until the disk has everything."""
        if self._written != self._header['rows']:
            raise ValueError(f'{self._written} of {self._header["rows"]} moments were written')
        for block in self._blocks:
            size, name = _size(block), block['name']
            padding = bytes(_aligned(size) - size)
            self._file.seek(block['offset'] + size)
            self._file.write(padding)
            self._crc[name] = zlib.crc32(padding, self._crc[name])
            block['crc32'] = f'{self._crc[name]:08x}'
        self._header['spectrum'] = {
            space: [round(share, 6) for share in energy[:-1] / max(energy[-1], 1e-300)]
            for space, energy in self._energy.items()
        }
        self._file.seek(0)
        self._file.write(_packed(self._header, self._start))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _append(self, rotated, spans, lengths, trust) -> None:
        """Write the next moments, of rotated vectors that are not yet rounded."""
        for space, values in rotated.items():
            rounded = values.astype(self._dtype)  # (n, J)
            exact = rounded.astype(np.float64)
            squares = exact * exact
            self._energy[space][-1] += squares.sum()
            levels = self._levels[space]
            for index, level in enumerate(levels):
                rest = squares[:, level:].sum(1)  # (n,)
                self._energy[space][index] += squares[:, :level].sum()
                self._write(f'rest {level} of {space}', _rounded_up(np.sqrt(rest)))
            self._write(f'first of {space}', rounded[:, : levels[0]].astype(np.float32))
            for start, end in _pairs(levels, len(squares.T)):
                self._write(f'others {start} of {space}', rounded[:, start:end])
        self._write('spans', spans)
        self._write('lengths', lengths)
        if 'trust' in self._crc:
            self._write('trust', np.ones(len(spans), np.float32) if trust is None else trust)
        self._written += len(spans)

    def _write(self, name: str, values: np.ndarray) -> None:
        block = next(block for block in self._blocks if block['name'] == name)
        data = np.ascontiguousarray(values, block['dtype']).data.cast('B') if values.size else b''
        row = _size(block) // max(block['shape'][0], 1)
        self._file.seek(block['offset'] + self._written * row)
        self._file.write(data)
        self._crc[name] = zlib.crc32(data, self._crc[name])


class Segment:
    """Read a segment by memory map.

    The arrays are read-only views of the map. The stored vector of a moment is its rotated one,
    rounded to `dtype`.

    Args:
        path (str | Path): The file.

    Attributes:
        path (Path): The file.
        rows (int): M, moments.
        size (int): Bytes of the file.
        spaces (tuple[str, ...]): Names of the spaces.
        widths (dict[str, int]): J of each space.
        dtype (str): What coordinates are rounded to.
        own_rotation (bool): Whether the rotations were computed on these moments.
        levels (dict[str, tuple[int, ...]]): Of each space, the K numbers of coordinates after which
            `rest` bounds the others, rising. The first is L.
        spectrum (dict[str, tuple[float, ...]]): Of each space, the share of the squared norms that
            the coordinates before each level hold, rising.
        spans (np.ndarray): (M, 2) float32, seconds.
        lengths (np.ndarray): (M,) float32, share of what was looked at at once.
        trust (np.ndarray | None): (M,) float32; None: 1 for all.
        rotation (dict[str, np.ndarray]): (J, J) float32; a query's coordinates are this times it.
        first (dict[str, np.ndarray]): (M, L) float32, the first coordinates, of rounded values.
        others (dict[str, tuple[np.ndarray, ...]]): The coordinates from each level to the next or
            the last one, (M, their number) of `dtype`; none after the last.
        rest (dict[str, np.ndarray]): (M, K) float32, columns contiguous; the norm of the stored
            coordinates after each level, or a little more.

    Raises:
        MissingFileError: If there is no such file.
        InputError: If it is no segment, truncated, of another format, or its header is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header, self._bytes = _opened(self.path)
        self.rows: int = header['rows']
        self.size: int = header['size']
        self.dtype: str = header['dtype']
        self.own_rotation: bool = header['own_rotation']
        self.levels = {space: tuple(levels) for space, levels in header['levels'].items()}
        self.spectrum = {space: tuple(shares) for space, shares in header['spectrum'].items()}
        self.spaces = tuple(self.levels)
        self._blocks = {block['name']: block for block in header['blocks']}
        self.spans, self.lengths = self._view('spans'), self._view('lengths')
        self.trust = self._view('trust') if 'trust' in self._blocks else None
        self.rotation = {space: self._view(f'rotation of {space}') for space in self.spaces}
        self.first = {space: self._view(f'first of {space}') for space in self.spaces}
        self.rest = {space: self._rest(space) for space in self.spaces}
        self.widths = {space: len(rotation) for space, rotation in self.rotation.items()}
        self.others = {
            space: tuple(
                self._view(f'others {start} of {space}')
                for start, _ in _pairs(self.levels[space], width)
            )
            for space, width in self.widths.items()
        }

    @property
    def axes(self) -> dict[str, Axes]:
        """Of each space."""
        return {space: Axes(self.rotation[space], self.levels[space]) for space in self.spaces}

    def vectors(self, space: str, rows: np.ndarray | slice) -> np.ndarray:
        """(n, J) float32: the stored, rotated coordinates of some moments."""
        others = (part[rows].astype(np.float32) for part in self.others[space])
        return np.concatenate((self.first[space][rows], *others), axis=1)

    def unrotated(self, space: str, rows: np.ndarray | slice) -> np.ndarray:
        """(n, J) float32: `vectors` in the coordinates that they were written in."""
        return self.vectors(space, rows) @ self.rotation[space]

    def verify(self, prefix: str = '') -> list[str]:
        """One line for each damaged block, of those whose names begin so."""
        return [
            f'{self.path}: the block {name!r} is damaged (its checksum differs)'
            for name, block in self._blocks.items()
            if name.startswith(prefix) and f'{self._checksum(block):08x}' != block['crc32']
        ]

    def _checksum(self, block: dict) -> int:
        return zlib.crc32(self._bytes[block['offset'] :][: _aligned(_size(block))])

    def _view(self, name: str) -> np.ndarray:
        block = self._blocks[name]
        return np.ndarray(block['shape'], block['dtype'], self._bytes, block['offset'])

    def _rest(self, space: str) -> np.ndarray:
        levels = self.levels[space]
        first = self._blocks[f'rest {levels[0]} of {space}']  # the other levels' blocks follow
        strides = (4, _aligned(4 * self.rows))
        shape = (self.rows, len(levels))
        return np.ndarray(shape, np.float32, self._bytes, first['offset'], strides)


def _opened(path: Path) -> tuple[dict, np.memmap]:
    """The header and all bytes of one file, whatever is done to its name meanwhile."""
    try:
        with open(path, 'rb') as file:
            header = _read_header(path, file)
            return header, np.memmap(file, np.uint8, 'r')
    except FileNotFoundError:
        raise MissingFileError(f'{path}: this file of moments is gone') from None


def _read_header(path: Path, file: BinaryIO) -> dict:
    """The header, of a file that has the size it tells."""
    start = file.read(16)
    length, crc = np.frombuffer(start[8:].ljust(8), '<u4')
    text = file.read(int(length)) if start[:8] == _MAGIC else b''
    size = os.fstat(file.fileno()).st_size
    if start[:8] != _MAGIC:
        raise InputError(f'{path} is no file of moments, or its first bytes are damaged')
    if zlib.crc32(text) != crc:
        raise InputError(f'{path}: the header is damaged (its checksum differs), or cut off')
    header = json.loads(text)
    if header['version'] != _VERSION:
        todo = 'update mmn_plugin' if header['version'] > _VERSION else 'make the library anew'
        raise InputError(
            f'{path} has format {header["version"]}, and this version of mmn_plugin reads '
            f'{_VERSION}: {todo}'
        )
    if size != header['size']:
        raise InputError(f'{path} is truncated: it has {size} of {header["size"]} bytes')
    return header


def _levels(width: int, levels: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(level for level in levels if level < width) or (width,)


def _pairs(levels: tuple[int, ...], width: int) -> list[tuple[int, int]]:
    """Ends of the coordinates between levels, up to the last one."""
    return [
        (start, end) for start, end in zip(levels, (*levels[1:], width), strict=True) if end > start
    ]


def _layout(rows, widths, levels, dtype, trust) -> list[dict]:
    """Blocks in the order of the file, as they stand in the header."""
    shapes = [('spans', (rows, 2), 'float32'), ('lengths', (rows,), 'float32')]
    shapes += [('trust', (rows,), 'float32')] if trust else []
    for space, width in widths.items():
        first = levels[space][0]
        shapes.append((f'rotation of {space}', (width, width), 'float32'))
        shapes.append((f'first of {space}', (rows, first), 'float32'))
        shapes += [(f'rest {level} of {space}', (rows,), 'float32') for level in levels[space]]
        for start, end in _pairs(levels[space], width):
            shapes.append((f'others {start} of {space}', (rows, end - start), dtype))
    return [
        dict(name=name, offset=10**15, shape=shape, dtype=kind, crc32='0' * 8)
        for name, shape, kind in shapes
    ]


def _size(block: dict) -> int:
    return int(np.prod(block['shape'])) * np.dtype(block['dtype']).itemsize


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _packed(header: dict, size: int = 0) -> bytes:
    text = json.dumps(header).encode().ljust(size - 16)
    return _MAGIC + np.array([len(text), zlib.crc32(text)], '<u4').tobytes() + text


def _rounded_up(values: np.ndarray) -> np.ndarray:
    """float32 that is no less than the norm; the sum in float64 may be short by some ulps."""
    values = values * (1 + 1e-12)
    rounded = values.astype(np.float32)
    return np.where(rounded < values, np.nextafter(rounded, np.float32(np.inf)), rounded)
