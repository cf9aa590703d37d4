"""What checks of a dataset find."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.structures.annotations import LONE_SURROGATE


@dataclass
class Finding:
    """A kind of fault in one split (or several), how often it occurs, and the first places.

    The level is ``'error'`` (training or evaluation would be wrong or end), ``'warning'`` (the
    dataset's own rules mend it) or ``'info'``. ``share`` is that of the split's sentences, where
    sentences are counted, else None.
    """

    level: str
    split: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    share: float | None = None


class CheckReport:
    """Counts per split, and findings by kind with their first offenders.

    Args:
        num_examples (int): Offenders that are kept by name for each kind of finding. Defaults to 3.

    Attributes:
        counts (dict[str, dict[str, int]]): Split -> name of a number -> the number.
        can_start (bool): Whether all files of annotations and features could be read.
        labels (dict[str, SplitLabels]): Split -> the labels that a person should look at.
        compared_by (str): What said which sentences mean the same.
    """

    STYLES = dict(error='bold red', warning='yellow', info='cyan')

    def __init__(self, num_examples: int = 3):
        self.num_examples = num_examples
        self.counts: dict[str, dict[str, int]] = defaultdict(Counter)
        self.can_start = True
        self.labels: dict = {}
        self.compared_by = ''
        self._findings: dict[tuple[str, str, str], Finding] = {}

    def add(
        self, level: str, split: str, what: str, example: str, total: int | None = None
    ) -> None:
        """Count one more offender of a kind: file, video, sentence, and what to do.

        ``total`` is the number of sentences of which it is a share.
        """
        finding = self._findings.setdefault((level, split, what), Finding(level, split, what))
        finding.count += 1
        finding.share = finding.count / total if total else None
        if len(finding.examples) < self.num_examples:
            finding.examples.append(_shown(example))

    def add_file(self, split: str, what: str, message: str) -> None:
        """Add a file without which no training starts; splits that share it share the finding."""
        self.can_start = False
        new = Finding('error', split, what, 1, [_shown(message)][: self.num_examples])
        finding = self._findings.setdefault(('error', message, what), new)
        if finding is not new:
            finding.split += f', {split}'

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
        columns = list(dict.fromkeys(name for row in self.counts.values() for name in row))
        counts = Table('split', title='Counts', title_justify='left')
        for name in columns:
            counts.add_column(name.replace('_', ' '), justify='right')
        for split, row in self.counts.items():
            counts.add_row(split, *(f'{row[name]:,}' if name in row else '' for name in columns))
        if columns:
            console.print(counts)
        table = Table('level', 'split', 'finding', 'count', title='Findings', show_lines=True)
        table.add_column('first offenders', overflow='fold')
        for finding in self.findings:
            more = finding.count - len(finding.examples)
            shown = [*finding.examples, f'and {more} more'] if more > 0 else finding.examples
            share = '' if finding.share is None else f' ({finding.share:.2%})'
            table.add_row(
                f'[{self.STYLES[finding.level]}]{finding.level}[/]',
                finding.split,
                escape(finding.what),
                f'{finding.count}{share}',
                escape('\n'.join(shown)),
            )
        if self._findings:
            console.print(table)
        if self.labels:
            console.print(f'Sentences were compared by {escape(self.compared_by)}.')
        if self.passed:
            console.print('[bold green]PASSED[/]: nothing stands against training')
        else:
            failing = 'training would be wrong' if self.can_start else 'no training could start'
            console.print(f'[bold red]FAILED[/]: {failing}')


def _shown(text: str) -> str:
    """A text such that every terminal can show it."""
    return LONE_SURROGATE.sub(lambda part: repr(part[0])[1:-1], text)
