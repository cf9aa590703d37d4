"""Trained models on Shapes: cost of a sentence, long videos, sentences that do not occur."""

import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import av
import numpy as np
import torch
from benchmark import alone, peak_mb
from made_up_data import offline_config
from mmaction.registry import DATASETS, MODELS
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.presence import calibrate_presence, measure_presence
from mmn_plugin.apis.video_input import VideoFeatures
from mmn_plugin.config import load_config
from mmn_plugin.evaluation import auroc
from mmn_plugin.shapes import read_events
from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.structures import temporal_iou

from .running import CONFIG, ROOT, best_of, train
from .tables import spreads, table

DATA = ROOT / 'data/shapes'
SENTENCE = 'the aqua circle goes on and off'
LENGTHS = (5, 10, 30)  # videos of 24 s in a row


def inferencer_of(seed: int) -> GroundingInferencer:
    """The model of the experiment ``shapes``, trained where it is not there."""
    work, _ = train('shapes', seed)
    return GroundingInferencer(str(ROOT / CONFIG), best_of(work), 'cpu')


def split_of(name: str) -> dict[str, dict]:
    """Videos of a split: annotation, and ``events`` with what really happens."""
    videos = json.loads((DATA / f'annotations/{name}.json').read_text())
    for video, events in read_events(DATA, name).items():
        videos[video]['events'] = events
    return videos


