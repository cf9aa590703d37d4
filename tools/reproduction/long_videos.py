"""The same sentences in short videos and in long ones."""

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .inference import DATA, SENTENCE, inferencer_of, split_of
from .renderers import spread, table
from .running import ROOT, alone, peak_mb

LENGTHS = (5, 10, 30)  # videos of 24 s in a row


def join_videos(names: list[str], path: Path, drop: int) -> None:
    """One video of several, without the first frames, so that no window begins with a video."""
    import av
    import numpy as np

    from mmn_plugin.shapes.corpus import write_video

    frames = []
    for name in names:
        with av.open(str(ROOT / DATA / f'videos/{name}.mp4')) as container:
            frames += [frame.to_ndarray(format='yuv420p') for frame in container.decode(video=0)]
    write_video(path, np.stack(frames[drop:]), 8)


def questions(videos: dict[str, dict], names: list[str], drop: float) -> list[dict]:
    """Sentences of joined videos whose description occurs there once, with their moments.

    Another event of the same color, shape and action would be as right an answer, though no
    annotation says so.
    """
    happening = [event.combination for name in names for event in videos[name]['events']]
    result = []
    for place, name in enumerate(names):
        entry = videos[name]
        for event, sentence in zip(entry['events'], entry['sentences'], strict=True):
            shift = entry['duration'] * place - drop
            if happening.count(event.combination) == 1 and event.start + shift >= 0:
                result.append(
                    dict(
                        video=name,
                        sentence=sentence,
                        own=[event.start, event.end],
                        moment=[event.start + shift, event.end + shift],
                        part=[shift, shift + entry['duration']],
                    )
                )
    return result


def hits(answers: list[dict], moments: list[list[float]]) -> list[bool]:
    """Whether each first answer has IoU >= 0.5 with the true moment."""
    import torch

    from mmn_plugin.structures import temporal_iou

    found = torch.tensor([answer['moments'][0] for answer in answers])
    return (temporal_iou(found, torch.tensor(moments)) >= 0.5).tolist()


def crosses(moment: list[float], plan_starts: list[float], window: float = 24.0) -> bool:
    """Whether a moment lies over the edge of a window, half a second on either side."""
    edges = [*plan_starts[1:], *(start + window for start in plan_starts[:-1])]
    return any(moment[0] + 0.5 < edge < moment[1] - 0.5 for edge in edges)


def long_video(seeds: list[int]) -> dict:
    """R@1 of the same sentences in their own video and in many videos in a row."""
    models = {seed: inferencer_of(seed) for seed in seeds}
    rows = [dict(seed=seed, lengths={}) for seed in seeds]
    for length in LENGTHS:
        found = {seed: dict(short=[], long=[], border=[], part=[]) for seed in seeds}
        for features, asked, _ in joined_tests(length, models[seeds[0]].extractor):
            for seed, model in models.items():
                ask(model, features, asked, found[seed])
        for row in rows:
            result = found[row['seed']]
            row['lengths'][length] = dict(
                sentences=len(result['long']),
                border_sentences=len(result['border']),
                **{key: 100 * statistics.fmean(values) for key, values in result.items()},
            )
    return dict(per_seed=rows, two_hours=two_hours(seeds[0]))


def joined_tests(length: int, extractor) -> Iterator[tuple]:
    """The test videos, so many in a row: features, what is asked, and all that happens."""
    from mmn_plugin.apis.video_input import VideoFeatures

    videos, rng = split_of('test'), random.Random(0)
    for first in range(0, len(videos), length):
        names, drop = list(videos)[first : first + length], rng.randrange(10, 100)
        happening = {event.combination for name in names for event in videos[name]['events']}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'joined.mp4'
            join_videos(names, path, drop)
            features = VideoFeatures.of(path, lambda: extractor)
        yield features, questions(videos, names, drop / 8), happening


