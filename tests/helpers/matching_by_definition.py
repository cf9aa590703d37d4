"""The contrastive losses as the reference page writes them: loops over moments and sentences."""

import torch

from mmn_plugin.structures import temporal_iou


def losses_by_definition(
    settings, own, others=(), weight=1.0, exclude_same_text=False, exclude_similar=None
):
    """``loss_vid`` and ``loss_sent`` of the sentences of ``own`` against all candidates.

    Args:
        settings (dict): Of MutualMatchingLoss.
        own (Candidates): The batch.
        others (Sequence[Candidates]): Candidates beside it.
        weight (float): Weight of those.
        exclude_same_text (bool): Whether text decides too.
        exclude_similar (float): Cosine of meaning that decides too.
    """
    pools = [own, *others]
    videos = [
        (pool.video_ids[v], pool.moments[v], 1.0 if pool is own else weight, pool, v)
        for pool in pools
        for v in range(len(pool.video_ids))
    ]
    sentences = [
        (pool, k, 1.0 if pool is own else weight)
        for pool in pools
        for k in range(len(pool.sentences))
    ]
    vid, sent = [], []
    for s, place in enumerate(own.sentence_video.tolist()):
        name, moments = own.video_ids[place], own.moments[place]

        def same_meaning(pool, k, s=s, name=name):
            if pool.video_ids[pool.sentence_video[k]] == name:
                return False
            text = exclude_same_text and pool.texts[k] == own.texts[s]
            return text or (
                exclude_similar is not None and pool.meaning[k] @ own.meaning[s] >= exclude_similar
            )

        for p in own.iou[s].topk(settings['num_positive']).indices.tolist():
            positive = moments[p] @ own.sentences[s] - settings['margin']
            t = settings['temperature_video']
            total = (positive / t).exp()
            for pool, k, w in sentences:
                overlap = temporal_iou(pool.ground_truth[k], own.ground_truth[s])
                removed = (
                    pool.video_ids[pool.sentence_video[k]] == name
                    and overlap >= settings['sentence_removal_iou']
                )
                if not removed and not same_meaning(pool, k):
                    total = total + w * (moments[p] @ pool.sentences[k] / t).exp()
            vid.append(total.log() - positive / t)
            t = settings['temperature_sentence']
            total = (positive / t).exp() + 1e-6
            for other, candidates, w, pool, v in videos:
                q = torch.ones(len(candidates), dtype=torch.float64)
                if other == name:
                    q = q * (own.iou[s] < settings['negative_iou'])
                for k in range(len(pool.sentences)):
                    if pool.sentence_video[k] == v and same_meaning(pool, k):
                        q = q * (pool.iou[k] < settings['negative_iou'])
                total = total + w * (q * (candidates @ own.sentences[s]) / t).exp().sum()
            sent.append(total.log() - positive / t)
    return torch.stack(vid).mean(), torch.stack(sent).mean()
