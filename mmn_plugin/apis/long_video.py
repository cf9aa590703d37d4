"""How videos longer than those of training are looked at."""

from dataclasses import dataclass


@dataclass
class LongVideo:
    """The config's ``long_video``: windows as long as the videos of training.

    Between windows the contrastive score decides more than within a video: that space is trained
    to compare moments of different videos, the IoU space is not.

    Args:
        window (float, optional): Seconds of a window. Defaults to None: every video is one window.
        overlap (float): Share of a window that the next one sees again, at least 0 and below 1.
            Defaults to 0.75.
        longest (float, optional): Seconds up to which a video still is one window. Defaults to
            None: one and a half windows.
        score_power (float, optional): Weight of the contrastive score in a video of several
            windows. Defaults to None: as in the head.

    Raises:
        ValueError: If a number is out of its range.
    """

    window: float | None = None
    overlap: float = 0.75
    longest: float | None = None
    score_power: float | None = None

    def __post_init__(self):
        if self.window is not None and not self.window > 0:
            raise ValueError(
                f'long_video.window={self.window}: give seconds above 0, or None for '
                'one window over any video'
            )
        if not 0 <= self.overlap < 1:
            raise ValueError(
                f'long_video.overlap={self.overlap}: it must be at least 0 and below 1'
            )

    def window_of(self, duration: float) -> float | None:
        """Seconds of the windows of a video of some duration; None: it is looked at whole."""
        if self.window is None:
            return None
        longest = 1.5 * self.window if self.longest is None else self.longest
        return self.window if duration > longest else None
