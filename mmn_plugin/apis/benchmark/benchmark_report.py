"""Figures of a benchmark as tables."""

from rich.table import Table

# Header, key of a row, and how to write the value; a column without a value is left out.
COLUMNS = (
    ('time', 'seconds', lambda value: f'{milliseconds(value)} ms'),
    ('spread', 'spread', lambda value: f'± {100 * value:.1f} %'),
    ('faster', 'ratio', lambda value: f'{value:.2f}x'),
    ('videos/s', 'videos_per_second', lambda value: f'{value:,.3g}'),
    ('sentences/s', 'sentences_per_second', lambda value: f'{value:,.0f}'),
    ('convolutions', 'encoder_flops_per_second', lambda value: f'{value / 1e9:,.0f} GFLOP/s'),
    ('of conv. peak', 'of_convolution_peak', lambda value: f'{100 * value:.0f} %'),
    ('of product peak', 'of_product_peak', lambda value: f'{100 * value:.0f} %'),
    ('peak memory', 'peak_mb', lambda value: f'{value:,.0f} MB'),
    ('per batch', 'seconds_per_batch', lambda value: f'{milliseconds(value)} ms'),
    ('waiting', 'waiting', lambda value: f'{100 * value:.1f} %'),
)
PEAK_COLUMNS = (
    ('time', 'seconds', COLUMNS[0][2]),
    ('spread', 'spread', COLUMNS[1][2]),
    ('faster', 'ratio', COLUMNS[2][2]),
    ('speed', 'flops_per_second', COLUMNS[5][2]),
)
# Parts of other phases are not counted again.
INNER = ('encoder backward',)


def milliseconds(seconds: float) -> str:
    """With three digits that mean something."""
    value = 1000 * seconds
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def tables(result: dict) -> list[Table]:
    """One table per group of rows, one of the machine, one of the phases."""
    groups = dict.fromkeys(row['group'] for row in result['rows'])
    made = [
        rows_table(group, [row for row in result['rows'] if row['group'] == group], COLUMNS)
        for group in groups
    ]
    if result['machine']:
        made.append(rows_table('machine, in the same rounds', result['machine'], PEAK_COLUMNS))
    if result['phases']:
        made.append(phases_table(result['phases']))
    return made


def rows_table(title: str, rows: list[dict], columns) -> Table:
    """Rows of one group."""
    shown = [column for column in columns if any(row.get(column[1]) for row in rows)]
    table = Table(title=title, title_justify='left')
    table.add_column('')
    for header, *_ in shown:
        table.add_column(header, justify='right')
    for row in rows:
        table.add_row(
            row['name'],
            *(write(row[key]) if row.get(key) is not None else '' for _, key, write in shown),
        )
    return table


def phases_table(phases: dict[str, dict[str, float]]) -> Table:
    """Share of each phase; ``other`` is what none of them covers."""
    names = dict.fromkeys(
        name for seconds in phases.values() for name in seconds if name != 'total'
    )
    table = Table(
        title='share of a step (in steps of their own, phases waited for)', title_justify='left'
    )
    table.add_column('')
    for name in [*names, 'other']:
        table.add_column(f'({name})' if name in INNER else name, justify='right')
    for label, seconds in phases.items():
        covered = sum(value for name, value in seconds.items() if name not in (*INNER, 'total'))
        shares = [seconds.get(name, 0.0) for name in names] + [seconds['total'] - covered]
        table.add_row(label, *(f'{100 * value / seconds["total"]:.1f} %' for value in shares))
    return table