def inference_cost() -> dict:
    """Milliseconds of a sentence, of its text encoder and of all else, one CPU thread."""
    torch.set_num_threads(1)
    model, rng = inferencer_of(seed=0), np.random.default_rng(0)
    rows = []
    for label, seconds in (('Shapes, 24 s', 24), ('Shapes, 10 min', 600), ('Shapes, 2 h', 7200)):
        features = rng.random((seconds * 4 // 3, 174), dtype=np.float32)
        rows.append(dict(video=label, **sentence_cost(model, features, seconds, SENTENCE)))
    large = with_random_weights(offline_config(load_config('mmn_tacos.py')))
    features = rng.random((800, 4096), dtype=np.float32)
    cost = sentence_cost(large, features, 224, 'w1 w2 w3 w4 w5')
    return dict(figures=[*rows, dict(video='TACoS config and DistilBERT, 224 s', **cost)])


def with_random_weights(config: Config) -> GroundingInferencer:
    """A config's model, in its own size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'random.pth'
        torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), path)
        return GroundingInferencer(config, path, 'cpu')


def timed(run: Callable, *arguments) -> tuple:
    """What a call returns, and the seconds of the processor that it takes, in one thread.

    What else the machine does meanwhile is not counted.
    """
    began = time.process_time()
    return run(*arguments), time.process_time() - began


def sentence_cost(model, features, seconds: float, sentence: str, repeats: int = 30) -> dict:
    """Milliseconds of encoding once, and median ones of a sentence and its text encoder alone."""
    encoded, encode = timed(model.encode, features, seconds)
    whole, text = [], []
    for _ in range(repeats):
        whole.append(timed(model.ground, encoded, sentence)[1])
        with torch.inference_mode():
            text.append(timed(model.model.encode_sentences, [sentence])[1])
    times = dict(encode=encode, first=whole[0], text=statistics.median(text))
    times['besides'] = statistics.median(whole) - times['text']
    about = dict(moments=len(encoded.spans), windows=encoded.num_windows)
    return about | {f'{name}_ms': 1000 * value for name, value in times.items()}


def render_inference_cost(result: dict) -> str:
    """Milliseconds."""
    header = ['video', 'moments', 'encoding it, from features', 'text encoder']
    form = '{video}|{moments:,}|{encode_ms:,.0f} ms|{text_ms:.1f} ms|{besides_ms:.1f} ms'
    rows = [form.format(**row).split('|') for row in result['figures']]
    return table([*header, 'rest of a sentence'], rows)


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
    names = [*split_of('val'), *split_of('test')]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'long.mp4'
        join_videos(names, path, 0)
        two_hours = alone(cost_of_a_long_video, seeds[0], DATA / f'videos/{names[0]}.mp4', path)
    return dict(per_seed=rows, two_hours=two_hours)


def joined_tests(length: int, extractor) -> Iterator[tuple]:
    """The test videos, so many in a row: features, what is asked, and all that happens.

    What is asked are sentences whose description occurs there once, with their moments: another
    event of the same color, shape and action would be as right an answer, though no annotation
    says so.
    """
    videos, rng = split_of('test'), random.Random(0)
    for first in range(0, len(videos), length):
        names, drop = list(videos)[first : first + length], rng.randrange(10, 100)
        happening = [event.combination for name in names for event in videos[name]['events']]
        asked = []
        for place, name in enumerate(names):
            entry = videos[name]
            shift = entry['duration'] * place - drop / 8
            for event, sentence in zip(entry['events'], entry['sentences'], strict=True):
                if happening.count(event.combination) == 1 and event.start + shift >= 0:
                    own = [event.start, event.end]
                    where = dict(own=own, moment=[second + shift for second in own])
                    where['part'] = [shift, shift + entry['duration']]
                    asked.append(dict(where, video=name, sentence=sentence))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'joined.mp4'
            join_videos(names, path, drop)
            yield VideoFeatures.of(path, lambda: extractor), asked, set(happening)


def join_videos(names: list[str], path: Path, drop: int) -> None:
    """One video of several, without the first frames, so that no window begins with a video."""
    frames = []
    for name in names:
        with av.open(str(DATA / f'videos/{name}.mp4')) as container:
            frames += [frame.to_ndarray(format='yuv420p') for frame in container.decode(video=0)]
    write_video(path, np.stack(frames[drop:]), 8)


def ask(model, features, asked: list[dict], found: dict[str, list[bool]]) -> None:
    """Ask for all moments in the long video, and for each in its own.

    ``part`` counts the answer if nothing but the sentence's own video came into question: what
    windows lose shows there, what more videos confuse does not.
    """
    (encoded,) = model.video_encoder([features])
    sentences, moments = ([item[key] for item in asked] for key in ('sentence', 'moment'))
    right = hits([answer['moments'][0] for answer in model.ground(encoded, sentences)], moments)
    found['long'] += right
    best = []
    for scores, item in zip(model.score_moments(encoded, sentences), asked, strict=True):
        low, high = item['part'][0] - 0.75, item['part'][1] + 0.75  # half a clip
        inside = (encoded.spans[:, 0] >= low) & (encoded.spans[:, 1] <= high)
        best.append(encoded.spans[scores.where(inside, scores.new_tensor(-1.0)).argmax()].tolist())
    found['part'] += hits(best, moments)
    num_clips = model.model.grid.num_clips
    step = round(num_clips * (1 - model.video_encoder.long_video.overlap)) * 24 / num_clips
    starts = [step * number for number in range(encoded.num_windows)]
    edges = [*starts[1:], *(start + 24 for start in starts[:-1])]
    found['border'] += [
        ok
        for ok, (start, end) in zip(right, moments, strict=True)
        if any(start + 0.5 < edge < end - 0.5 for edge in edges)
    ]
    for name in dict.fromkeys(item['video'] for item in asked):
        own = [item for item in asked if item['video'] == name]
        answers = model(f'{DATA}/features.h5::{name}', [item['sentence'] for item in own])
        first = [answer['moments'][0] for answer in answers]
        found['short'] += hits(first, [item['own'] for item in own])


def hits(found: list[list[float]], moments: list[list[float]]) -> list[bool]:
    """Whether each has IoU >= 0.5 with the true moment."""
    return (temporal_iou(torch.tensor(found), torch.tensor(moments)) >= 0.5).tolist()


def cost_of_a_long_video(seed: int, short: Path, long: Path) -> dict:
    """Seconds of the processor and megabytes that a long video takes after a short one."""
    torch.set_num_threads(1)
    inferencer = inferencer_of(seed)
    inferencer(short, SENTENCE)
    before = peak_mb()
    features, extract_seconds = timed(inferencer.extractor, long)
    encoded, encode_seconds = timed(inferencer.encode, features, 7200.0)
    inferencer.ground(encoded, SENTENCE)
    return dict(
        windows=encoded.num_windows,
        moments=len(encoded.spans),
        extract_seconds=extract_seconds,
        encode_seconds=encode_seconds,
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
        rows.append([label, of_length[0]['sentences'], *spreads(of_length, keys)])
    hours = result['two_hours']
    return table(['long video', 'sentences', *keys.values()], rows) + (
        f'\n\nTwo hours of video ({hours["windows"]:,} windows, {hours["moments"]:,} moments): '
        f'features in {hours["extract_seconds"]:.0f} s and windows in '
        f'{hours["encode_seconds"]:.0f} s of one core, {hours["growth_mb"]:.0f} MB more memory '
        'than 24 s.'
    )


def absence(seeds: list[int]) -> dict:
    """Present against absent sentences on Shapes' test videos, alone and many in a row."""
    models = {seed: inferencer_of(seed) for seed in seeds}
    rows = [absence_of(seed, model) for seed, model in models.items()]
    for length in LENGTHS[1:]:
        joined = list(joined_tests(length, models[seeds[0]].extractor))
        for row in rows:
            row['lengths'][length] = absence_in_long(models[row['seed']], joined)
    return dict(per_seed=rows)


def absence_of(seed: int, model) -> dict:
    """Threshold from validation; AUROC and shares on test, where what happens is known."""
    result = dict(seed=seed, lengths={})
    with chdir(ROOT):  # paths of configs start there
        validation = DATASETS.build(model.config.val_dataloader.dataset)
        test = DATASETS.build(model.config.test_dataloader.dataset)
        result['validation'] = calibrate_presence(model, validation)
        for kind in ('any', 'near'):
            present, absent = measure_presence(model, test, absent_sentences(kind))
            result[kind] = dict(
                present=len(present),
                absent=len(absent),
                auroc=auroc(present, absent),
                present_kept=float((present >= model.presence_threshold).mean()),
                absent_kept=float((absent >= model.presence_threshold).mean()),
            )
    return result


def absence_in_long(model, joined: list[tuple]) -> dict:
    """Shares kept in videos of several windows: by the threshold for them, and by that of one."""
    found, kept, known = dict(present=[], absent=[]), defaultdict(list), described()
    for features, asked, happening in joined:
        (encoded,) = model.video_encoder([features])
        sentences = dict(
            present=[item['sentence'] for item in asked],
            absent=sorted({text for combination, text in known if combination not in happening}),
        )
        for kind, texts in sentences.items():
            sample = model.predict(encoded, texts)
            threshold = model.threshold_of(sample)
            presence = sample.pred_instances.presence.tolist()
            found[kind] += presence
            for name, limit in (('', threshold), ('_by_one_threshold', model.presence_threshold)):
                kept[f'{kind}_kept{name}'] += [value >= limit for value in presence]
    return dict(
        windows=encoded.num_windows,
        threshold=threshold,
        **{kind: len(values) for kind, values in found.items()},
        auroc=auroc(*found.values()),
        **{name: statistics.fmean(values) for name, values in kept.items()},
    )


def described() -> list[tuple[tuple, str]]:
    """Color, shape and action of every event of the test split, with its sentence; each once."""
    return sorted(
        {
            (event.combination, sentence)
            for entry in split_of('test').values()
            for event, sentence in zip(entry['events'], entry['sentences'], strict=True)
        }
    )


def absent_sentences(kind: str) -> dict[str, list[str]]:
    """16 sentences of other test videos whose color, shape and action never occur together.

    ``near``: they differ from something that does happen in one of the three alone.
    """
    known, rng, result = described(), random.Random(0), {}
    for name, entry in split_of('test').items():
        own = {event.combination for event in entry['events']}
        fitting = [
            sentence
            for combination, sentence in known
            if combination not in own
            and (kind == 'any' or any(differences(combination, other) == 1 for other in own))
        ]
        result[name] = rng.sample(fitting, min(len(fitting), 16))
    return result


def differences(first: tuple, second: tuple) -> int:
    """In how many of color, shape and action two events differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))


def render_absence(result: dict) -> str:
    """AUROC and what the threshold of validation keeps, in one window and in several."""
    per_seed, kept = result['per_seed'], ('present_kept', 'absent_kept')
    names = dict(
        any='never occur in the video',
        near='differ from what occurs in color, shape or action alone',
    )
    rows = [
        [label, *spreads([seed[kind] for seed in per_seed], ('auroc', *kept), 100)]
        for kind, label in names.items()
    ]
    text = table(['absent sentences that', 'AUROC, %', 'present kept, %', 'absent kept, %'], rows)
    rows = [['24 s', 1, *2 * spreads([seed['any'] for seed in per_seed], kept, 100)]]
    for length in per_seed[0]['lengths']:
        values = [seed['lengths'][length] for seed in per_seed]
        figures = spreads(values, [*kept, *(f'{key}_by_one_threshold' for key in kept)], 100)
        rows.append([f'{int(length) * 24 / 60:g} min', values[0]['windows'], *figures])
    header = ['video', 'windows', 'present kept, %', 'absent kept, %']
    header += ['present kept by the threshold of 24 s, %', 'absent kept by it, %']
    return f'{text}\n\n{table(header, rows)}'
