"""Transforms: from an annotation to the inputs of the model."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform
from mmengine.structures import InstanceData

from mmn_plugin.errors import InputError
from mmn_plugin.structures import (
    GroundingDataSample,
    MomentGrid,
    TubeDataSample,
    as_windows,
    temporal_iou,
    true_windows,
)

from .feature_store import FeatureError, FeatureStore, open_feature_store
from .tube_file import TubeFile

LACKING = 2  # rows that may be absent at the end, or too many there


def rows_of(duration: float, row_seconds: float) -> int:
    """Rows that cover a video of so many seconds, the last one perhaps in part."""
    return max(1, math.ceil(round(duration / row_seconds, 6)))


def row_problem(num_rows: int, duration: float, row_seconds: float) -> str | None:
    """What is wrong with a number of rows that is more than `LACKING` off; None: nothing.

    Args:
        num_rows (int): Rows of a video in one stream.
        duration (float): Its length in seconds, as annotated.
        row_seconds (float): Seconds that a row covers.
    """
    wanted = rows_of(duration, row_seconds)
    if abs(num_rows - wanted) <= LACKING:
        return None
    return (
        f'{num_rows} rows of {row_seconds:g} s cover {num_rows * row_seconds:g} s, but the video '
        f'is annotated with {duration:g} s, which is {wanted} rows (up to {LACKING} more or fewer '
        'are mended). Extract this video again at that rate, correct row_seconds of the dataset, '
        'or remove the video from the annotations'
    )


def fit_rows(
    streams: Sequence[np.ndarray], duration: float, row_seconds: float
) -> list[np.ndarray]:
    """Cut the streams of a video to the shortest, and to the video; fill what is absent at its end.

    Row k is of the seconds from ``k * row_seconds`` on, whatever the number of rows.

    Args:
        streams (Sequence[np.ndarray]): (T_k, D_k) each, of numbers of rows that are no
            `row_problem`.
        duration (float): Seconds of the video.
        row_seconds (float): Seconds that a row covers.

    Returns:
        list[np.ndarray]: (`rows_of`, D_k) each; the last row stands for those that are absent.
    """
    wanted = rows_of(duration, row_seconds)
    count = min(wanted, *map(len, streams))
    places = np.arange(wanted).clip(max=count - 1)
    return [stream[places] for stream in streams]


@TRANSFORMS.register_module()
class LoadClipFeatures(BaseTransform):
    """Read the features of a video from one or several files.

    Every file is opened once per process and stays open; a forked or spawned worker opens its own.

    Required keys: ``video_id``, ``feature_files`` (list of paths). Optional: ``feature_keys`` (list
    of names within a video's entry, or None each), ``feature_sizes`` (list of D that each file must
    have), ``feature_versions`` (list of what `FeatureStore.video_version` gave, which the files
    must still be), ``stored_id`` (the video's name in the files, where that is not its
    ``video_id``), ``row_seconds`` (seconds that a row covers; then ``duration`` is needed too).
    `TemporalGroundingDataset` gives them all.

    Added keys: ``features``, (T, D) float32; with several files a list of (T_k, D_k), which
    `PoolClipFeatures` pools each by itself and joins along D. They may differ in length: each
    covers the whole video. With ``row_seconds`` they have one length, see `fit_rows`.

    Raises:
        FeatureError: If a video's features are absent, changed, damaged, empty, not finite, not of
            the size of the other videos, or of far more or fewer rows than ``row_seconds`` and the
            duration say; the message names file and video.
    """

    def __init__(self):
        self._stores: dict[tuple[str, str | None], FeatureStore] = {}

    def transform(self, results: dict) -> dict:
        """Add ``features``."""
        files, video_id = results['feature_files'], results.get('stored_id', results['video_id'])
        keys, sizes, versions = (
            results.get(f'feature_{name}') or [None] * len(files)
            for name in ('keys', 'sizes', 'versions')
        )
        streams = []
        for path, key, size, version in zip(files, keys, sizes, versions, strict=True):
            if (path, key) not in self._stores:
                self._stores[path, key] = open_feature_store(path, key)
            features = self._stores[path, key].read(video_id, version)  # (T, D)
            if size is not None and features.shape[1] != size:
                raise FeatureError(
                    f'{path}: video {video_id!r} has features of size {features.shape[1]}, other '
                    f'videos of size {size}. Extract it again with the same network'
                )
            streams.append(features)
        if row_seconds := results.get('row_seconds'):
            for path, features in zip(files, streams, strict=True):
                if problem := row_problem(len(features), results['duration'], row_seconds):
                    raise FeatureError(f'{path}: video {video_id!r}: {problem}')
            streams = fit_rows(streams, results['duration'], row_seconds)
        results['features'] = streams[0] if len(streams) == 1 else streams
        return results


@TRANSFORMS.register_module()
class PoolClipFeatures(BaseTransform):
    """Normalize the rows of a video's features and average them to R segments.

    Every row is divided by its L2 norm (at least 1e-12). Segment i is the mean of rows
    ``b_i ... b_(i+1) - 1`` with ``b_i = round(i / R * T)``, computed in float32 and rounded half to
    even, or row ``b_i`` where that range is empty (2D-TAN's and MMN's pooling).

    Required key: ``features``, (T, D) float32 or a list of (T_k, D_k), which are treated each by
    itself and joined along D. Modified key: ``features``, (R, D) float32.

    Args:
        num_segments (int): R, called ``num_pre_clips`` in the published code.
        clamp_last (bool): Clamp every boundary to T - 1, as published for MMN: the last row then
            enters no mean unless it is alone. False lets b_R be T, as in the HC-STVG variant; an
            empty segment then takes row min(b_i, T - 1). Defaults to True.
        source_sizes (Sequence[int], optional): D_k of each source, in the order of the dataset's
            feature files. An array (T, D) of all of them, as of inference, is then treated like
            them, each source by itself. Defaults to None: whatever comes.

    Raises:
        FeatureError: When features are of other sizes than ``source_sizes``.
    """

    def __init__(
        self,
        num_segments: int,
        clamp_last: bool = True,
        source_sizes: Sequence[int] | None = None,
    ):
        if num_segments < 1:
            raise InputError(f'num_segments={num_segments}; it must be at least 1')
        self.num_segments = num_segments
        self.clamp_last = clamp_last
        self.source_sizes = None if source_sizes is None else list(source_sizes)

    def transform(self, results: dict) -> dict:
        """Replace ``features`` by the pooled ones."""
        features = results['features']
        streams = features if isinstance(features, list | tuple) else [features]
        if self.source_sizes is not None:
            streams = self._by_source(streams, results.get('video_id'))
        results['features'] = self.pool_streams(streams)
        return results

    def _by_source(self, streams: Sequence[np.ndarray], video_id: str | None) -> list[np.ndarray]:
        """Streams (T_k, D_k) of the sources, from them or from one array of all."""
        wanted, found = self.source_sizes, [stream.shape[1] for stream in streams]
        if found == [sum(wanted)]:
            return np.split(streams[0], np.cumsum(wanted)[:-1], axis=1)
        if found != wanted:
            raise FeatureError(
                f'video {video_id!r} has features of sizes {found}, but source_sizes of '
                f'PoolClipFeatures are {wanted}: give the sources in this order, or all in one '
                'array'
            )
        return list(streams)

    def pool_streams(self, streams: Sequence[np.ndarray]) -> np.ndarray:
        """Pool each stream (T_k, D_k) by itself and join them along D: (R, D) float32."""
        pooled = [self.pool(stream, self.num_segments, self.clamp_last) for stream in streams]
        return pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)

    @staticmethod
    def pool(features: np.ndarray, num_segments: int, clamp_last: bool = True) -> np.ndarray:
        """Pool one video: (T, D) -> (num_segments, D) float32."""
        features = np.asarray(features, dtype=np.float32)
        starts, counts = PoolClipFeatures.segments(len(features), num_segments, clamp_last)
        if features.size > CACHED_VALUES:
            return _pool_in_cache(features, starts, counts)
        features = features / _norms(features)  # (T, D)
        # The k-th row of all segments at once: T / R steps, and no difference of long sums.
        # np.add.reduceat gives the same bits and takes two to five times as long along rows.
        sums = features[starts].astype(np.float64)  # (R, D)
        for step in range(1, counts.max()):
            longer = np.flatnonzero(counts > step)
            sums[longer] += features[starts[longer] + step]
        return (sums / counts[:, None]).astype(np.float32)

    @staticmethod
    def segments(
        num_rows: int, num_segments: int, clamp_last: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of rows of each segment, both (num_segments,) int64."""
        steps = np.arange(num_segments + 1, dtype=np.float32) / np.float32(num_segments)
        bounds = np.round(steps * np.float32(num_rows)).astype(np.int64)
        if clamp_last:
            bounds = np.minimum(bounds, num_rows - 1)
        counts = np.maximum(np.diff(bounds), 1)
        return np.minimum(bounds[:-1], num_rows - 1), counts

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_segments={self.num_segments}, '
            f'clamp_last={self.clamp_last}, source_sizes={self.source_sizes})'
        )


