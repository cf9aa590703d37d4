"""A dataset: annotations in a format of their own. Features and checks come from the base."""

import csv

from mmaction.registry import DATASETS

from mmn_plugin.datasets import TemporalGroundingDataset
from mmn_plugin.structures.annotations import VideoAnnotation, parse_video


@DATASETS.register_module()
class TableDataset(TemporalGroundingDataset):
    """A table of sentences: columns video, duration, start, end (seconds), sentence."""

    def read_videos(self) -> list[VideoAnnotation]:
        """Usable sentences by video, under the rules that all datasets have."""
        entries = {}
        with open(self.ann_file, encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                entry = entries.setdefault(
                    row['video'],
                    dict(duration=float(row['duration']), timestamps=[], sentences=[]),
                )
                entry['timestamps'].append([float(row['start']), float(row['end'])])
                entry['sentences'].append(row['sentence'])
        videos = [parse_video(self.ann_file, name, entry) for name, entry in entries.items()]
        return [video for video in videos if video.sentences]
