"""Exact search in a library of a million moments beside brute force and FAISS, in turns."""

import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.errors import InputError
from mmn_plugin.library import ExactSearch, Segment, brute_force, write_segment
from mmn_plugin.library.hits import exact_scores
from mmn_plugin.models.heads.mutual_matching_head import MatchingScore
from mmn_plugin.structures.annotations import read_annotations

from . import captions
from .running import CONFIG, ROOT, WORK, in_process, kept
from .tables import table

TOP_N, SENTENCES, AT_ONCE, THREADS = 20, 20, 512, 8
FIRST = 300  # that every index is asked for
LIMIT = 4 * 3600.0  # seconds for all variants on one kind of embeddings
MILLION = 1_000_000
# Captions' MMN with larger embeddings and more moments: 428 a video, two million in all.
LARGE = (
    *(f'{part}.num_clips=32' for part in ('model.grid', 'test_evaluator.chance')),
    *(f'{part}.pooling_counts=[15,8]' for part in ('model.grid', 'test_evaluator.chance')),
    *(f'model.backbone.{name}=2' for name in ('kernel_size', 'stride')),
    *(f'model.{part}=256' for part in ('backbone.out_channels', 'neck.channels')),
    *(f'model.{part}.embed_channels=256' for part in ('neck', 'text_encoder')),
)
OURS, FULL, FLAT = 'ours', 'ours, reading all coordinates', 'two FAISS flat float16'
SIDE_BY_SIDE = 'the same two, each in a thread'
PANORAMA, IVF = 'FAISS Panorama', 'FAISS IVF, 64 of 1,024 lists'


@dataclass
class TowerScore:
    """The tower's cosine alone, as a zero-shot score."""

    spaces = ('tower',)

    def __call__(self, products, lengths, trust=None):
        return (10 * products['tower']).sigmoid()


MATCHING = MatchingScore(power=4.0, iou_scale=10.0, tower_weight=0.0)


def captions_moments() -> Path:
    """The folder with the moments of captions' MMN, trained with the options `LARGE`."""
    captions.make_corpus()
    checkpoint, _ = kept('mmn_captions_large', 0, captions.MMN, LARGE)
    return embedded(checkpoint, ['described'])


def shapes_moments() -> Path:
    """The folder with the moments of Shapes' MMN, as the experiment ``shapes`` trains it."""
    checkpoint, _ = kept('shapes', 0, CONFIG, processes=2)
    return embedded(checkpoint, ['train', 'val', 'test'])


def embedded(checkpoint: Path, splits: list[str]) -> Path:
    """The folder, beside a checkpoint, with its moments in files of a library and its sentences.

    They are those of the first million moments, and the test split's.
    """
    folder = checkpoint.parent / 'moments'
    if (folder / 'sentences.npz').is_file():
        return folder
    folder.mkdir(exist_ok=True)
    with chdir(ROOT):
        found = GroundingInferencer(None, checkpoint, 'cpu')
        dataset = found.config.test_dataloader.dataset
        annotations = Path(dataset.data_root, 'annotations')
        videos = [v for split in splits for v in read_annotations(annotations / f'{split}.json')]
        tests = read_annotations(annotations / 'test.json')
        texts = [text for video in tests for text in video.sentences][:AT_ONCE]
        parts, lengths = {}, []
        with h5py.File(Path(dataset.data_root, dataset.data_prefix.features)) as features:
            for video in videos:
                if sum(map(len, lengths)) >= MILLION:
                    break
                rows = features[video.video_id]
                made = found.encode(rows, video.duration, video.video_id)
                lengths.append((made.spans[:, 1] - made.spans[:, 0]) / video.duration)
                for space, vectors in made.embeddings.items():
                    parts.setdefault(space, []).append(vectors.half())
        with torch.inference_mode():
            sentences = found.model.encode_sentences(texts)
    lengths = torch.cat(lengths)[:MILLION]
    write(folder, {space: torch.cat(part)[:MILLION] for space, part in parts.items()}, lengths)
    unit = {space: torch.nn.functional.normalize(rows.float()) for space, rows in sentences.items()}
    np.savez(folder / 'sentences.npz', **{space: rows.numpy() for space, rows in unit.items()})
    return folder


