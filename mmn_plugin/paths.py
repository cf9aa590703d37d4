"""Where the configs and tools that ship with the package lie."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def package_data_root() -> Path:
    """Folder that holds ``configs/`` and ``tools/``.

    Returns:
        Path: ``mmn_plugin/.mim`` of an installed package (the layout that ``mim`` expects); in a
        checkout or after ``pip install -e .`` the root of the checkout.
    """
    installed = _PACKAGE / '.mim'
    return installed if installed.is_dir() else _PACKAGE.parent


def config_root() -> Path:
    """Folder of the configs: what ``mmn_plugin::NAME.py`` is resolved against."""
    return package_data_root() / 'configs'


def tool_root() -> Path:
    """Folder of the command-line tools."""
    return package_data_root() / 'tools'


def find_config(name: str) -> Path:
    """Path of one of this package's configs.

    Args:
        name (str): path below ``configs/``, e.g. ``mmn_tacos.py`` or ``_base_/default_runtime.py``.

    Returns:
        Path: the file.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    path = config_root() / name
    if path.is_file():
        return path
    known = ', '.join(sorted(p.name for p in config_root().glob('*.py')))
    raise FileNotFoundError(
        f'mmn_plugin has no config {name!r} in {config_root()}; there are: {known or "none"}'
    )
