"""Files: atomic writes, outputs that are known as ours, JSON, our own folders."""

import argparse
import hashlib
import json
import os
import re
import socket
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mmn_plugin.errors import InputError, MissingFileError

from .locks import FileLock


class OutputError(InputError, argparse.ArgumentTypeError):
    """Nothing can be written there; the message names path and reason."""


def writable_file(path: str | Path) -> Path:
    """Make sure that a file can be written; also serves as ``type=`` of an argument.

    Nothing is left behind: neither the file nor its folder is made, and a file that is there stays
    as it is.

    Args:
        path (str | Path): The file.

    Raises:
        OutputError: If it is a folder, or it or its folder cannot be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f'{path} is a folder: name a file in it')
        if not path.exists():
            _try_writing(path.parent)
        elif not os.access(path, os.W_OK):
            raise PermissionError(None, 'Permission denied')
    except OSError as error:
        raise OutputError(f'{path} cannot be written: {error.strerror}') from None
    return path


def writable_folder(path: str | Path) -> Path:
    """Make sure that files can be written into a folder; see `writable_file`.

    Args:
        path (str | Path): The folder; it need not be there.

    Raises:
        OutputError: If it is a file, cannot be made, or cannot be written into.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f'{path} is a file, and a folder is needed')
        _try_writing(path)
    except OSError as error:
        raise OutputError(f'the folder {path} cannot be written into: {error.strerror}') from None
    return path


