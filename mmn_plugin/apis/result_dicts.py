"""Predictions as plain data."""

from mmn_plugin.structures import GroundingDataSample


def result_dicts(
    sample: GroundingDataSample, presence_threshold: float | None, drop_absent: bool = False
) -> list[dict]:
    """What `GroundingInferencer.ground` returns.

    Args:
        sample (GroundingDataSample): With ``moments``, ``scores`` and ``presence``.
        presence_threshold (float | None): Presence from which a sentence occurs.
        drop_absent (bool): No moments where it does not. Defaults to False.

    Raises:
        ValueError: If ``drop_absent`` is asked for and no threshold is known.
    """
    if drop_absent and presence_threshold is None:
        raise ValueError(
            'drop_absent needs a presence_threshold, and the checkpoint carries none: '
            'give one, or let tools/analysis_tools/calibrate_presence.py measure it'
        )
    found, results = sample.pred_instances, []
    for i, sentence in enumerate(sample.sentences):
        there = ~found.scores[i].isnan()  # (n,)
        result = dict(
            sentence=sentence,
            moments=found.moments[i][there].tolist(),
            scores=found.scores[i][there].tolist(),
        )
        if presence_threshold is not None:
            result['presence'] = float(found.presence[i])
            result['present'] = result['presence'] >= presence_threshold
            if drop_absent and not result['present']:
                result.update(moments=[], scores=[])
        results.append(result)
    return results
