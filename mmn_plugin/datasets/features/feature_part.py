"""One video's features on their way to the HDF5 file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from mmn_plugin.features import VideoReadError


class FeaturePart:
    """A ``.npy`` file that is written and read piece by piece.

    Args:
        path (Path): The file.
        name (str): Of the video, for messages. Defaults to ''.
    """

    def __init__(self, path: Path, name: str = '') -> None:
        self.path, self.name = path, name

    def write(self, blocks: Iterable[np.ndarray]) -> None:
        """Write (n, D) arrays one below the other.

        Raises:
            VideoReadError: If a number is NaN or infinite, or there is no row.
        """
        rows, size = 0, 0
        with open(self.path, 'wb') as file:
            begin = self._header(file, 0, 0)
            for block in blocks:
                if not np.isfinite(block).all():
                    raise VideoReadError(f'{self.name}: its features hold NaN or infinity')
                file.write(np.ascontiguousarray(block, np.float32).tobytes())
                rows, size = rows + len(block), block.shape[1]
            if not rows:
                raise VideoReadError(f'{self.name}: gave no features')
            file.seek(0)
            if self._header(file, rows, size) != begin:
                # NumPy leaves room for the number of rows to grow
                raise RuntimeError(f'{self.path}: this NumPy writes headers of varying length')

    @staticmethod
    def _header(file, rows: int, size: int) -> int:
        npy.write_array_header_1_0(file, dict(descr='<f4', fortran_order=False, shape=(rows, size)))
        return file.tell()

    def read(self, rows: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Yield the whole shape (T, D), and at most so many rows at a time."""
        with open(self.path, 'rb') as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            for begin in range(0, shape[0], rows):
                count = min(rows, shape[0] - begin)
                block = np.fromfile(file, dtype, count * shape[1])
                yield shape, block.reshape(count, shape[1])
