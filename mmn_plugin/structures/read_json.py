"""JSON files of users."""

import json
from collections import Counter
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
        ValueError: Of the kind given, if it is not JSON, or an object has a key twice, of which
            JSON's rules would keep the last without a word.
    """
    if not path.is_file():
        raise FileNotFoundError(missing)
    repeated: list[tuple[dict, list[str]]] = []

    def to_dict(pairs: list[tuple[str, Any]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            repeated.append((found, [key for key, count in counts.items() if count > 1]))
        return found

    try:
        content = json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=to_dict)
    except (ValueError, RecursionError) as cause:
        raise error(f'{path} is not a JSON file: {cause}') from cause
    if repeated:
        found, keys = repeated[-1]  # the outermost, which nothing has replaced
        where = ', '.join(map(repr, _keys_to(content, found) or ()))
        named = ', '.join(map(repr, keys[:5])) + (f' and {len(keys) - 5} more' if keys[5:] else '')
        raise error(f'{path} has {named} twice{where and f", in {where}"}; one of them must go')
    return content


def _keys_to(content: Any, wanted: dict) -> list | None:
    """Keys and places that lead to an object; None: it is not there."""
    if content is wanted:
        return []
    pairs = (
        content.items()
        if isinstance(content, dict)
        else (enumerate(content) if isinstance(content, list) else ())
    )
    for key, value in pairs:
        rest = _keys_to(value, wanted)
        if rest is not None:
            return [key, *rest]
    return None
