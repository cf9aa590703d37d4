"""Which feature extractors a config can name."""

from mmengine.registry import Registry

from mmn_plugin.datasets.features import GridFeatureExtractor

# See FeatureExtractor: from a video file to (T, D) features, one row per equal step of time.
EXTRACTORS = Registry('feature extractor', scope='mmaction')
EXTRACTORS.register_module(module=GridFeatureExtractor)
