"""What a check of a dataset found."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...structures.annotations import LONE_SURROGATE
from .finding import Finding


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