# Above so many values of a video's features, 1 MB, a pass over all rows at once leaves the cache.
CACHED_VALUES = 2**18


def _pool_in_cache(features: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A few rows after the other: the same bits, sooner where features are many."""
    norms = np.concatenate([_norms(features[k : k + 64]) for k in range(0, len(features), 64)])
    pooled = np.empty((len(starts), features.shape[1]), np.float32)
    for place, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        rows = features[start : start + count] / norms[start : start + count]
        pooled[place] = np.add.reduce(rows, axis=0, dtype=np.float64) / count
    return pooled


def _norms(features: np.ndarray) -> np.ndarray:
    """L2 norm of each row, at least 1e-12, (T, 1)."""
    return np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-12))


@TRANSFORMS.register_module()
class MomentsInOrder(BaseTransform):
    """Give a video's sentences moments without timestamps, from their order and the features.

    Whoever describes a whole video tells of it from beginning to end: the k-th of s sentences is
    taken to be about the k-th of s equal parts. Its moment is the one of the grid with the highest

        IoU with that part + change_weight * (change at its start + change at its end)

    where the change between two neighboring clips is 1 minus their cosine, and that at both ends of
    a video ``end_change``. So moments begin and end where the video changes, and differ in length.
    For weakly-supervised training of a method that needs moments (`TemporalGroundingDataset` with
    ``weak=True``); it says nothing where sentences are in no order.

    Required keys: ``features`` (R, D), ``sentences``, ``duration``. Added key: ``windows``, list of
    s lists of one [start, end] in seconds.

    Args:
        num_clips (int): N; moments begin and end with one of N equal clips. R is a multiple.
        change_weight (float): Weight of changes; 0 gives the equal parts, rounded to clips.
        end_change (float): Change at both ends of the video.

    Raises:
        ValueError: If R is no multiple of N, or there are ``windows`` or ``moments`` already.
    """

    def __init__(self, num_clips: int, change_weight: float, end_change: float):
        self.grid = MomentGrid(num_clips, [num_clips - 1])
        self.change_weight, self.end_change = change_weight, end_change

    def transform(self, results: dict) -> dict:
        """Add ``windows``."""
        features, num_clips = torch.as_tensor(results['features']), self.grid.num_clips
        if len(features) % num_clips or {'windows', 'moments'} & {*results}:
            raise InputError(
                f'MomentsInOrder of {num_clips} clips: give it features of a multiple of as many '
                f'rows ({len(features)} of video {results["video_id"]!r}), and weak=True in the '
                'dataset'
            )
        parts = torch.linspace(0, 1, len(results['sentences']) + 1)
        parts = torch.stack([parts[:-1], parts[1:]], dim=1)  # (s, 2)
        spans = self.grid.spans(1.0)  # (P, 2)
        clips = F.normalize(features.unflatten(0, (num_clips, -1)).mean(1), dim=-1)  # (N, D)
        change = 1 - (clips[1:] * clips[:-1]).sum(1)
        change = F.pad(change, (1, 1), value=self.end_change)  # (N + 1,)
        starts, ends = self.grid.clips_on('cpu')
        values = temporal_iou(parts[:, None], spans) + self.change_weight * (
            change[starts] + change[ends + 1]
        )  # (s, P)
        best = spans[values.argmax(1)] * results['duration']  # (s, 2)
        results['windows'] = best[:, None].tolist()
        return results


@TRANSFORMS.register_module()
class PackGroundingInputs(BaseTransform):
    """Pack a video's pooled features and its sentences.

    Required keys: ``features`` (R, D), ``video_id``, ``duration``, ``sentences``. Optional:
    ``windows`` (list of s lists of windows [start, end] in seconds, [] for a sentence that does not
    occur; or ``moments``, list of s [start, end]), ``sentence_index``, ``corpus``; without them the
    sample has no ground truth, as in inference.

    Returns ``inputs``, (R, D) float32 tensor, and ``data_samples``, a `GroundingDataSample`.

    Args:
        meta_keys (Sequence[str]): Further keys that become meta information of the sample where
            they are there, such as the ``lines`` of `QVHighlightsDataset`. Defaults to none.

    Raises:
        InputError: If there are not the windows of each sentence.
    """

    def __init__(self, meta_keys: Sequence[str] = ()):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Make ``inputs`` and ``data_samples``."""
        sample = GroundingDataSample(metainfo=dict(duration=float(results['duration'])))
        truth = results.get('windows', results.get('moments'))
        if truth is not None:
            counts = len(truth), len(results['sentences'])
            if counts[0] != counts[1]:
                raise InputError(
                    f'video {results["video_id"]!r} has windows of {counts[0]} sentences, but '
                    f'{counts[1]} sentences; they belong together one to one'
                )
            sample.gt_instances = true_windows([as_windows(entry) for entry in truth])
        sample.set_metainfo({key: results[key] for key in self.meta_keys if key in results})
        return _packed(results, sample)


def _packed(results: dict, sample: GroundingDataSample) -> dict:
    """Features as tensor, and a sample that knows the video and its sentences."""
    sentences = list(results['sentences'])
    index = list(results.get('sentence_index', range(len(sentences))))
    sample.set_metainfo(
        dict(video_id=results['video_id'], sentences=sentences, sentence_index=index)
    )
    if results.get('corpus'):
        sample.set_metainfo(dict(corpus=results['corpus']))
    features = np.ascontiguousarray(results['features'], dtype=np.float32)
    return dict(inputs=torch.from_numpy(features), data_samples=sample)


@TRANSFORMS.register_module()
class LoadTubes(BaseTransform):
    """Read candidate tubes, ground truth and features of a video.

    Every file is opened once per process and stays open.

    Required keys: ``video_id``, ``tube_file``, ``streams``. Optional: ``tube_version``, the
    `TubeFile.version` that the file must still be. `TubeGroundingDataset` gives them.
    Added keys: ``tubes`` (T arrays (n, 5)), ``ground_truth`` (one per sentence, or none),
    ``features`` (per stream a list of T arrays (rows, D)).

    Raises:
        TubeError: If something is absent, changed, damaged or of no meaning; the message names it.
    """

    def __init__(self):
        self._files: dict[str, TubeFile] = {}

    def transform(self, results: dict) -> dict:
        """Add tubes and features."""
        path = results['tube_file']
        if path not in self._files:
            self._files[path] = TubeFile(path)
        video = self._files[path].read(
            results['video_id'], results['streams'], results.get('tube_version')
        )
        results['tubes'] = video.tubes
        results['ground_truth'] = video.ground_truth
        results['features'] = [video.features[stream] for stream in results['streams']]
        return results


@TRANSFORMS.register_module()
class PoolTubeFeatures(PoolClipFeatures):
    """Pool each stream of each tube to R segments, and join the streams along D.

    The pooling is that of `PoolClipFeatures` without its clamp. Streams may differ in length.

    Required key: ``features``, per stream a list of T arrays (rows, D_k). Optional:
    ``feature_sizes``, the D_k, for videos without tubes. Modified key: ``features``, (T, R, D).

    Args:
        num_segments (int): R.
    """

    def __init__(self, num_segments: int):
        super().__init__(num_segments, clamp_last=False)

    def transform(self, results: dict) -> dict:
        """Replace ``features`` by the pooled ones."""
        tubes = zip(*results['features'], strict=True)  # by tube, then by stream
        pooled = [self.pool_streams(streams) for streams in tubes]
        size = sum(results.get('feature_sizes') or [0])
        results['features'] = (
            np.stack(pooled) if pooled else np.zeros((0, self.num_segments, size), np.float32)
        )  # (T, R, D)
        return results


@TRANSFORMS.register_module()
class PackTubeInputs(BaseTransform):
    """Pack a video's pooled tubes and its sentences.

    Required keys: ``features`` (T, R, D), ``video_id``, ``sentences``, ``tubes``. Optional:
    ``ground_truth`` (one tube per sentence), ``sentence_index``; without ``ground_truth`` the
    sample has none, as in inference.

    Returns ``inputs``, (T, R, D) float32 tensor, and ``data_samples``, a `TubeDataSample`.
    """

    def transform(self, results: dict) -> dict:
        """Make ``inputs`` and ``data_samples``."""
        tubes = list(results['tubes'])
        sample = TubeDataSample(metainfo=dict(tubes=tubes, tube_index=list(range(len(tubes)))))
        if results.get('ground_truth'):
            sample.gt_instances = InstanceData(tubes=list(results['ground_truth']))
        return _packed(results, sample)
