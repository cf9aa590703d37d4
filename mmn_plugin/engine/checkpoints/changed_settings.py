"""Where the config of a resumed run differs from the one that its checkpoint was trained with."""

import ast
from collections.abc import Iterator

_OF_THE_START = ('work_dir', 'resume', 'load_from', 'launcher', 'experiment_name')
# A checkpoint brings the optimiser's and the schedulers' state, of which these are a part.
_IN_THE_CHECKPOINT = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg.',
    'param_scheduler',
    'auto_scale_lr',
    'randomness.seed',
)
_ABSENT = 'not set'
_LONGEST = 60  # characters of a value


def changed_settings(before: str, now: str) -> list[str]:
    """Name every setting that differs between two configs.

    The configs are compared as text and never run.

    Args:
        before (str): Config of the checkpoint, as MMEngine stores it (``pretty_text``).
        now (str): Config of the run that resumes it.

    Returns:
        list[str]: For each setting both values, and which of the two counts; empty also where one
        of the configs cannot be read.
    """
    try:
        first, second = (dict(_settings(text)) for text in (before, now))
    except (SyntaxError, ValueError):
        return []
    names = [*second, *(name for name in first if name not in second)]
    changes = []
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in (first, second)]
        if values[0] != values[1] and name.partition('.')[0] not in _OF_THE_START:
            kept = name.startswith(_IN_THE_CHECKPOINT) and not name.endswith('.type')
            old, new = (
                value if len(value) <= _LONGEST else f'{value[:_LONGEST]}…' for value in values
            )
            changes.append(
                f'{name}: {old} in the checkpoint, {new} in this config; '
                f'{"the checkpoint" if kept else "this config"} counts'
            )
    return changes


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Dotted names and values, as source text, of a config's settings."""
    for line in ast.parse(text).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            yield from _leaves(line.targets[0].id, line.value)


def _leaves(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        parts = [(entry.arg, entry.value) for entry in node.keywords]
    elif isinstance(node, ast.Dict):
        parts = [
            (key and str(ast.literal_eval(key)), value)
            for key, value in zip(node.keys, node.values, strict=True)
        ]
    elif isinstance(node, ast.List | ast.Tuple) and any(
        isinstance(entry, ast.Call | ast.Dict) for entry in node.elts
    ):
        parts = [(str(i), entry) for i, entry in enumerate(node.elts)]
    else:
        parts = []
    for key, value in parts:
        yield from _leaves(f'{name}.{key}' if key else name, value)  # **dict has no key
    if not parts:
        yield name, ast.unparse(node)
