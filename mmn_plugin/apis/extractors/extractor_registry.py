"""What a config can name by ``extractor`` and ``tracker``."""

from mmengine.registry import Registry

# See FeatureExtractor: from a video file to (T, D) features, one row per equal step of time.
EXTRACTORS = Registry('feature extractor', scope='mmaction')
# A callable from frames (F, 3, H, W) YUV to tubes.
TRACKERS = Registry('tracker', scope='mmaction')
# A callable from frames and tubes to {stream: [(rows, D) per tube]}, with ``size``.
TUBE_EXTRACTORS = Registry('tube feature extractor', scope='mmaction')