def ask(model, features, asked: list[dict], found: dict[str, list[bool]]) -> None:
    """Ask for all moments in the long video, and for each in its own."""
    (encoded,) = model.video_encoder([features])
    sentences, moments = ([item[key] for item in asked] for key in ('sentence', 'moment'))
    right = hits(model.ground(encoded, sentences), moments)
    found['long'] += right
    scores = model.score_moments(encoded, sentences)  # (s, U)
    answers = [
        best_of_part(encoded.spans, score, item['part'])
        for score, item in zip(scores, asked, strict=True)
    ]
    found['part'] += hits(answers, moments)
    clip = 24 / model.model.grid.num_clips
    step = round(model.model.grid.num_clips * (1 - model.video_encoder.long_video.overlap)) * clip
    starts = [step * number for number in range(encoded.num_windows)]
    found['border'] += [
        ok for ok, item in zip(right, asked, strict=True) if crosses(item['moment'], starts)
    ]
    for name in dict.fromkeys(item['video'] for item in asked):
        own = [item for item in asked if item['video'] == name]
        answers = model(f'{ROOT / DATA}/features.h5::{name}', [item['sentence'] for item in own])
        found['short'] += hits(answers, [item['own'] for item in own])


def best_of_part(spans, scores, part: list[float]) -> dict:
    """The answer if nothing but the sentence's own video came into question.

    What windows lose shows here; what more videos confuse does not.
    """
    inside = (spans[:, 0] >= part[0] - 0.75) & (spans[:, 1] <= part[1] + 0.75)  # half a clip
    return dict(moments=[spans[scores.where(inside, scores.new_tensor(-1.0)).argmax()].tolist()])


def two_hours(seed: int) -> dict:
    """Time and memory of 300 videos in a row, in a process of their own."""
    names = [*split_of('val'), *split_of('test')]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'long.mp4'
        join_videos(names, path, 0)
        short = ROOT / DATA / f'videos/{names[0]}.mp4'
        return alone(ground_after_a_short_one, seed, short, path)


def ground_after_a_short_one(seed: int, short: Path, long: Path) -> dict:
    """Seconds of the processor and megabytes that a long video takes after a short one."""
    import torch

    torch.set_num_threads(1)
    inferencer = inferencer_of(seed)
    inferencer(short, SENTENCE)
    before, began = peak_mb(), time.process_time()  # whatever else the machine does
    features = inferencer.extractor(long)
    extracted = time.process_time()
    encoded = inferencer.encode(features, 7200.0)
    encode_seconds = time.process_time() - extracted
    inferencer.ground(encoded, SENTENCE)
    return dict(
        seconds=encoded.duration,
        windows=encoded.num_windows,
        moments=len(encoded.spans),
        extract_seconds=extracted - began,
        encode_seconds=encode_seconds,
        peak_before_mb=before,
        growth_mb=peak_mb() - before,
    )


def render_long_video(result: dict) -> str:
    """R@1 by number of videos in a row."""
    keys = dict(
        short='R@1, IoU=0.5 in their own 24 s',
        long='in the long video',
        part='in their part of it',
        border='of moments over a window border',
    )
    rows = []
    for length in result['per_seed'][0]['lengths']:
        of_length = [row['lengths'][length] for row in result['per_seed']]
        label = f'{int(length) * 24 / 60:g} min ({length} videos)'
        figures = (spread([row[key] for row in of_length]) for key in keys)
        rows.append([label, str(of_length[0]['sentences']), *figures])
    hours = result['two_hours']
    return table(['long video', 'sentences', *keys.values()], rows) + (
        f'\n\nTwo hours of video ({hours["windows"]:,} windows, {hours["moments"]:,} moments): '
        f'features in {hours["extract_seconds"]:.0f} s and windows in '
        f'{hours["encode_seconds"]:.0f} s of one core, {hours["growth_mb"]:.0f} MB more memory '
        'than 24 s.'
    )
