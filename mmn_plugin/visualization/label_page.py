"""A page of pictures of the labels that a person should look at."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np

from mmn_plugin.datasets.grounding_dataset import single_configs
from mmn_plugin.datasets.label_check import KINDS, LabelGroup, SplitLabels
from mmn_plugin.files import OutputFolder, write_atomically, write_json
from mmn_plugin.structures import GroundingDataSample, true_windows

from .timeline import draw_timeline

PAGE = 'labels.html'
MOST = 12  # sentences of a picture
STYLE = (
    'body{font:15px sans-serif;color:#222;max-width:980px;margin:2em auto;padding:0 1em}'
    'figure{margin:1.5em 0;color:#666;font-size:.85em}'
    'img{display:block;max-width:100%;border:1px solid #d8d8d8}'
    'td,th{padding:.2em 1em .2em 0;text-align:right}td:first-child,th:first-child{text-align:left}'
)
WHY = dict(
    same_meaning='Only one of the times can be right where the sentences mean the same, unless all '
    'of them are: then each sentence is true of several windows.',
    several_moments='The text says that it happens more than once; is the one window all of it?',
    whole_video='An answer of the whole video is right: such a sentence measures nothing.',
    past_end='The first bar is the video. Training and evaluation cut such windows at its end.',
)


def draw_labels(group: LabelGroup, kind: str) -> np.ndarray:
    """Draw the sentences of a finding as bars on the duration of their video.

    Args:
        group (LabelGroup): At most `MOST` of its sentences are drawn; the others are counted.
        kind (str): One of `KINDS`. Of windows past the end the video is a bar too.

    Returns:
        np.ndarray: (H, 960, 3) uint8, RGB.
    """
    video = group.video
    if kind == 'past_end':
        video = replace(
            video,
            duration=max(end for windows in video.windows for _, end in windows),
            sentences=['the video', *video.sentences],
            windows=[[(0.0, video.duration)], *video.windows],
        )
    sample = GroundingDataSample(
        metainfo=dict(video_id=video.video_id, duration=video.duration, sentences=video.sentences)
    )
    sample.gt_instances = true_windows(video.windows)
    return draw_timeline(sample, draw_pred=False, max_sentences=MOST)


def label_page(labels: Mapping[str, SplitLabels], compared_by: str, number: int) -> str:
    """An HTML page with counts, and the first findings of each kind as pictures within it.

    Args:
        labels (Mapping[str, SplitLabels]): Of each split.
        compared_by (str): What said which sentences mean the same.
        number (int): Pictures of each kind in each split, at most.
    """
    rows, parts = [], []
    for split, found in labels.items():
        figures = found.figures()
        cells = ''.join(
            f'<td>{figures[kind]["count"]:,} ({figures[kind]["share"]:.2%})</td>' for kind in KINDS
        )
        rows.append(f'<tr><td>{escape(split)}</td><td>{found.num_sentences:,}</td>{cells}</tr>')
        for kind, groups in found.groups.items():
            if groups:
                parts.append(f'<h2>{escape(split)}: {KINDS[kind]}</h2><p>{WHY[kind]}</p>')
                parts += [_picture(group, kind) for group in groups[:number]]
                left = len(groups) - number
                parts.append(f'<p>{left:,} more are not drawn.</p>' if left > 0 else '')
    heads = ''.join(f'<th>{text}</th>' for text in ('split', 'sentences', *KINDS.values()))
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Labels</title>'
        f'<style>{STYLE}</style><h1>Labels to look at</h1>'
        f'<p>Sentences were compared by {escape(compared_by)}.</p>'
        f'<table><tr>{heads}</tr>{"".join(rows)}</table>{"".join(parts)}</html>\n'
    )


def _picture(group: LabelGroup, kind: str) -> str:
    """The picture of a finding within the page, so that the page is one file."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, draw_labels(group, kind), format='png')
    image = base64.b64encode(file.getvalue()).decode()
    indices = ', '.join(map(str, group.video.sentence_index))
    text = f'{escape(group.video.video_id)}, sentence index {indices}'
    return f'<figure><img alt="" src="data:image/png;base64,{image}">{text}</figure>'


def split_names(cfg: Mapping, splits: Sequence[str] | None = None) -> list[str]:
    """What a check of a config calls its parts: splits, or ``SPLIT CORPUS`` of those of several.

    Args:
        cfg (Mapping): As of `check_config`.
        splits (Sequence[str], optional): As of `check_config`. Defaults to all.
    """
    found = []
    for split in splits or ('train', 'val', 'test'):
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        for part in single_configs(dataset) if dataset else ():
            corpus = part.get('corpus')
            found.append(f'{split} {corpus}' if corpus else split)
    return found


def label_files(splits: Iterable[str]) -> list[str]:
    """Names of the files that `write_labels` writes."""
    return [PAGE, *(f'{split.replace(" ", "_")}.json' for split in splits)]


def write_labels(
    folder: OutputFolder, labels: Mapping[str, SplitLabels], compared_by: str, number: int
) -> None:
    """Write the page, and for each split its sentences by kind as `GroundingMetric.subsets`.

    Args:
        folder (OutputFolder): Gets ``labels.html`` and ``SPLIT.json``.
        labels (Mapping[str, SplitLabels]): As of `label_page`, like the following.
        compared_by (str): What said which sentences mean the same.
        number (int): Pictures of each kind in each split, at most.

    Raises:
        OutputError: If the folder holds other files of these names.
    """
    page, *files = label_files(labels)
    with folder.writing(dict.fromkeys((page, *files))) as path:
        write_atomically(path / page, label_page(labels, compared_by, number))
        for file, found in zip(files, labels.values(), strict=True):
            write_json(found.subsets(), path / file)