def random_moments(rows: int, width: int) -> Path:
    """The folder with moments of random directions, where no coordinate tells of the others."""
    folder = ROOT / WORK / f'library_speed_random_{rows}_{width}'
    if not (folder / 'sentences.npz').is_file():
        folder.mkdir(parents=True, exist_ok=True)
        draw = torch.Generator().manual_seed(0)

        def vectors(count):
            return torch.nn.functional.normalize(torch.randn(count, width, generator=draw))

        write(folder, {space: vectors(rows) for space in MATCHING.spaces}, torch.ones(rows))
        np.savez(folder / 'sentences.npz', **{s: vectors(AT_ONCE) for s in MATCHING.spaces})
    return folder


def write(folder: Path, embeddings: dict, lengths: torch.Tensor) -> None:
    """A file of the tower's space, and one of all others."""
    trained = {space: rows for space, rows in embeddings.items() if space != 'tower'}
    spans = torch.zeros(len(lengths), 2)
    write_segment(folder / 'trained.moments', trained, spans, lengths)
    if 'tower' in embeddings:
        write_segment(folder / 'tower.moments', dict(tower=embeddings['tower']), spans, lengths)


# What is searched: how its folder is made, the file in it, the score.
LARGE_CAPTIONS = (captions_moments, 'trained', MATCHING)
KINDS = {
    'MMN on captions, 256-d': LARGE_CAPTIONS,
    'a tower, all-MiniLM-L6-v2': (LARGE_CAPTIONS[0], 'tower', TowerScore()),
    'random directions': (lambda: random_moments(MILLION, 256), 'trained', MATCHING),
    'MMN on Shapes': (shapes_moments, 'trained', MATCHING),
}


def library_speed(repeats: int) -> Iterator[dict]:
    """The first 20 moments of 20 sentences by every variant, in turns, on each kind.

    Args:
        repeats (int): Rounds over the sentences.
    """
    require_faiss()
    rows = []
    for kind, (make, file, score) in KINDS.items():
        folder = make()
        found = in_process(figures_of, folder, file, score, repeats, limit=LIMIT)
        record = folder.parent / 'finished.json'
        training = json.loads(record.read_text()) if record.is_file() else None
        rows.append(dict(kind=kind, training=training, **found))
        yield dict(figures=rows, load=os.getloadavg()[0])


def require_faiss():
    """The module.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise InputError(
            'this experiment compares with FAISS, which is not installed: '
            'pip install -r requirements/benchmark.txt'
        ) from None
    return faiss


def figures_of(folder: Path, file: str, score, repeats: int) -> dict:
    """Figures of all variants, and what is told of ours alone."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    require_faiss().omp_set_num_threads(cores)
    sentences = sentences_of(folder, score)
    began = time.perf_counter()
    segment = Segment(folder / f'{file}.moments')
    ours = ExactSearch([segment], score)
    ours(at(sentences, 0), TOP_N)
    about = dict(
        moments=segment.rows,
        widths={space: segment.widths[space] for space in score.spaces},
        spectrum={space: segment.spectrum[space] for space in score.spaces},
        first_answer_seconds=time.perf_counter() - began,
        **alone(ours, sentences, cores),
    )
    few = {space: rows[:SENTENCES] for space, rows in sentences.items()}
    wanted = brute_force([segment], few, score, TOP_N).row
    variants = {
        OURS: lambda query: ours(query, TOP_N).row[0],
        FULL: searcher(ExactSearch([segment], score, full_scan=True)),
        **joined_variants(segment, score),
    }
    return about | dict(variants=in_turns(variants, few, wanted, repeats))


def sentences_of(folder: Path, score) -> dict[str, torch.Tensor]:
    """(S, J) of each space of a score."""
    with np.load(folder / 'sentences.npz') as read:
        return {space: torch.from_numpy(read[space]) for space in score.spaces}


