"""A detector with a tracker for Shapes."""

import numpy as np

from mmn_plugin.apis.extractors.extractor_registry import TRACKERS

from ..features.grid_feature_extractor import chroma_tables


@TRACKERS.register_module()
class ShapesTracker:
    """Finds tubes of coloured things in frames: blobs of one hue, joined over time by overlap.

    Simple, and for Shapes alone: a thing is what is saturated and of one hue. It takes the place of
    a real detector and tracker, whose tubes `read_tracks` reads.

    Args:
        threshold (float): Saturation, in [0, 1], from which a pixel is coloured. Defaults to 0.5.
        min_area (int): Pixels of the smallest blob. Defaults to 30.
        min_iou (float): Overlap with its last box for which a blob goes on with a tube. Defaults
            to 0.2.
        max_gap (int): Frames that a tube survives without a blob, as while a thing is dark.
            Defaults to 8.
        min_boxes (int): Boxes of the shortest tube. Defaults to 8.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        min_area: int = 30,
        min_iou: float = 0.2,
        max_gap: int = 8,
        min_boxes: int = 8,
    ):
        self.threshold = threshold
        self.min_area = min_area
        self.min_iou = min_iou
        self.max_gap = max_gap
        self.min_boxes = min_boxes
        hues, self._saturation = chroma_tables()
        self._hue = hues.argmax(1)

    def __call__(self, frames: np.ndarray) -> list[np.ndarray]:
        """Track.

        Args:
            frames (np.ndarray): (F, 3, H, W) uint8, YUV, as `VideoReader` gives them.

        Returns:
            list[np.ndarray]: (n, 5) float32 frame, x1, y1, x2, y2 each.
        """
        shade = (frames[:, 1] >> 2).astype(np.int16) * 64 + (frames[:, 2] >> 2)
        hue = np.where(self._saturation[shade] >= self.threshold, self._hue[shade], -1)
        tubes: list[list[tuple]] = []
        owners: list[int] = []  # hue of each tube
        for time, picture in enumerate(hue):
            for colour in np.unique(picture[picture >= 0]):
                self._extend(tubes, owners, time, int(colour), self._blobs(picture == colour))
        return [np.array(rows, np.float32) for rows in tubes if len(rows) >= self.min_boxes]

    def _blobs(self, mask: np.ndarray) -> np.ndarray:
        """Boxes (b, 4) of the connected pieces of a mask, the largest first."""
        import cv2

        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        stats = stats[1:][np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind='stable')]
        x, y, width, height, area = stats.T
        boxes = np.stack([x, y, x + width - 1, y + height - 1], 1)
        return boxes[area >= self.min_area]

    def _extend(self, tubes, owners, time: int, colour: int, boxes: np.ndarray) -> None:
        """Give each blob to the tube of its hue that it overlaps most, or begin one."""
        from mmn_plugin.structures import box_iou

        waiting = [
            i
            for i, rows in enumerate(tubes)
            if owners[i] == colour and rows[-1][0] < time and time - rows[-1][0] <= self.max_gap
        ]
        for box in boxes:
            overlap = [float(box_iou(np.array(tubes[i][-1][1:]), box)) for i in waiting]
            best = int(np.argmax(overlap)) if overlap else -1
            if best >= 0 and overlap[best] >= self.min_iou:
                tubes[waiting.pop(best)].append((time, *box.tolist()))
            else:
                tubes.append([(time, *box.tolist())])
                owners.append(colour)
