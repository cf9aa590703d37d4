"""Command lines: the command ``mmn``, and what its commands and the scripts of tools/ share.

Nothing heavy is imported before it is used.
"""

import argparse
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import mmn_plugin
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import writable_file, writable_folder, write_atomically

STDOUT = '-'  # as the file of --json
COMMANDS = {
    'ground': 'find the moments, or tubes, of a video that sentences describe',
    'extract': 'write the features of videos to a file',
    'check': 'check the datasets of a config before training',
    'eval': 'score a file of predictions against annotations, without a model',
    'library': 'embed videos once, for searches',
    'search': 'find the moments of a library that sentences describe: which video, and when',
    'web': 'serve a page that answers questions about videos',
}
MODULES = dict(search='library')  # a module that has not the name of its command
USAGE = (
    'usage: mmn COMMAND ...\n\n'
    + '\n'.join(f'  {name:<9}{text}' for name, text in COMMANDS.items())
    + '\n\n`mmn COMMAND --help` lists what a command takes; all take --json [FILE.json].\n'
    'Training and testing: tools/train.py and tools/test.py.'
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage.

    Args:
        command (str): Such as ``ground``.
        description (str): Docstring of the function that runs it, or of its module.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            f'mmn {command}',
            description=inspect.cleandoc(description),
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
        option (str): Such as ``--json``, which alone means ``default``.
        default (str): Such as ``-``.
        value (str): Regular expression of what may be its value.
    """
    return [
        f'{option}={default}' if word == option and not re.fullmatch(value, after) else word
        for word, after in zip(argv, [*argv, ''][1:], strict=True)
    ]


def whole_number(text: str, least: int = 0) -> int:
    """A number of things as ``type=`` of an argument.

    Raises:
        argparse.ArgumentTypeError: If it is none, or below ``least``; argparse names the argument.
    """
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of {least} or more')
    return value


count = partial(whole_number, least=1)


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


def tool_parser(description: str, config: bool = False) -> argparse.ArgumentParser:
    """A parser of a script below tools/.

    Args:
        description (str): Its docstring.
        config (bool): Whether it takes a config, and ``--cfg-options``. Defaults to False.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if config:
        parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
        add_config_options(parser)
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')


def add_model_root(parser: argparse.ArgumentParser) -> None:
    """Add ``--model-root``."""
    parser.add_argument(
        '--model-root',
        metavar='FOLDER',
        help='where the models of Hugging Face are that a config names: the folder of one, or a '
        'folder with ORG/NAME of each (default: the Hugging Face cache and hub)',
    )


def add_model(
    parser: argparse.ArgumentParser, default: str = "the checkpoint's own", top_n: bool = True
) -> None:
    """Add what names a model and says how it is used: ``--model`` or ``--config``,
    ``--model-root``, ``--cfg-options``, ``--device``, and unless told otherwise ``--top-n``.
    """
    parser.add_argument(
        '--model',
        '--config',
        dest='config',
        metavar='NAME',
        help='a name of model-index.yml, such as zero_shot_siglip2, or a config (default: '
        f'{default})',
    )
    add_model_root(parser)
    add_config_options(parser)
    add_device(parser)
    if top_n:
        text = 'moments per sentence (default: 5)'
        parser.add_argument('--top-n', type=count, default=5, help=text)


def chosen_config(args: argparse.Namespace):
    """``--model`` of `add_model`, read where ``--cfg-options`` change it.

    Raises:
        InputError: If there are options for a config that is not given.
    """
    if not args.cfg_options:
        return args.config
    if not args.config:
        raise InputError('--cfg-options needs --model, or --config')
    from mmn_plugin.apis.pretrained import named_models
    from mmn_plugin.config import load_config
    from mmn_plugin.files import package_data_root

    entry = named_models().get(args.config.lower())
    path = package_data_root() / entry['Config'] if entry else args.config
    return load_config(path, args.cfg_options)


def run_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every script that runs a config; see `run_command`."""
    parser = tool_parser(description, config=True)
    add = parser.add_argument
    add('--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)')
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add('--local_rank', '--local-rank', type=int, default=0)
    return parser


def explicit_amp(argv: Sequence[str]) -> list[str]:
    """A command line in which a bare ``--amp`` does not swallow the config that follows it."""
    return explicit(argv, '--amp', 'auto', 'bf16|fp16')


def run_command(
    args: argparse.Namespace,
    merge: Callable[..., None],
    action: Callable[..., object],
) -> None:
    """Build the Runner from the command line, and let it do something; ends the process if that
    fails or is preempted, and in a distributed run.

    Args:
        args (argparse.Namespace): From a `run_parser`.
        merge (Callable): Writes the command's own arguments into the config: gets config and args.
        action (Callable): What the Runner shall do, such as ``Runner.train``.
    """
    from mmn_plugin.config import load_config
    from mmn_plugin.engine import Preempted, build_runner, check_weights
    from mmn_plugin.engine.dist import end_distributed, require_launcher

    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with plain_errors():
        require_launcher(args.launcher)
        doubts: list[str] = []
        config = load_config(args.config, args.cfg_options, warn=doubts.append)
        config.launcher = args.launcher
        if args.work_dir or not config.get('work_dir'):
            config.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
        writable_folder(config.work_dir)
        merge(config, args)
        check_weights(config)
        runner = build_runner(config, doubts)
        try:
            action(runner)
        except Preempted as stop:  # its reason is in the log
            end_distributed(runner, stop.code)
            raise
    end_distributed(runner)


def main(argv: Sequence[str]) -> int:
    """Run a command of the module of its name, or that `MODULES` names.

    A command is a ``parse_NAME(argv)``, and a ``run_NAME(args, answer)``, which calls ``answer``
    once with what ``--json`` writes, and returns the exit code: 2 where there is no such command.
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
        module = import_module(f'mmn_plugin.cli.{MODULES.get(name, name)}')
        args = getattr(module, f'parse_{name}')(explicit(rest, '--json', STDOUT, r'.*\.json'))
        output = sys.stdout

        def answer(content) -> None:
            text = json.dumps(content, indent=1, default=str) + '\n'
            if args.json == STDOUT:
                output.write(text)
                output.flush()
            elif args.json:
                write_atomically(args.json, text)

        with redirect_stdout(sys.stderr) if args.json == STDOUT else nullcontext():
            return getattr(module, f'run_{name}')(args, answer)


def warn_of_unknown_words(model, sentences: Sequence[str]) -> None:
    """Say which words of sentences a localizer was not trained with: it looks for the others."""
    from mmn_plugin.config import print_warning

    tokenizer = model.data_preprocessor.tokenizer  # None where a tower reads the sentences
    for sentence in sentences if tokenizer else ():
        if words := tokenizer.unknown_words(sentence):
            print_warning(
                f'the model does not know {", ".join(map(repr, words))} of the sentence '
                f'{sentence!r}, and looks for the rest of it'
            )
