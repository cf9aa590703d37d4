"""What a user calls from Python."""

__all__ = ['EXTRACTORS', 'EncodedVideo', 'GroundingInferencer', 'TubeGroundingInferencer']

_MODULES = dict(
    EXTRACTORS='extractors',
    EncodedVideo='encoded_video',
    GroundingInferencer='grounding_inferencer',
    TubeGroundingInferencer='tube_grounding_inferencer',
)


def __getattr__(name: str):
    """Import on demand: training needs none of these."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULES[name]}', __name__), name)
