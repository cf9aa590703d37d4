"""Check what splits share."""
from collections.abc import Mapping

from .check_report import CheckReport


def check_splits(video_ids: Mapping[str, set[str]], report: CheckReport,
                 training: str = 'train') -> None:
    """Look for videos in more than one split.

    Training on a video that evaluation uses is an error. Evaluation splits may share videos, as
    ActivityNet Captions' do (two sets of sentences for the same videos).

    Args:
        video_ids (Mapping[str, set[str]]): Split -> ids of its videos.
        report (CheckReport): Takes what is found.
        training (str): Name of the training split. Defaults to 'train'.
    """
    splits = list(video_ids)
    for place, first in enumerate(splits):
        for second in splits[place + 1:]:
            level = 'error' if training in (first, second) else 'info'
            for video_id in sorted(video_ids[first] & video_ids[second]):
                report.add(level, f'{first}, {second}', 'videos in both splits', video_id)