def _try_writing(folder: Path) -> None:
    """Write a file without a name where the folder is, or would be made."""
    folder = folder.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'0')
        file.flush()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file that appears under its name when it is complete.

    Args:
        path (str | Path): The file; its folder is made.

    Yields:
        Path: Where to write. At the end this takes the place of the file; after an error it is
        removed, and the file is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a device, such as /dev/stdout
        yield path
        return
    unfinished = path.with_name(path.name + '.part')
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 that appears when it is complete, see `replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding='utf-8')


def write_json(content: Any, path: str | Path, indent: int | None = 1) -> None:
    """Write a file of JSON that appears when it is complete; its folder is made.

    Args:
        content (Any): What JSON can hold.
        path (str | Path): The file.
        indent (int, optional): Spaces a level; None: all on one line. Defaults to 1.
    """
    write_atomically(path, json.dumps(content, indent=indent) + '\n')


def printable(name: str | Path) -> str:
    """A file's name as text that can be printed and stored; bytes that are no UTF-8 as numbers."""
    try:
        name = os.fsencode(name)
    except UnicodeEncodeError:  # no name that the system has given
        name = str(name).encode('utf-8', 'backslashreplace')
    return name.decode('utf-8', 'backslashreplace')


def text_argument(value: str) -> str:
    """The text that the bytes of an argument are in UTF-8, whatever the locale: a ``type=``."""
    try:
        return os.fsencode(value).decode('utf-8')
    except UnicodeError:
        return value


def safe_name(text: str, longest: int = 180) -> str:
    """A file's name for an id or a title.

    Letters of all scripts stay; what some file system refuses becomes ``_``. Different texts may
    get one name, see `UniqueNames`.

    Args:
        text (str): Any text.
        longest (int): Bytes, so that endings can follow. Defaults to 180.
    """
    text = re.sub(
        r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]', '_', unicodedata.normalize('NFC', text)
    )
    return text.encode()[:longest].decode(errors='ignore').strip('. ') or '_'


class UniqueNames:
    """Names for the files of inputs: an input's is always the same, and no other input's.

    Names that differ in case alone are one, as they are on some file systems.

    Args:
        names (dict[str, str], optional): Names that are given already, which grows. Defaults to
            None: none.
    """

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self.names = {} if names is None else names
        self._taken = {name.casefold() for name in self.names.values()}

    def of(self, source: str, wanted: str) -> str:
        """The name of an input.

        Args:
            source (str): The input, such as an absolute path or the id of a video.
            wanted (str): Its id or title.
        """
        key = f'{wanted} of {source}'
        if key not in self.names:
            wanted = name = safe_name(wanted)
            number = 1
            while name.casefold() in self._taken:
                number += 1
                name = f'{wanted}-{number}'
            self._taken.add(name.casefold())
            self.names[key] = name
        return self.names[key]


def input_of(video) -> str:
    """What tells a video or another input apart from all others of its name.

    Args:
        video: A path, ``FILE.h5::ENTRY``, an array, or an open file.

    Returns:
        str: The absolute path, or a digest of the content; of a stream without either a text that
        nothing else has.
    """
    if isinstance(video, str | os.PathLike):
        return printable(os.path.abspath(video))
    if hasattr(video, 'shape'):  # an array, a tensor, or an entry of an HDF5 file
        import numpy as np

        values = np.asarray(video.detach().float().cpu() if hasattr(video, 'detach') else video)
        return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    if isinstance(name := getattr(video, 'name', None), str):
        return input_of(name)
    if getattr(video, 'seekable', lambda: False)():
        place = video.tell()
        video.seek(0)
        digest = hashlib.file_digest(video, 'sha256').hexdigest()
        video.seek(place)
        return digest
    return f'{id(video)} of process {os.getpid()} on {socket.gethostname()}'


class OutputFolder:
    """A folder that tools write into, and which may hold what is not theirs.

    ``.mmn_outputs.json`` there lists what was written, with size and SHA-256, and of which input.
    Only these files are replaced, and only as long as they are as they were written. Also serves as
    ``type=`` of an argument.

    Args:
        path (str | Path): The folder; it is made when something is written.

    Attributes:
        path (Path): The folder.
        LIST (str): Name of the list.

    Raises:
        OutputError: If it cannot be written into, or its list cannot be read.
    """

    LIST = '.mmn_outputs.json'

    def __init__(self, path: str | Path) -> None:
        self.path = writable_folder(path)
        self._list = self.path / self.LIST
        self._read()
        self._begun: dict[str, str | None] = {}

    def names_of(self, inputs: Iterable[tuple[str, str]], keep: bool = True) -> list[str]:
        """`UniqueNames` of inputs, among all that the folder has files of.

        Args:
            inputs (Iterable[tuple[str, str]]): Source and wanted name of each.
            keep (bool): Put new names on the list. False before the work, which may be refused: a
                name may then become another one in the end. Defaults to True.
        """
        with self._changing() if keep else nullcontext(self._read()) as listed:
            names = UniqueNames(listed['names'])
            return [names.of(*pair) for pair in inputs]

    def claim(self, files: dict[str, str | None]) -> None:
        """Make sure, before the work, that files can be written.

        Args:
            files (dict[str, str | None]): Name -> the input it is made of, or None where any will
                do.

        Raises:
            OutputError: If there are others of these names; it names the first.
        """
        listed = self._read()['files']
        found = [
            problem
            for name, source in files.items()
            if (problem := self._problem(name, source, listed))
        ]
        if found:
            more = f', and {len(found) - 1} more like it' if found[1:] else ''
            raise OutputError(
                f'{found[0]}{more}: nothing is replaced. Move it away, or choose another folder'
            )

    def begin(self, files: dict[str, str | None]) -> None:
        """List files that are about to be written: what a kill leaves of them may be replaced.

        Raises:
            OutputError: As of `claim`.
        """
        files = {name: files[name] for name in files if name not in self._begun}
        if not files:
            return
        self.claim(files)
        with self._changing() as listed:
            listed['files'].update((name, dict(source=source)) for name, source in files.items())
        self._begun.update(files)

    def finish(self) -> None:
        """List what was written of all that was begun."""
        with self._changing() as listed:
            for name, source in self._begun.items():
                listed['files'].pop(name, None)
                if (self.path / name).is_file():
                    listed['files'][name] = dict(_content(self.path / name), source=source)
        self._begun.clear()

    @contextmanager
    def writing(self, files: dict[str, str | None]) -> Iterator[Path]:
        """Context between `begin` and `finish`; gives the folder, which exists."""
        self.begin(files)
        try:
            yield self.path
        finally:
            self.finish()

    def _problem(self, name: str, source: str | None, files: dict) -> str | None:
        path, entry = self.path / name, files.get(name)
        if not os.path.lexists(path):
            return None
        if entry is None:
            return f'{path} is there and was not written by this program'
        if 'size' in entry and (
            not path.is_file()
            or path.stat().st_size != entry['size']
            or _content(path)['sha256'] != entry['sha256']
        ):
            return f'{path} has been changed since it was written'
        if source is not None and entry['source'] not in (None, source):
            return f'{path} was made of something else ({entry["source"]})'
        return None

    def _read(self) -> dict:
        try:
            listed = json.loads(self._list.read_bytes())
            if isinstance(listed['names'], dict) and all(
                'source' in entry for entry in listed['files'].values()
            ):
                return listed
        except FileNotFoundError:
            return dict(names={}, files={})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise OutputError(
            f'{self._list} should list what was written there and cannot be read: '
            'delete it, or choose another folder'
        )

    @contextmanager
    def _changing(self) -> Iterator[dict]:
        """The list, which no other process changes meanwhile."""
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self._list, patience=60):
            listed = self._read()
            yield listed
            write_json(listed, self._list)


def _content(path: Path) -> dict:
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return dict(size=path.stat().st_size, sha256=digest)


_PACKAGE = Path(__file__).resolve().parent


def package_data_root() -> Path:
    """Folder that holds ``configs/`` and ``tools/``.

    Returns:
        Path: ``mmn_plugin/.mim`` of an installed package (the layout that ``mim`` expects); in a
        checkout or after ``pip install -e .`` the root of the checkout.
    """
    installed = _PACKAGE / '.mim'
    return installed if installed.is_dir() else _PACKAGE.parent


def config_root() -> Path:
    """Folder of the configs: what ``mmn_plugin::NAME.py`` is resolved against."""
    return package_data_root() / 'configs'


def find_config(name: str) -> Path:
    """Path of one of this package's configs.

    Args:
        name (str): path below ``configs/``, e.g. ``mmn_tacos.py`` or ``_base_/default_runtime.py``;
            the suffix may be left out.

    Returns:
        Path: the file.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    for path in (config_root() / name, config_root() / f'{name}.py'):
        if path.is_file():
            return path
    known = ', '.join(sorted(p.name for p in config_root().glob('*.py')))
    raise MissingFileError(
        f'mmn_plugin has no config {name!r} in {config_root()}; there are: {known or "none"}'
    )


def read_json(path: Path, missing: str, error: type[ValueError]) -> Any:
    """Read a file.

    Args:
        path (Path): The file.
        missing (str): What to say where there is no such file.
        error (type[ValueError]): What to raise where it is not JSON.

    Returns:
        Any: Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Of the kind given, if it is not JSON, or an object has a key twice, of which
            JSON's rules would keep the last without a word.
    """
    if not path.is_file():
        raise MissingFileError(missing)
    repeated: list[tuple[dict, list[str]]] = []

    def to_dict(pairs: list[tuple[str, Any]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated.append((found, [key for key, count in counts.items() if count > 1]))
        return found

    try:
        content = json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=to_dict)
    except (ValueError, RecursionError) as cause:
        raise error(f'{path} is not a JSON file: {cause}') from cause
    if repeated:
        found, keys = repeated[-1]  # the outermost, which nothing has replaced
        place = next((place for place, part in nested(content) if part is found), ())
        where = ', '.join(map(repr, place))
        named = ', '.join(map(repr, keys[:5])) + (f' and {len(keys) - 5} more' if keys[5:] else '')
        raise error(f'{path} has {named} twice{where and f", in {where}"}; one of them must go')
    return content


def nested(content: Any, keys: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """All that dicts and lists hold, from the outside in, with the keys and places that lead to it.

    Args:
        content (Any): The outermost, which comes first.
        keys (tuple): What leads to it. Defaults to none.
    """
    yield keys, content
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from nested(value, (*keys, key))
