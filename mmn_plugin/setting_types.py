"""Types of a config's settings, compared with the annotations of the components that take them."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args

import mmaction.registry
from mmengine.config import Config
from mmengine.registry import Registry

from mmn_plugin.errors import ConfigError

from .files import nested

# What a setting of a plain type may be, and how that is called.
_PLAIN = {
    int: (Integral, 'a whole number'),
    float: (Real, 'a number'),
    bool: (bool, 'True or False'),
    str: (str, 'a text'),
    dict: (Mapping, 'a dict'),
    NoneType: (NoneType, 'None'),
}


def require_types(taker: Callable, settings: Mapping, where: str) -> None:
    """Make sure that settings have the types that a class or a function declares.

    Compared are those that are declared as numbers, texts, ``bool``, ``dict``, None, or as one of
    these; of others what takes them says more.

    Args:
        taker (Callable): What takes them as arguments.
        settings (Mapping): Values by name; names that it does not take are passed over.
        where (str): What leads to them in the config, for the message.

    Raises:
        ConfigError: Naming the first setting of another type, and the type that it must have.
    """
    for name, kinds in _declared(taker).items():
        if name in settings and not any(_is_one(settings[name], kind) for kind in kinds):
            words = ' or '.join(_PLAIN[kind][1] for kind in kinds)
            raise ConfigError(f'{where}.{name}={settings[name]!r}: it must be {words}')


def require_component_types(config: Config) -> None:
    """`require_types` of all components of this package that a config describes."""
    file, known = config.filename or 'the config', _components()
    for keys, part in nested(config._cfg_dict):
        if not isinstance(part, dict) or not (kind := part.get('type')):
            continue
        taker = known.get(kind.removeprefix('mmaction.')) if isinstance(kind, str) else kind
        if taker is not None and getattr(taker, '__module__', '').startswith('mmn_plugin.'):
            require_types(taker, part, f'{file}: {".".join(map(str, keys))}')


def _is_one(value: Any, kind: type) -> bool:
    # True is a number for Python alone
    return isinstance(value, _PLAIN[kind][0]) and (kind is bool or not isinstance(value, bool))


@cache
def _declared(taker: Callable) -> dict[str, tuple[type, ...]]:
    """Plain types of each argument that has no others."""
    found = {}
    for name, parameter in inspect.signature(taker).parameters.items():
        kinds = (declared := parameter.annotation,)
        if isinstance(declared, UnionType):
            kinds = get_args(declared)
        if all(isinstance(kind, type) and kind in _PLAIN for kind in kinds):
            found[name] = kinds
    return found


def _components() -> dict[str, Callable]:
    """Everything that is registered with MMAction2, by name."""
    registries = [one for one in vars(mmaction.registry).values() if isinstance(one, Registry)]
    return {name: kind for one in registries for name, kind in one.module_dict.items()}
