"""Pictures: timelines of a video's sentences, moment maps, training curves.

matplotlib is imported when the first picture is drawn, and never through pyplot, so that a
notebook's or a server's own figures are left alone.
"""

from .visualizer import GroundingVisualizer, draw_timelines, timeline_files

__all__ = ['GroundingVisualizer', 'draw_timelines', 'timeline_files']
