"""The extractor that belongs to a model."""

from torch import nn

from mmn_plugin.datasets.features import FeatureExtractor
from mmn_plugin.datasets.features.fingerprint import require_same_extractor

from .build_extractor import build_extractor


def matching_extractor(
    settings: dict, model: nn.Module, device: str | None = None
) -> FeatureExtractor:
    """Build an extractor and compare it with the one that made the features of a model's training.

    Args:
        settings (dict): What `EXTRACTORS` builds.
        model (nn.Module): With ``extractor_fingerprints`` and ``loaded_from``, as `load_model`
            leaves them; without these everything passes.
        device (str, optional): Where the extractor's network runs. Defaults to None: the
            accelerator if there is one.

    Raises:
        ValueError: If they do not belong together; it names both, and what differs.
    """
    extractor = build_extractor(settings, device)
    theirs = getattr(model, 'extractor_fingerprints', None)
    ours = [getattr(extractor, 'fingerprint', None)] if theirs else [None]
    require_same_extractor(
        theirs,
        ours,
        str(getattr(model, 'loaded_from', 'the checkpoint')),
        [f"the config's extractor ({settings['type']})"],
    )
    return extractor
