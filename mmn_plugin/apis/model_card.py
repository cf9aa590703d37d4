"""README.md of a saved model."""

_TEMPLATE = """\
---
library_name: mmn_plugin
tags: [temporal-grounding, video-moment-retrieval]
---

# {title}

Finds the moments of a video that a sentence describes: Mutual Matching Network (MMN), trained with
mmn_plugin {version}.

```python
from mmn_plugin.apis import GroundingInferencer

inferencer = GroundingInferencer.from_pretrained('THIS_FOLDER')
inferencer('video.mp4', ['{sentence}'])
```

## What it was trained on

TODO by whoever publishes it: data set, its license, the language of the sentences, and figures of
its test split (R@1, IoU=0.5 and 0.7) with the command that measured them.

## What goes in

| | |
| --- | --- |
| features | {features} |
| moments | {moments} |
| longest sentence | {tokens} |
| vocabulary | {vocabulary} |

## Limits

- It always finds something. {presence}
- The edges of a moment lie on a grid of a {num_clips}th of what is looked at at once{window}.
- {long_video}
- Only words of its training mean anything to it; unknown ones are skipped without a word, and a
  sentence of unknown words alone is refused.
- It answers about the kind of video that it was trained on; on other material scores are no
  measure of being right.
- It finds what a sentence says, not whether it is proper to look for it. Do not use it to identify
  or judge people.
"""


def model_card(content: dict) -> str:
    """README.md of a saved model.

    Args:
        content (dict): What ``config.json`` holds.
    """
    config, meta = content['config'], content['meta']
    model, extractor = config['model'], config.get('extractor')
    long_video = config.get('long_video') or {}
    num_clips, moments = _moments(model)
    presence, window = meta.get('presence'), long_video.get('window')
    longest = long_video.get('longest')
    size = model['backbone']['in_channels']
    limit = content['tokenizer'].get('max_length')
    return _TEMPLATE.format(
        title='A temporal grounding model',
        version=content['mmn_plugin'],
        sentence='…',
        features=f'{size} numbers per step; '
        + (
            f'made from a video file by `{extractor["type"]}`'
            if extractor
            else 'no extractor is known, so that only ready features can be used'
        ),
        moments=moments,
        tokens='no limit' if limit is None else f'{limit} tokens; a longer one is cut',
        vocabulary='`tokenizer.json`, with which it was trained',
        num_clips=num_clips,
        window=f' ({window:g} s of a long video)' if window else '',
        presence=(
            f'A sentence whose presence is below {presence["threshold"]:.3f} '
            f'{"(more in a video of several windows) " if presence.get("tail") else ""}probably '
            'does not occur; that threshold was measured on its validation set, and is sometimes '
            'wrong in either direction.'
            if presence
            else 'Nothing tells whether a sentence occurs at all: no threshold was measured.'
        ),
        long_video=(
            f'Videos longer than {1.5 * window if longest is None else longest:g} s are looked at '
            f'in windows of {window:g} s; a moment longer than a window is never found whole.'
            if window
            else 'A video of any length is one window: the longer it is, the coarser the grid.'
        ),
    )


def _moments(model: dict) -> tuple[int, str]:
    """Number of clips, and which runs of them are moments."""
    if 'grid' not in model:  # scores clips
        return model['num_clips'], f'{model["num_clips"]} clips, runs of those with high scores'
    grid = model['grid']
    counts = list(grid['pooling_counts'])
    return grid['num_clips'], f'{grid["num_clips"]} clips, pooling counts {counts}'
