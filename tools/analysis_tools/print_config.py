"""Print a config with everything that it inherits, after --cfg-options.

    python tools/analysis_tools/print_config.py mmn_tacos.py --cfg-options train_cfg.max_epochs=5

With --save-path it is also written to a file, from which the same run can be started.
"""

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.config import load_config
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import writable_file


def main() -> None:
    """Print, and write where asked."""
    parser = tool_parser(__doc__, config=True)
    text = 'also write it to this file (.py, .json or .yml)'
    parser.add_argument('--save-path', type=writable_file, help=text)
    args = parser.parse_args()
    with plain_errors():
        if args.save_path and args.save_path.suffix not in ('.py', '.json', '.yml', '.yaml'):
            raise InputError(f'--save-path writes .py, .json or .yml files, not {args.save_path}')
        config = load_config(args.config, args.cfg_options)
        print(config.pretty_text)
        if args.save_path:
            args.save_path.parent.mkdir(parents=True, exist_ok=True)
            config.dump(args.save_path)


if __name__ == '__main__':
    main()
