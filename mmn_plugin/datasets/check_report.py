"""What checks of a dataset find: counts and findings, and videos that splits share."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.features import VIDEO_SUFFIXES
from mmn_plugin.structures.annotations import LONE_SURROGATE


@dataclass
class Finding:
    """A kind of fault in one split, with how often it occurs and the first places.

    Attributes:
        level (str): ``'error'`` (training or evaluation would be wrong or end), ``'warning'`` (the
            dataset's own rules mend it) or ``'info'``.
        split (str): Split or splits it was found in.
        what (str): The fault in a few words.
        count (int): How often.
        examples (list[str]): The first places: file, video, sentence.
    """

    level: str
    split: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class CheckReport:
    """Counts per split, and findings by kind with their first offenders.

    Args:
        num_examples (int): Offenders that are kept by name for each kind of finding. Defaults to 3.
    """

    STYLES = dict(error='bold red', warning='yellow', info='cyan')

    def __init__(self, num_examples: int = 3):
        self.num_examples = num_examples
        self.counts: dict[str, dict[str, object]] = {}
        self._findings: dict[tuple[str, str, str], Finding] = {}

    def add(self, level: str, split: str, what: str, example: str) -> None:
        """Count one more offender of a kind.

        Args:
            level (str): ``'error'``, ``'warning'`` or ``'info'``.
            split (str): Split it is in.
            what (str): Kind of finding.
            example (str): The offender: file, video, sentence, and what to do.
        """
        finding = self._findings.setdefault((level, split, what), Finding(level, split, what))
        finding.count += 1
        if len(finding.examples) < self.num_examples:  # such that every terminal can show it
            finding.examples.append(LONE_SURROGATE.sub(lambda part: repr(part[0])[1:-1], example))

    def count(self, split: str, **counts: int) -> None:
        """Add to numbers of a split, for the table."""
        row = self.counts.setdefault(split, {})
        for name, number in counts.items():
            row[name] = row.get(name, 0) + number

    def note(self, split: str, **facts: object) -> None:
        """Set facts about a split, for the table."""
        self.counts.setdefault(split, {}).update(facts)

    @property
    def findings(self) -> list[Finding]:
        """All findings, errors first."""
        order = list(self.STYLES)
        return sorted(self._findings.values(), key=lambda finding: order.index(finding.level))

    @property
    def passed(self) -> bool:
        """Whether nothing stands against training."""
        return not any(finding.level == 'error' for finding in self._findings.values())

    def render(self, console: Console) -> None:
        """Print the tables and the verdict."""
        console.print(self._counts_table())
        if self._findings:
            table = Table(title='Findings', title_justify='left', show_lines=True)
            for column, options in (
                ('level', {}),
                ('split', {}),
                ('finding', {}),
                ('count', dict(justify='right')),
                ('first offenders', dict(overflow='fold')),
            ):
                table.add_column(column, **options)
            for finding in self.findings:
                more = finding.count - len(finding.examples)
                shown = [*finding.examples, f'and {more} more'] if more > 0 else finding.examples
                table.add_row(
                    f'[{self.STYLES[finding.level]}]{finding.level}[/]',
                    finding.split,
                    escape(finding.what),
                    str(finding.count),
                    escape('\n'.join(shown)),
                )
            console.print(table)
        errors = sum(finding.level == 'error' for finding in self._findings.values())
        console.print(
            '[bold green]PASSED[/]: nothing stands against training'
            if self.passed
            else f'[bold red]FAILED[/]: {errors} kind(s) of error; training would be wrong'
        )

    def _counts_table(self) -> Table:
        columns = list(dict.fromkeys(name for row in self.counts.values() for name in row))
        table = Table(title='Counts', title_justify='left')
        table.add_column('split')
        for name in columns:
            table.add_column(name.replace('_', ' '), justify='right')
        for split, row in self.counts.items():
            cells = (row.get(name, '') for name in columns)
            table.add_row(split, *(f'{c:,}' if isinstance(c, int) else str(c) for c in cells))
        return table


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
