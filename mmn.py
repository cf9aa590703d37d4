"""The console command ``mmn``, or ``python -m mmn``; `mmn_plugin.cli.main` is what it does."""

import os
import sys


def main() -> None:
    """Import on demand, which other processes of a command do not inherit, and run the command."""
    if 'mmn_plugin' not in sys.modules:
        os.environ['MMN_ON_DEMAND'] = '1'  # the package takes it out again
    from mmn_plugin.cli.main import main

    sys.exit(main(sys.argv[1:]))


if __name__ == '__main__':
    main()
