"""What is known and predicted about the tubes of one video."""

from .grounding_data_sample import GroundingDataSample


class TubeDataSample(GroundingDataSample):
    """A video's candidate tubes with all its sentences.

    A tube is an array (n, 5) float32 of frame, x1, y1, x2, y2 (pixels), one row per frame that has
    a box, frames rising. Tubes stay on the host, as arrays: what trains is targets made of them.

    Meta information: ``video_id`` (str), ``sentences`` (list of s strings), ``sentence_index``
    (list of s ints: the sentence's place in the file), ``tubes`` (list of T candidate tubes),
    ``tube_index`` (list of T ints: the tube's place in the file).

    - ``gt_instances.tubes``: list of s true tubes.
    - ``pred_instances.tubes``: list of s predicted tubes, each a span of a candidate;
      ``pred_instances.tube_index``: (s,) int64, the candidate's place in ``tubes``;
      ``pred_instances.scores``: (s,).
    """
