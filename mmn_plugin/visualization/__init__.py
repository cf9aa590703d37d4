"""Pictures: timelines of a video's sentences, moment maps, training curves.

matplotlib is imported when the first picture is drawn, and never through pyplot, so that a
notebook's or a server's own figures are left alone.
"""

from mmn_plugin.features import sample_frames

from .grounding_visualizer import GroundingVisualizer
from .score_curve import score_curve, span_curve

__all__ = ['GroundingVisualizer', 'sample_frames', 'score_curve', 'span_curve']
