"""Compare this package with figures that the published code produced.

    python tools/analysis_tools/verify_reference.py golden/*.npz [--vocab FILE] [--device cuda:1]

One row per quantity, with the largest absolute and relative difference and a verdict; a quantity of
which a file holds nothing is skipped. Exit code 1 if any row failed or a file could not be checked.
Bounds are the same on every device, and float32 is float32: TF32 is off.
"""

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from reference.golden_file import GoldenFile, Report, Row
from reference.model import check_model
from reference.ranking import check_evaluation
from reference.tubes import check_tubes
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mmn_plugin  # noqa: F401
from mmn_plugin.config import require_device, set_tf32
from mmn_plugin.errors import MissingFileError, plain_errors
from mmn_plugin.files import writable_file, write_json

VOCABULARY = 'vocab_small.txt'


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('files', nargs='+', type=Path, metavar='FILE.npz')
    parser.add_argument(
        '--vocab', type=Path, help=f'WordPiece vocabulary (default: {VOCABULARY} beside each file)'
    )
    parser.add_argument(
        '--conv-mode',
        choices=('dense', 'sparse', 'strips'),
        default='dense',
        help='how the moment encoder computes (default: dense)',
    )
    text = 'further settings of the neck, such as memory_format=channels_last'
    parser.add_argument('--neck', action=DictAction, default={}, metavar='KEY=VALUE', help=text)
    parser.add_argument('--device', default='cpu', help='such as cuda or cuda:1 (default: cpu)')
    parser.add_argument('--json', type=writable_file, help='also write all rows to this file')
    return parser.parse_args()


def check(path: Path, vocabulary: Path | None, neck: dict, device: str) -> Report:
    """All comparisons of one file.

    Raises:
        ValueError: If the file is no golden file, or an array is absent or damaged.
        KeyError: If a weight is absent or unknown.
        RuntimeError: If a weight has another shape than the file's settings say.
        FileNotFoundError: If the file, or its vocabulary, does not exist.
    """
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist')
    golden = GoldenFile(path)
    if not golden.is_model:
        return check_evaluation(golden, device)
    vocabulary = vocabulary or path.with_name(VOCABULARY)
    if not vocabulary.is_file():
        raise MissingFileError(
            f'{vocabulary} does not exist; give the vocabulary that {path} was '
            'made with: --vocab FILE'
        )
    check_file = check_tubes if golden.is_tubes else check_model
    return check_file(golden, vocabulary, neck, device)


def show(path: Path, report: Report, console: Console) -> None:
    """Print one file's table."""
    table = Table(title=str(path), title_justify='left')
    for name in ('quantity', 'max abs', 'max rel', 'bound', 'verdict', 'note'):
        table.add_column(name, justify='right' if 'max' in name or name == 'bound' else 'left')
    for row in report.rows:
        verdict = 'ok' if row.passed else '[red]FAILED[/red]'
        table.add_row(
            row.quantity,
            f'{row.max_abs:.1e}',
            f'{row.max_rel:.1e}',
            f'{row.bound:.0e}' if row.bound else 'equal',
            'skipped' if row.skipped else verdict,
            escape(row.note),
        )
    console.print(table)


def as_json(row: Row) -> dict:
    """A row for the JSON file, with null for what is infinite or was not compared."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(row).items()
    }


def main() -> int:
    """Check all files; the exit code is 1 if any failed."""
    args = parse_args()
    with plain_errors():
        require_device(args.device)
    set_tf32(False)
    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel('WARNING')  # not a line per parameter
    console = Console(width=None if sys.stdout.isatty() else 120)
    failed, rows, neck = [], {}, dict(args.neck, conv_mode=args.conv_mode)
    for path in args.files:
        try:
            report = check(path, args.vocab, neck, args.device)
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            text = error.args[0] if isinstance(error, KeyError) else error
            text = ' '.join(str(text).split()) or type(error).__name__
            text = text if str(path) in text else f'{path}: {text}'
            console.print(f'[red]{escape(text)}[/red]', soft_wrap=True)
            failed.append(path)
            continue
        show(path, report, console)
        rows[path.name] = [as_json(row) for row in report.rows]
        if not report.passed:
            failed.append(path)
    if args.json:
        write_json(rows, args.json)
    skipped = sum(row['skipped'] for file in rows.values() for row in file)
    verdict = f'FAILED: {", ".join(map(str, failed))}' if failed else 'all agree'
    note = f' ({skipped} quantities skipped)' if skipped else ''
    console.print(f'{len(args.files)} files: {escape(verdict)}{note}', soft_wrap=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
