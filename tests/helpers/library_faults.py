"""Faults of libraries: what is done, and what has to be so afterwards.

Each function gives trials: callables that return what was found, in words, and raise an error
where a library is not as it has to be. Tests run some, ``tools/reproduce.py library_faults`` more.
"""

import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np

from mmn_plugin.errors import UserError
from mmn_plugin.files import OutputError
from mmn_plugin.library import MomentLibrary
from mmn_plugin.locks import FileInUseError

from .forked import as_nobody, calls_of, fork, killed_before, result_of
from .small_library import SENTENCES, small_library, write_features
from .tiny_library import content

Trial = Callable[[], str]


class Ground:
    """A library of seven videos in two segments, with removed moments, and copies to harm.

    Args:
        place (Path): An empty folder, which holds all.
        videos (int): Videos that none of the changes is about. Defaults to 6.
    """

    def __init__(self, place: Path, videos: int = 6) -> None:
        made = small_library(place / 'small', videos)
        made.library.add(write_features(place / 'few.h5', ['x', 'y'], seed=3))
        made.library.remove(['x'])
        self.place, self.folder, self.made = place, place / 'LIB', made
        self.model, self.whole = made.model, made.library.folder
        self.files = [made.features, place / 'few.h5']
        self.more = write_features(place / 'more.h5', ['new', 'next'], seed=7)
        self.video = made.model.encode(f'{made.features}::v0')

    def copy(self) -> None:
        """Put a whole library where `open` finds it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)

    def open(self, readonly: bool = True) -> MomentLibrary:
        """The copy."""
        return MomentLibrary(self.folder, self.model, readonly=readonly)

    def change(self, name: str) -> None:
        """Add, remove or compact; done twice it is as done once."""
        library = self.open(readonly=False)
        if name == 'add':
            assert not library.add(self.more).failures
        elif name == 'compact':
            library.compact()
        elif ids := [one for one in ('v1', 'y') if one in library.store.snapshot().by_id]:
            library.remove(ids)

    def state(self) -> tuple:
        """Videos, moments and segments of the copy, and what is found in it."""
        library = self.open()
        hits = [
            [(hit.video_id, hit.start, hit.end, hit.score) for hit in found]
            for found in library.search(SENTENCES)
        ]
        return *state_of(library.store), hits

    def require_whole(self) -> None:
        """No damage, and the next writer leaves no file that nothing names."""
        library = self.open(readonly=False)
        library.store.remove([])
        assert library.verify() == []
        named = {segment.path for segment in library.store.snapshot().segments}
        assert set((self.folder / 'segments').iterdir()) == named
        assert {path.name for path in self.folder.iterdir()} == {'model', 'segments', DATABASE}

    def said(self, error: Exception | str) -> str:
        """First line of an error, with the library called LIB."""
        text = str(error).replace(str(self.folder), 'LIB').replace(str(self.place), '')
        return text.splitlines()[0]


CHANGES = ('add', 'remove', 'compact')
DATABASE = 'library.sqlite'


def state_of(store) -> tuple:
    """What `content` gives, and how many segments it lies in, as values that can be compared."""
    found = {
        video_id: (columns, {key: None if x is None else x.tolist() for key, x in arrays.items()})
        for video_id, (columns, arrays) in content(store).items()
    }
    return found, len(store.snapshot().segments)


def kill_trials(
    act: Callable, prepare: Callable, state: Callable, check: Callable, times: int, seed: str
) -> Iterator[Trial]:
    """SIGKILL before the first, the last and drawn calls of the system or of SQLite.

    The state is that before or after.

    Args:
        act (Callable): The change, which can be done again.
        prepare (Callable): Makes what it changes.
        state (Callable): What is there.
        check (Callable): Raises an error where the next writer has left something wrong.
        times (int): Calls that are drawn.
        seed (str): Of the draws.
    """
    prepare()
    before, calls, after = state(), calls_of(act), state()
    assert before != after

    def trial(call: int) -> str:
        prepare()
        killed_before(act, call)
        found = state()
        assert found in (before, after), f'neither state, killed before call {call} of {calls}'
        act()
        assert state() == after
        check()
        return 'as before' if found == before else 'as after'

    drawn = random.Random(seed).sample(range(2, calls), times)
    yield from (partial(trial, call) for call in (1, calls, *drawn))


def kills(change: str, ground: Ground, times: int) -> Iterator[Trial]:
    """One of the `CHANGES` is killed."""
    act = partial(ground.change, change)
    check = ground.require_whole
    yield from kill_trials(act, ground.copy, ground.state, check, times, change)


def kills_in_time(ground: Ground, times: int) -> Iterator[Trial]:
    """SIGKILL 0 to 50 ms after the first of many additions: what was added is there."""
    ground.copy()
    chance, last = random.Random(0), ground.place / 'last'
    last.touch()

    def add_on(attempt: int) -> None:
        library = ground.open(readonly=False)
        for number in range(10_000):
            library.add_encoded([replace(ground.video, video_id=f'{attempt}.{number}')])
            last.write_text(f'{attempt}.{number}')

    def trial(attempt: int) -> str:
        child, receive = fork(partial(add_on, attempt))
        while not last.read_text().startswith(f'{attempt}.'):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(receive)
        library = ground.open()
        found = {name for name in library.store.snapshot().by_id if name.startswith(f'{attempt}.')}
        assert found == {f'{attempt}.{number}' for number in range(len(found))}
        assert found
        assert last.read_text() in found | {''}  # it may be killed while it writes this
        assert library.verify() == []
        (hits,) = library.search(SENTENCES[0], videos=sorted(found), group='video', top=10_000)
        assert {hit.video_id for hit in hits} == found
        return 'nothing was lost'

    yield from (partial(trial, attempt) for attempt in range(times))
    yield lambda: ground.change('add') or ground.require_whole() or 'the next writer goes on'


def two_writers(ground: Ground, times: int) -> Iterator[Trial]:
    """Two processes add, remove and compact, and a third one searches meanwhile."""

    def write(name: str) -> None:
        library = ground.open(readonly=False)
        for number in range(8):
            library.add_encoded([replace(ground.video, video_id=f'{name}{number}')])
        library.remove(f'{name}0')
        library.compact()

    def trial() -> str:
        ground.copy()
        reader, sizes = ground.open(), set()

        def search() -> None:
            hits = reader.search(SENTENCES[0], top=10_000, group='video')[0]
            sizes.add(len({hit.video_id for hit in hits}))

        search()
        wanted = {f'{name}{number}' for name in 'pq' for number in range(1, 8)}
        wanted |= set(reader.store.snapshot().by_id)
        writers = dict(fork(partial(write, name)) for name in 'pq')
        running = set(writers)
        while running:
            search()
            running -= {child for child in running if os.waitpid(child, os.WNOHANG)[0]}
        for receive in writers.values():
            with os.fdopen(receive) as file:
                assert file.read() == 'null'
        assert set(reader.store.snapshot().by_id) == set(ground.open().store.snapshot().by_id)
        assert set(reader.store.snapshot().by_id) == wanted
        search()
        assert {len(wanted) - 14, len(wanted)} <= sizes  # before the first, after the last
        ground.require_whole()
        return 'both wrote all, the reader went on'

    yield from [trial] * times


def waiting_in_vain(ground: Ground, times: int) -> Iterator[Trial]:
    """A writer that does not get its turn says who has it."""

    def trial() -> str:
        ground.copy()
        before, library = ground.state(), ground.open(readonly=False)
        with mock.patch('mmn_plugin.library.store._PATIENCE', 0.05), library.store._writing():
            said = error_of(lambda: ground.change('remove'), FileInUseError)
        assert f'process {os.getpid()} on' in said
        assert ground.state() == before
        return re.sub(r'process \d+ on \S+', 'process N on HOST', ground.said(said))

    yield from [trial] * times


def error_of(act: Callable, kind: type[Exception] = UserError) -> str:
    """The message of the error that something has to raise."""
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError('there was no error')


def full_disk(change: str, ground: Ground, times: int) -> Iterator[Trial]:
    """No file can grow beyond drawn sizes up to that of the database."""
    ground.copy()
    most = (ground.folder / DATABASE).stat().st_size - 1

    def act(limit: int) -> str | None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            ground.change(change)
        except UserError as error:
            return str(error)

    def trial(limit: int) -> str:
        ground.copy()
        before, said = ground.state(), result_of(partial(act, limit))
        if said is None:
            assert limit > 600
            assert ground.state() != before
        else:
            assert 'could not be written' in said, said
            assert ground.state() == before
        ground.change(change)
        ground.require_whole()
        return 'there was room enough' if said is None else ground.said(said)

    sizes = random.Random(change).sample(range(1, most), max(times - 2, 0))
    yield from (partial(trial, limit) for limit in [0, most, *sizes][:times])


@contextmanager
def sealed(folder: Path, prepare: Callable = lambda folder: None) -> Iterator[Path]:
    """A copy that cannot be written, in a place that everyone can read."""
    place = Path(tempfile.mkdtemp())
    folders = (place, place / 'lib', place / 'lib' / 'segments')
    try:
        prepare(shutil.copytree(folder, place / 'lib'))
        for path in folders:
            path.chmod(0o555)
        for path in (place / 'lib').rglob('*.*'):
            path.chmod(0o444)
        yield place / 'lib'
    finally:
        for path in folders:
            path.chmod(0o755)
        shutil.rmtree(place)


def leave_half_a_commit(folder: Path) -> None:
    """Be killed when changes of the database are on the disk and not committed."""

    def act():
        connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
        connection.execute('PRAGMA cache_size = 1')
        connection.execute('BEGIN')
        connection.execute('DELETE FROM segments')
        connection.execute("UPDATE videos SET folder = 'lost'")
        for number in range(300):
            connection.execute('INSERT INTO settings VALUES (?, ?, 0)', (str(number), 'x' * 500))
        os.kill(os.getpid(), signal.SIGKILL)

    size = (folder / DATABASE).stat().st_size
    assert result_of(act) is None
    assert (folder / DATABASE).stat().st_size > size
    assert (folder / f'{DATABASE}-journal').stat().st_size


def readonly_folder(ground: Ground, times: int) -> Iterator[Trial]:
    """Nobody may write: searches are answered, and changes refused."""

    def trial(prepare: Callable) -> str:
        ground.copy()
        wanted = ground.state()

        def use() -> list:
            ground.folder = place
            found = ground.state()
            same = (found[0], found[2]) == (wanted[0], wanted[2])
            library = ground.open(readonly=False)
            changes = (
                lambda: library.add_encoded([replace(ground.video, video_id='new')]),
                lambda: library.remove('v0'),
                library.compact,
            )
            return [same, library.verify(), *(error_of(one, OutputError) for one in changes)]

        with sealed(ground.folder, prepare) as place:
            same, problems, *said = as_nobody(use)
        assert same
        assert problems == []
        assert all('cannot be written' in text for text in said)
        return ground.said(said[0].replace(str(place), 'LIB'))

    yield from (partial(trial, one) for one in islice([lambda _: None, leave_half_a_commit], times))


def segments_of(ground: Ground) -> list[Path]:
    """Files of moments of the copy."""
    return sorted((ground.folder / 'segments').iterdir())


def truncated(ground: Ground, times: int) -> Iterator[Trial]:
    """A file of moments is cut off: named, and mended by removing its videos and adding them."""
    chance = random.Random(0)

    def trial() -> str:
        ground.copy()
        before, path = ground.state(), chance.choice(segments_of(ground))
        os.truncate(path, chance.randrange(path.stat().st_size))
        said = error_of(lambda: ground.open().search(SENTENCES))
        assert str(path) in said
        (problem,) = ground.open().verify()
        assert problem.startswith(said)
        library = ground.open(readonly=False)
        library.remove(library.store.damaged())
        library.add(ground.files)
        library.remove('x')
        ground.require_whole()
        require_near(ground.state()[0], before[0])
        return re.sub(r'\d{8}', '0000000N', ground.said(said))

    yield from [trial] * times


def require_near(found: dict, wanted: dict) -> None:
    """The same videos, whose vectors differ by no more than float16 rounds in another rotation."""
    assert found.keys() == wanted.keys()
    for name, (columns, arrays) in wanted.items():
        assert found[name][0] == columns
        for key, values in arrays.items():
            if values is not None:
                np.testing.assert_allclose(found[name][1][key], values, atol=4e-3, err_msg=name)


def flip(path: Path, place: int) -> None:
    """Change a bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 64
    path.write_bytes(data)


def flipped(pattern: str, ground: Ground, times: int) -> Iterator[Trial]:
    """A bit of a drawn byte of some files is not what was written: found, or it changes nothing."""
    chance = random.Random(0)
    ground.copy()
    before = ground.state()

    def trial() -> str:
        ground.copy()
        files = sorted(path for path in ground.folder.glob(pattern) if path.stat().st_size)
        path = chance.choices(files, [path.stat().st_size for path in files])[0]
        used = np.frombuffer(path.read_bytes(), np.uint8).nonzero()[0]
        flip(path, int(chance.choice(used)))
        try:
            problems = MomentLibrary(ground.folder).verify()
            found = 'found by verify' if problems else 'a byte that nobody reads'
            assert problems or ground.state() == before
        except UserError as error:
            problems, found = [str(error)], 'found when the library was opened'
        assert all(str(path) in text or str(ground.folder) in text for text in problems), problems
        return found

    yield from [trial] * times
