"""The config that a checkpoint carries, read without running it."""

import ast
import re

from mmengine.config import Config

_SCOPES = ('mmaction', 'mmcv', 'mmengine', 'mmn_plugin')
_NAMES = dict(inf=float('inf'), nan=float('nan'))


def checkpoint_config(checkpoint: dict, path: str) -> Config:
    """The config that a model was trained with.

    MMEngine stores it as Python text. Here nothing of it is run: literals and ``dict(...)`` are all
    that is understood, and nothing is built by it but what a registry knows by name.

    Args:
        checkpoint (dict): A loaded checkpoint.
        path (str): Its file, for messages.

    Raises:
        ValueError: If it carries no config, or one that is more than plain data.
    """
    text = checkpoint.get('meta', {}).get('cfg')
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{path} carries no config: give the one that it was trained with')
    try:
        body = ast.parse(text).body
        values = {}
        for line in body:
            (target,) = line.targets
            values[target.id] = _value(line.value)
    except (SyntaxError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f'the config that {path} carries is more than plain data ({error}), and '
            'running it could run foreign code: give the config that it was trained '
            'with'
        ) from None
    config = Config(values)
    require_plain_types(config, path)
    return config


def require_plain_types(config: Config, path: str) -> None:
    """Refuse a foreign config whose parts are more than names in a registry.

    MMEngine would import whatever ``type='module.name'`` says, and call it.

    Args:
        config (Config): From a checkpoint or a folder.
        path (str): Where it lay, for the message.

    Raises:
        ValueError: Naming the entry.
    """
    for key, value in _entries(config._cfg_dict.to_dict()):
        known = (
            value in _SCOPES
            if key == '_scope_'
            else (isinstance(value, str) and re.fullmatch(r'\w+', value))
        )
        if not known:
            raise ValueError(
                f'the config that {path} carries asks for {key}={value!r}, which '
                'could import foreign code: give the config that it was trained with'
            )


def _entries(value):
    """All ``type`` and ``_scope_`` entries."""
    if isinstance(value, dict):
        for key, entry in value.items():
            if key in ('type', '_scope_'):
                yield key, entry
            yield from _entries(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _entries(entry)


def _value(node: ast.AST):
    """Value of a literal, in which ``dict(...)`` counts as one."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(entry) for entry in node.elts)
    if isinstance(node, ast.Dict):
        return _joined(zip(node.keys, node.values, strict=True))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
        and not node.args
    ):
        return _joined(
            (entry.arg and ast.Constant(entry.arg), entry.value) for entry in node.keywords
        )
    raise ValueError(f'it has {ast.unparse(node):.60}')


def _joined(entries) -> dict:
    result = {}
    for key, value in entries:
        if key is None:  # **{...}
            result.update(_value(value))
        else:
            result[_value(key)] = _value(value)
    return result
