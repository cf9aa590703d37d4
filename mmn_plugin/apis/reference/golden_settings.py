"""Settings that a golden file's figures were made with."""

from pathlib import Path

from .golden_file_error import GoldenFileError


class GoldenSettings(dict):
    """A dict whose absent keys are named together with their file.

    Args:
        settings (dict): Content.
        path (Path): The file.
    """

    def __init__(self, settings: dict, path: Path):
        super().__init__(settings)
        self.path = path

    def __missing__(self, key: str):
        raise GoldenFileError(f'{self.path}: config_json has no setting {key!r}')
