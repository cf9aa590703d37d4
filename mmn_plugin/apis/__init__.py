"""What a user calls from Python."""

__all__ = ['EXTRACTORS', 'GroundingInferencer', 'TubeGroundingInferencer']

_MODULES = dict(
    EXTRACTORS='mmn_plugin.features',
    GroundingInferencer='mmn_plugin.apis.grounding_inferencer',
    TubeGroundingInferencer='mmn_plugin.apis.tube_inferencer',
)


def __getattr__(name: str):
    """Import on demand: training needs none of these."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_MODULES[name]), name)
