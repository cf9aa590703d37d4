"""The command ``mmn``: picks the command that is asked for and imports what that one needs."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module

import mmn_plugin
from mmn_plugin.cli.arguments import STDOUT, explicit
from mmn_plugin.errors import plain_errors
from mmn_plugin.files import write_atomically

COMMANDS = {
    'ground': 'find the moments, or tubes, of a video that sentences describe',
    'extract': 'write the features of videos to a file',
    'check': 'check the datasets of a config before training',
    'eval': 'score a file of predictions against annotations, without a model',
    'web': 'serve a page that answers questions about videos',
}
USAGE = (
    'usage: mmn COMMAND ...\n\n'
    + '\n'.join(f'  {name:<9}{text}' for name, text in COMMANDS.items())
    + '\n\n`mmn COMMAND --help` lists what a command takes; all take --json [FILE.json].\n'
    'Training and testing: tools/train.py and tools/test.py.'
)


def main(argv: Sequence[str]) -> int:
    """Run a command; the modules of this package that are named as commands define them.

    Such a module has ``parse_args(argv)``, and ``run(args, answer)``, which calls ``answer`` once
    with what ``--json`` writes, and returns the exit code.

    Args:
        argv (Sequence[str]): The command line.

    Returns:
        int: Exit code; 2 where there is no such command.
    """
    name, *rest = argv or ['--help']
    if name in ('-h', '--help', '--version'):
        print(USAGE if name != '--version' else mmn_plugin.__version__)
        return 0
    if name not in COMMANDS:
        print(f'Error: mmn has no command {name!r}: {", ".join(COMMANDS)}', file=sys.stderr)
        return 2
    with plain_errors():
        if name != 'eval':
            mmn_plugin.register_components()
        command = import_module(f'mmn_plugin.cli.{name}')
        args = command.parse_args(explicit(rest, '--json', STDOUT, r'.*\.json'))
        output = sys.stdout

        def answer(content) -> None:
            text = json.dumps(content, indent=1, default=str) + '\n'
            if args.json == STDOUT:
                output.write(text)
                output.flush()
            elif args.json:
                write_atomically(args.json, text)

        with redirect_stdout(sys.stderr) if args.json == STDOUT else nullcontext():
            return command.run(args, answer)
