"""Check what splits share."""

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmn_plugin.features.video import VIDEO_SUFFIXES

from .check_report import CheckReport


def check_splits(
    video_ids: Mapping[str, set[str]], report: CheckReport, training: str = 'train'
) -> None:
    """Look for videos in more than one split, and for ids that may be two of one video.

    Training on a video that evaluation uses is an error. Evaluation splits may share videos, as
    ActivityNet Captions' do (two sets of sentences for the same videos). Ids that differ in case,
    spaces or a video's suffix alone are a warning.

    Args:
        video_ids (Mapping[str, set[str]]): Split -> ids of its videos.
        report (CheckReport): Takes what is found.
        training (str): Name of the training split. Defaults to 'train'.
    """
    splits = list(video_ids)
    alike = {split: _alike(ids) for split, ids in video_ids.items()}
    for split, groups in alike.items():
        for group in groups.values():
            if len(group) > 1:
                report.add('warning', split, 'ids of one video?', _shown(group))
    for place, first in enumerate(splits):
        for second in splits[place + 1 :]:
            level = 'error' if training in (first, second) else 'info'
            for video_id in sorted(video_ids[first] & video_ids[second]):
                report.add(level, f'{first}, {second}', 'videos in both splits', video_id)
            for key in sorted(alike[first].keys() & alike[second].keys()):
                group = alike[first][key] | alike[second][key]
                if len(group) > 1 and not alike[first][key] & alike[second][key]:
                    report.add('warning', f'{first}, {second}', 'ids of one video?', _shown(group))


def _alike(video_ids: Iterable[str]) -> dict[str, set[str]]:
    """Ids by what is left of them without case, spaces and suffix."""
    groups: dict[str, set[str]] = {}
    for video_id in video_ids:
        key = ''.join(unicodedata.normalize('NFKC', video_id).casefold().split())
        if Path(key).suffix in VIDEO_SUFFIXES:
            key = key[: -len(Path(key).suffix)]
        groups.setdefault(key, set()).add(video_id)
    return groups


def _shown(video_ids: Iterable[str]) -> str:
    return ' and '.join(map(repr, sorted(video_ids)))