def large_captions() -> tuple[Segment, dict[str, torch.Tensor], MatchingScore]:
    """The million moments of `LARGE_CAPTIONS`, the sentences that are asked, and the score."""
    make, file, score = LARGE_CAPTIONS
    folder = make()
    return Segment(folder / f'{file}.moments'), sentences_of(folder, score), score


def searcher(search: ExactSearch) -> Callable:
    """Rows of the best moments."""
    return lambda query: search(query, TOP_N).row[0]


def at(sentences: Mapping[str, torch.Tensor], place: int) -> dict[str, torch.Tensor]:
    """One sentence, (1, J) per space."""
    return {space: rows[place : place + 1] for space, rows in sentences.items()}


def alone(ours: ExactSearch, sentences: Mapping, cores: int) -> dict:
    """Memory beyond the map, time of a sentence among many, and searches a second by threads."""
    count = len(sentences[ours.score.spaces[0]])
    with PeakMemory() as memory:
        for place in range(SENTENCES):
            ours(at(sentences, place), TOP_N)
    began = time.perf_counter()
    ours(sentences, TOP_N)
    among_many = (time.perf_counter() - began) / count
    torch.set_num_threads(1)
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(lambda place: ours(at(sentences, place), TOP_N), range(4 * THREADS)))
        per_second = 4 * THREADS / (time.perf_counter() - began)
    torch.set_num_threads(cores)
    return dict(
        peak_mb=memory.megabytes, among_many_ms=1000 * among_many, searches_per_second=per_second
    )


class PeakMemory:
    """How much memory that is of no file this process takes on top within a block."""

    def __enter__(self) -> 'PeakMemory':
        self._before = self._peak = self._used()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()
        self.megabytes = (self._peak - self._before) / 1024

    def _watch(self) -> None:
        while not self._ended.wait(0.001):
            self._peak = max(self._peak, self._used())

    @staticmethod
    def _used() -> int:
        lines = Path('/proc/self/status').read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon'))


class Joined:
    """The best moments among the first 300 of each space: one scan of each, nothing proven."""

    def __init__(
        self, segment: Segment, score, best_of_space: Mapping, each: Callable = map
    ) -> None:
        self.segment, self.score, self.best_of_space = segment, score, best_of_space
        self.each = each
        rotation = segment.rotation
        self.turns = {space: rotation[space].T.astype(np.float64) for space in score.spaces}

    def __call__(self, query: Mapping[str, torch.Tensor]) -> np.ndarray:
        queries = {s: query[s].double().numpy() @ turn for s, turn in self.turns.items()}
        spaces = self.best_of_space
        vectors = [queries[space].astype(np.float32) for space in spaces]
        found = self.each(lambda search, one: search(one, FIRST), spaces.values(), vectors)
        rows = np.unique(np.concatenate(list(found)))
        rows = rows[rows >= 0]  # an IVF index pads with -1
        scores = exact_scores(self.segment, self.score, queries, rows, np.zeros(len(rows), int))
        return rows[np.lexsort((rows, -scores))[:TOP_N]]


def joined_variants(segment: Segment, score) -> dict[str, Joined]:
    """NumPy, and indexes of FAISS, over the same coordinates."""
    vectors = {space: segment.vectors(space, slice(None)) for space in score.spaces}
    found = {
        'NumPy float32': Joined(segment, score, {s: numpy_best(x) for s, x in vectors.items()})
    }
    for name, make in {FLAT: flat_index, PANORAMA: panorama_index, IVF: ivf_index}.items():
        indexes = {space: faiss_best(make(x)) for space, x in vectors.items()}
        found[name] = Joined(segment, score, indexes)
        if make is flat_index and len(indexes) > 1:
            pool = ThreadPoolExecutor(len(indexes))
            found[SIDE_BY_SIDE] = Joined(segment, score, indexes, pool.map)
    return found


def numpy_best(vectors: np.ndarray) -> Callable:
    """Rows of the largest products."""

    def best(query: np.ndarray, count: int) -> np.ndarray:
        return np.argpartition(vectors @ -query[0], min(count, len(vectors)) - 1)[:count]

    return best


