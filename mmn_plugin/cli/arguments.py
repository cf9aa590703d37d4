"""Arguments that several commands take; nothing heavy is imported before one is used."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from mmn_plugin.files import writable_file

STDOUT = '-'  # as the file of --json


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage.

    Args:
        command (str): Such as ``ground``.
        description (str): Docstring of the command's module.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            f'mmn {command}',
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument(
            '--json',
            nargs='?',
            const=STDOUT,
            metavar='FILE.json',
            type=lambda text: text if text == STDOUT else writable_file(text),
            help='write the answer as JSON to a file; without a name to the standard output, and '
            'nothing else there',
        )

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f'Error: {message} (`{self.prog} --help` lists what it takes)\n')


def explicit(argv: Sequence[str], option: str, default: str, value: str) -> list[str]:
    """A command line in which a bare option does not swallow what follows it.

    Args:
        argv (Sequence[str]): The command line.
        option (str): Such as ``--json``.
        default (str): What the bare option means.
        value (str): Regular expression of what may be its value.
    """
    return [
        f'{option}={default}' if word == option and not re.fullmatch(value, after) else word
        for word, after in zip(argv, [*argv[1:], ''], strict=True)
    ]


def whole_number(text: str) -> int:
    """A number of things, 0 or more, as ``type=`` of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is none; argparse names the argument.
    """
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of 0 or more')
    return value


class _ConfigOptions(argparse.Action):
    """MMEngine's `DictAction`, whose mistakes are errors of the argument."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction

        for word in values:
            if not word.partition('=')[0] or '=' not in word:
                raise argparse.ArgumentError(self, f'{word!r} is not key=value')
        try:
            DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise argparse.ArgumentError(self, f'{" ".join(values)}: {error}') from None


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options key=value ...``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ConfigOptions,
        help='values that replace those of the config: key=value, key="[a,b]", a.b.c=value',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
