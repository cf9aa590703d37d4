"""JSON files of users."""
import json
from pathlib import Path
from typing import Any


def read_json(path: Path, missing: str, error: type[ValueError]) -> Any:
    """Read a file.

    Args:
        path (Path): The file.
        missing (str): What to say where there is no such file.
        error (type[ValueError]): What to raise where it is not JSON.

    Returns:
        Any: Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Of the kind given, if it is not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(missing)
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as cause:
        raise error(f'{path} is not a JSON file: {cause}') from cause