def faiss_best(index) -> Callable:
    """The same of an index."""
    return lambda query, count: index.search(query, min(count, index.ntotal))[1][0]


def flat_index(vectors: np.ndarray):
    """All vectors in float16."""
    faiss = require_faiss()
    kind, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    return filled(faiss.IndexScalarQuantizer(vectors.shape[1], kind, metric), vectors)


def panorama_index(vectors: np.ndarray):
    """FAISS's own bounds, of levels of 16 coordinates, in float32; these are rotated already."""
    width = vectors.shape[1]
    return filled(require_faiss().IndexFlatIPPanorama(width, width // 16), vectors)


def ivf_index(vectors: np.ndarray):
    """Inverted lists: not exact."""
    faiss = require_faiss()
    width, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, 1024, metric)
    index.nprobe = 64
    index.train(vectors[:: max(len(vectors) // 50_000, 1)])
    return filled(index, vectors)


def filled(index, vectors: np.ndarray):
    """The index with all vectors, given a part at a time."""
    if not index.is_trained:  # a scalar quantizer, which learns nothing for float16
        index.train(vectors[:1])
    for start in range(0, len(vectors), 1 << 16):
        index.add(vectors[start : start + (1 << 16)])
    return index


def in_turns(variants: Mapping, sentences: Mapping, wanted: np.ndarray, repeats: int) -> dict:
    """Milliseconds of every variant, and the share of the first 20 that are a full scan's."""
    took = {name: dict(ms=[], cpu_ms=[]) for name in variants}
    shared = {name: [] for name in variants}
    for _ in range(repeats):
        for place in range(len(wanted)):
            query = at(sentences, place)
            for name, search in variants.items():
                began, used = time.perf_counter(), time.process_time()
                rows = search(query)
                took[name]['ms'].append(1000 * (time.perf_counter() - began))
                took[name]['cpu_ms'].append(1000 * (time.process_time() - used))
                shared[name].append(len(np.intersect1d(rows, wanted[place])) / wanted.shape[1])
    return {name: took[name] | dict(shared=statistics.fmean(shared[name])) for name in variants}


def render_library_speed(result: dict) -> str:
    """A row per kind and variant, against two flat float16 scans."""
    rows, notes = [], []
    for found in result['figures']:
        kind = found['kind']
        if 'error' in found:
            rows.append([kind, found['error'].splitlines()[-1], *[''] * 6])
            continue
        widths = ' + '.join(map(str, found['widths'].values()))
        base = found['variants'][FLAT]
        for name, variant in found['variants'].items():
            ratios = [
                statistics.median(b / v for b, v in zip(base[key], variant[key], strict=True))
                for key in ('ms', 'cpu_ms')
            ]
            deciles = statistics.quantiles(variant['ms'], n=20)
            rows.append(
                [
                    f'{kind}, {found["moments"]:,} x {widths}',
                    name,
                    f'{statistics.median(variant["ms"]):.1f} ms',
                    f'{deciles[-1]:.1f} ms',
                    f'{statistics.median(variant["cpu_ms"]):.1f} ms',
                    *(f'{ratio:.2f}x' for ratio in ratios),
                    f'{100 * variant["shared"]:.2f} %',
                ]
            )
        notes.append(
            f'{kind}: {found["peak_mb"]:.0f} MB beyond the memory map, the first answer '
            f'{found["first_answer_seconds"]:.2f} s after opening, {found["among_many_ms"]:.1f} ms '
            f'for each of {AT_ONCE} sentences at once, {found["searches_per_second"]:.0f} searches '
            f'a second by {THREADS} threads'
        )
    header = ['embeddings', 'search', 'median', '95 %', 'CPU time', 'against FAISS flat float16']
    header += ['the same in CPU time', 'of the first 20 right']
    text = '; '.join(notes)
    return f'{table(header, rows)}\n\n{text}. Load of the machine at the end: {result["load"]:.1f}.'
