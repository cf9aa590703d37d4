"""An evaluation's table: its rows, and what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table


@dataclass
class SummaryRow:
    """Figures of one group of sentences.

    Attributes:
        name (str): The group; empty for all sentences.
        num_sentences (int): Its size.
        figures (dict[str, float]): ``R1@0.5`` and so on, ``R1_mean`` (over the thresholds) and
            ``mIoU``, in percent.
    """

    name: str
    num_sentences: int
    figures: dict[str, float]


def flat_metrics(rows: Sequence[SummaryRow]) -> dict[str, float]:
    """Rows as one dict: ``R1@0.5`` of all sentences, ``<group>/R1@0.5`` of the others."""
    metrics = {}
    for row in rows:
        lead = f'{row.name}/' if row.name else ''
        metrics |= {f'{lead}{name}': value for name, value in row.figures.items()}
        if row.name != 'chance':
            # a float, because MMEngine writes an int to its log as null
            metrics[f'{lead}num_sentences'] = float(row.num_sentences)
    return metrics


def format_table(rows: Sequence[SummaryRow]) -> str:
    """Rows as a table in plain text, in percent."""
    table = Table(box=SIMPLE)
    table.add_column('sentences')
    for name in ('number', *rows[0].figures):
        table.add_column(name, justify='right', no_wrap=True)
    for row in rows:
        figures = [f'{value:.2f}' for value in row.figures.values()]
        table.add_row(row.name or 'all', str(row.num_sentences), *figures)
    console = Console(file=StringIO(), width=40 + 11 * len(rows[0].figures), color_system=None)
    console.print(table)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines() if line.strip())
