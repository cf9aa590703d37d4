"""QVHighlights from its lines as released."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmaction.registry import DATASETS

from mmn_plugin.structures.annotations import AnnotationError, VideoAnnotation, parse_video
from mmn_plugin.structures.qvhighlights import (
    CLIP,
    SALIENCY,
    WINDOWS,
    Refuse,
    check_truth,
    read_query_lines,
)

from .grounding_dataset import TemporalGroundingDataset

TRUTH = WINDOWS[1], SALIENCY[1], 'relevant_clip_ids'


@dataclass
class QueriedVideo(VideoAnnotation):
    """The usable queries of one video.

    Attributes:
        lines (list[tuple[int, dict]]): Place in the file, from 0, and line of each sentence.
    """

    lines: list[tuple[int, dict]]


@DATASETS.register_module()
class QVHighlightsDataset(TemporalGroundingDataset):
    """QVHighlights, or any corpus in its format: a query, with its video and truth, a line.

    A sample is a video with all queries of the file about it as its sentences. A query has one or
    several windows; an empty list of them says that it does not occur in the video. A file without
    ``relevant_windows`` is of a test whose truth is not known.

    Entries have as ``lines`` the line of each sentence with its place in the file, (int, dict),
    without the truth in weakly supervised training. `QVHighlightsMetric` and the submission need
    them in the samples: ``meta_keys=['lines']`` of `PackGroundingInputs`. ``sentence_index`` counts
    the queries of a video.

    Args:
        ann_file (str | Path): JSON lines, relative to ``data_root``.
        row_seconds (float, optional): As of `TemporalGroundingDataset`. Defaults to 2, that of the
            features that are published with the dataset.
        **kwargs: See `TemporalGroundingDataset`.

    Raises:
        FileNotFoundError: If the file does not exist.
        AnnotationError: If a line cannot be used, a ``qid`` comes twice, a window lies outside its
            video, saliency is not of the clips listed, queries give one video two durations, or
            there are no windows to train with.
    """

    METAINFO = dict(dataset_type='qvhighlights')
    submission = 'DumpQVHighlights'

    def __init__(self, ann_file: str | Path, row_seconds: float | None = CLIP, **kwargs):
        super().__init__(ann_file, row_seconds=row_seconds, **kwargs)

    def load_entries(self) -> dict[str, dict]:
        """Entries by video, as of the published format, with their ``lines``."""
        lines = read_query_lines(self.ann_file, _check_query, AnnotationError)
        entries: dict[str, dict[str, Any]] = {}
        for place, line in enumerate(lines.values()):
            entry = entries.setdefault(
                line['vid'], dict(duration=line['duration'], sentences=[], lines=[])
            )
            if entry['duration'] != line['duration']:
                _, first = entry['lines'][0]
                raise AnnotationError(
                    f'{self.ann_file}: the video {line["vid"]!r} lasts {first["duration"]} s by '
                    f'qid {first["qid"]!r}, and {line["duration"]} s by qid {line["qid"]!r}; '
                    'correct one of the lines'
                )
            if WINDOWS[1] in line:
                entry.setdefault('timestamps', []).append(line[WINDOWS[1]])
            elif not (self.weak or self.test_mode):
                raise AnnotationError(
                    f'{self.ann_file} has no "{WINDOWS[1]}" to train with; it is for tests '
                    '(tools/test.py --submission FILE.jsonl)'
                )
            entry['sentences'].append(line['query'])
            entry['lines'].append((place, line))
        return entries

    def parse_entry(
        self, path: str | Path, video_id: str, entry: dict, flaws: list | None = None
    ) -> VideoAnnotation:
        """A video of `load_entries` with its usable sentences and their lines; no truth if weak."""
        timed = not self.weak and 'timestamps' in entry
        video = parse_video(path, video_id, entry, timed, flaws, not self.weak)
        lines = [entry['lines'][index] for index in video.sentence_index]
        if self.weak:
            lines = [(place, _without_truth(line)) for place, line in lines]
        return QueriedVideo(**vars(video), lines=lines)


def _without_truth(line: dict) -> dict:
    return {key: value for key, value in line.items() if key not in TRUTH}


def _check_query(where: str, line: dict, error: Refuse) -> None:
    """Refuse a line that is not about a video in words, or whose truth cannot be used."""
    for key in ('query', 'vid'):
        if not isinstance(line.get(key), str):
            raise error(f'{where} has {key}={line.get(key)!r}; expected a text')
    check_truth(where, line, error)
