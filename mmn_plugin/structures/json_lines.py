"""Files of one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mmn_plugin.errors import MissingFileError

LARGEST = torch.finfo(torch.float32).max


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that float32 can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST  # an int may be too large for a float, and NaN fails


def read_json_lines(path: str | Path, error: type[ValueError]) -> Iterator[tuple[str, Any]]:
    """Place, for messages, and content of each line of a file; empty lines are left out.

    Args:
        path (str | Path): The file.
        error (type[ValueError]): What to raise where a line is not JSON.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Of the kind given, if a line is not JSON; the message has its number.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist')
    for number, line in enumerate(path.read_bytes().removeprefix(b'\xef\xbb\xbf').split(b'\n'), 1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as cause:
            raise error(f'{where} is not JSON: {cause}') from cause
        yield where, content
