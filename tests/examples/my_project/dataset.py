"""A dataset: annotations in a format of their own. Features and checks come from the base."""

import csv

from mmaction.registry import DATASETS

from mmn_plugin.datasets import TemporalGroundingDataset


@DATASETS.register_module()
class TableDataset(TemporalGroundingDataset):
    """A table of sentences: columns video, duration, start, end (seconds), sentence."""

    def load_entries(self) -> dict[str, dict]:
        """Entries of all videos, for the rules that all datasets have."""
        entries = {}
        with open(self.ann_file, encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                entry = entries.setdefault(
                    row['video'],
                    dict(duration=float(row['duration']), timestamps=[], sentences=[]),
                )
                entry['timestamps'].append([float(row['start']), float(row['end'])])
                entry['sentences'].append(row['sentence'])
        return entries
