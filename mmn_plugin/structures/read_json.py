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
    repeated: list[tuple[dict, str]] = []

    def to_dict(pairs: list[tuple[str, Any]]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            repeated.append((found, key))
        return found

    try:
        content = json.loads(path.read_text(encoding='utf-8'), object_pairs_hook=to_dict)
    except (ValueError, RecursionError) as cause:
        raise error(f'{path} is not a JSON file: {cause}') from cause
    if repeated:
        found, key = repeated[-1]  # the outermost, which nothing has replaced
        where = ', '.join(map(repr, _keys_to(content, found) or ()))
        raise error(f'{path} has {key!r} twice{where and f", in {where}"}; one of them must go')
    return content


def _keys_to(content: Any, wanted: dict) -> list | None:
    """Keys and places that lead to an object; None: it is not there."""
    if content is wanted:
        return []
    pairs = content.items() if isinstance(content, dict) else (
        enumerate(content) if isinstance(content, list) else ())
    for key, value in pairs:
        rest = _keys_to(value, wanted)
        if rest is not None:
            return [key, *rest]
    return None
