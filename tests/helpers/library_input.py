"""What users ask of libraries that they cannot have, and what has to be answered.

Trials as of `library_faults`.
"""

import random
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.library import MomentLibrary

from .library_faults import Ground, Trial, error_of
from .small_library import SENTENCES, write_features
from .tiny_corpus import WORDS


def other_model(ground: Ground, times: int) -> Iterator[Trial]:
    """A model that did not make the library, and features of another extractor."""
    ground.copy()

    def settings() -> str:
        config = Config.fromfile(ground.made.config)
        config.model.head.score_power = 0.25
        model = GroundingInferencer(config, ground.made.checkpoint, device='cpu')
        return error_of(lambda: MomentLibrary(ground.folder, model))

    def weights() -> str:
        model = GroundingInferencer(ground.made.config, ground.made.checkpoint, device='cpu')
        next(model.model.parameters()).data += 1
        return error_of(lambda: MomentLibrary(ground.folder, model))

    def extractor() -> str:
        path = write_features(ground.place / 'other.h5', ['w'], extractor='grid v2 size=48')
        library = ground.open(readonly=False)
        report = library.add(path)
        assert 'w' not in library.store.snapshot().by_id
        return report.failures['w']

    ways = (settings, weights, extractor)
    yield from (lambda ask=ask: ground.said(ask()) for ask in ways[:times])


STRANGE = [
    "it's",
    'a/b/../c',
    '../../etc/passwd',
    'two\nlines',
    'say "hi"',
    '日本語の動画',
    'мама',
    'فيديو',
    '%_',
    "'; DROP TABLE videos; --",
    ' ',
    '\t',
    'NULL',
    '🎬',
]


def strange_ids(ground: Ground, times: int) -> Iterator[Trial]:
    """Ids with quotes, slashes, line ends, in other scripts."""
    ground.copy()

    def trial(name: str) -> str:
        library, quoted = ground.open(readonly=False), name.replace("'", "''")
        before = ground.state()
        library.add_encoded([replace(ground.video, video_id=name)], {name: f'/videos/{name}.mp4'})
        ways = dict(videos=name), dict(where=f"id = '{quoted}'")
        for way in ways:
            (hits,) = library.search(SENTENCES[0], **way)
            assert {hit.video_id for hit in hits} == {name}
        assert library.verify() == []
        library.remove(name)
        assert ground.state()[0] == before[0]
        return 'added, found, filtered, removed'

    yield from (partial(trial, name) for name in STRANGE[:times])


def injections(ground: Ground, times: int) -> Iterator[Trial]:
    """Filters that are no expression over the columns: refused, and nothing changes."""
    ground.copy()
    before = ground.state()

    def trial(where: str) -> str:
        said = error_of(lambda: ground.open().search(SENTENCES, where=where))
        assert said.startswith('the filter ')
        assert 'columns id, path, folder' in said
        assert ground.state() == before
        ground.require_whole()
        return re.search(r' cannot be used: (.*)\. It is one expression', said, re.DOTALL)[1]

    yield from (partial(trial, where) for where in ATTACKS[:times])


def empty_library(ground: Ground, times: int) -> Iterator[Trial]:
    """Nothing is in it: everything works, and finds nothing."""

    def trial() -> str:
        library = MomentLibrary.create(ground.place / 'empty', ground.model)
        assert library.search(SENTENCES) == [[], [], []]
        assert library.search(SENTENCES, where='duration > 3', group='video') == [[], [], []]
        assert library.verify() == []
        assert library.info()['videos'] == 0
        library.compact()
        assert library.update().lines() == []
        library.export(ground.place / 'nothing.h5')
        return 'no hits'

    yield from [trial][:times]


def nothing_fits(ground: Ground, times: int) -> Iterator[Trial]:
    """Filters that keep no video, and pages that are not there: no hits."""
    filters = ["folder = 'elsewhere'", 'duration > 1e9', 'id is null', '0']
    questions = [dict(where=where, group=group) for where, group in product(filters, GROUPS)]
    questions += [dict(videos='v0', where="id = 'v1'"), dict(videos=[]), dict(page=10**9)]
    ground.copy()
    library = ground.open()

    def trial(question: dict) -> str:
        assert library.search(SENTENCES, **question) == [[], [], []]
        return 'no hits'

    yield from (partial(trial, question) for question in questions[:times])


def many_sentences(ground: Ground, times: int) -> Iterator[Trial]:
    """So many sentences at once: the hits of each are those that it gets alone."""
    ground.copy()
    library, chance = ground.open(), random.Random(0)
    sentences = [' '.join(chance.choices(WORDS, k=5)) for _ in range(times)]

    def trial() -> str:
        library.search(sentences[0])
        Path('/proc/self/clear_refs').write_text('5')  # the peak is the present
        before, began = memory('VmRSS'), time.perf_counter()
        found = library.search(sentences)
        took, peak = time.perf_counter() - began, memory('VmHWM') - before
        for place in range(0, times, max(times // 50, 1)):
            (alone,) = library.search(sentences[place])
            assert places(alone) == places(found[place])
        moments = library.store.snapshot().moments
        return (
            f'hits as of each alone: {times:,} over {moments:,} moments in {took:.1f} s, with '
            f'{peak:.0f} MB more memory at most'
        )

    yield trial


def places(hits: list) -> list[tuple]:
    """Where hits are."""
    return [(hit.video_id, hit.start, hit.end) for hit in hits]


def memory(name: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{name}:\s+(\d+)', status)[1]) / 1024


GROUPS = ('moment', 'video')
ATTACKS = [
    '1) UNION SELECT value FROM settings --',
    '1) UNION SELECT value FROM (settings',
    'id in (select value from settings)',
    'exists (SELECT 1)',
    '(SeLeCt count(*) from videos) > 0',
    'id in settings',
    '1 in sqlite_schema',
    '1; DROP TABLE videos',
    "1; ATTACH DATABASE '/tmp/x' AS x",
    "1); ATTACH DATABASE '/tmp/x' AS x; --",
    'PRAGMA writable_schema = 1',
    "1 in (pragma_table_info('videos'))",
    "1 in pragma_table_info('videos')",
    "load_extension('/tmp/x.so')",
    "writefile('/tmp/x', 'a')",
    "readfile('/etc/passwd') is not null",
    'DELETE FROM videos',
    '1 RETURNING id',
    '1) LIMIT (1',
    '1) ORDER BY (id',
    '1 THEN 1 END LIMIT CASE WHEN 1',
    '1) --',
    '1 /*',
    'videos.crc = 1',
    'segment = 1',
    'first_row < 5',
    'length(randomblob(1000000000)) > 1',
    'length(zeroblob(1000000000)) > 1',
    "length(printf('%1000000000d', 1)) > 1",
    "length(replace(path, 'a', path)) > 1",
    'fts5(id)',
    'sum(duration) > 1',
    'row_number() over () = 1',
    'duration < ?',
    'duration < :x',
    'id match 1',
    "id regexp 'a'",
    "id like '" + '%a' * 200 + "'",
    "id glob '" + '*a' * 200 + "'",
    '(' * 5000 + '1' + ')' * 5000,
    '1' + ' + 1' * 20_000,
    '',
    '\x00',
    'id = "a\udcff"',
    "'",
]
