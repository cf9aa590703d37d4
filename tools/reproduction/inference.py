"""What inference reaches: in long videos, for sentences that do not occur, and how fast."""
import json
import random
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import chdir
from pathlib import Path

from .renderers import spread, table
from .running import CONFIG, ROOT, WORK, run, train_and_test

DATA = Path('data/shapes')
LENGTHS = (5, 10, 30)  # videos of 24 s in a row
SENTENCE = 'the aqua circle goes on and off'


def checkpoint_of(seed: int) -> Path:
    """Best checkpoint of the experiment `shapes`, trained where it is not there."""
    found = sorted((ROOT / WORK / f'shapes_seed{seed}').glob('best_*.pth'))
    if not found:
        train_and_test('shapes', seed)
        found = sorted((ROOT / WORK / f'shapes_seed{seed}').glob('best_*.pth'))
    return found[-1]


def inferencer_of(seed: int):
    """The trained model with today's config."""
    from mmn_plugin.apis import GroundingInferencer

    return GroundingInferencer(str(ROOT / CONFIG), checkpoint_of(seed), 'cpu')


def split_of(name: str) -> dict[str, dict]:
    """Videos of a split: annotation, and ``events`` with what really happens."""
    from mmn_plugin.datasets.shapes import SceneSampler

    sampler = SceneSampler(json.loads((ROOT / DATA / 'manifest.json').read_text())['seed'])
    videos = json.loads((ROOT / DATA / f'annotations/{name}.json').read_text())
    for video, entry in videos.items():
        entry['events'] = sampler.sample(int(video[-5:]), video, name == 'train').events
    return videos


def join_videos(names: list[str], path: Path, drop: int) -> None:
    """One video of several, without the first frames, so that no window begins with a video."""
    import av
    import numpy as np

    from mmn_plugin.datasets.shapes.video_writer import write_video

    frames = []
    for name in names:
        with av.open(str(ROOT / DATA / f'videos/{name}.mp4')) as container:
            frames += [frame.to_ndarray(format='yuv420p') for frame in container.decode(video=0)]
    write_video(path, np.stack(frames[drop:]), 8)


def questions(videos: dict[str, dict], names: list[str], drop: float) -> list[dict]:
    """Sentences of joined videos whose description occurs there once, with their moments.

    Another event of the same colour, shape and action would be as right an answer, though no
    annotation says so.
    """
    happening = [event.combination for name in names for event in videos[name]['events']]
    result = []
    for place, name in enumerate(names):
        entry = videos[name]
        for event, sentence in zip(entry['events'], entry['sentences'], strict=True):
            shift = entry['duration'] * place - drop
            if happening.count(event.combination) == 1 and event.start + shift >= 0:
                result.append(dict(video=name, sentence=sentence, own=[event.start, event.end],
                                   moment=[event.start + shift, event.end + shift]))
    return result


def hits(answers: list[dict], moments: list[list[float]]) -> list[bool]:
    """Whether each first answer has IoU >= 0.5 with the true moment."""
    import torch

    from mmn_plugin.structures import temporal_iou

    found = torch.tensor([answer['moments'][0] for answer in answers])
    return (temporal_iou(found, torch.tensor(moments)) >= 0.5).tolist()


def crosses(moment: list[float], plan_starts: list[float], window: float = 24.) -> bool:
    """Whether a moment lies over the edge of a window, half a second on either side."""
    edges = [*plan_starts[1:], *(start + window for start in plan_starts[:-1])]
    return any(moment[0] + 0.5 < edge < moment[1] - 0.5 for edge in edges)


def long_video(args: Namespace) -> dict:
    """R@1 of the same sentences in their own video and in many videos in a row."""
    videos = split_of('test')
    models = {seed: inferencer_of(seed) for seed in args.seeds}
    rows = [dict(seed=seed, lengths={}) for seed in args.seeds]
    for length in LENGTHS:
        found = {seed: dict(short=[], long=[], border=[]) for seed in args.seeds}
        rng = random.Random(0)
        for first in range(0, len(videos), length):
            names, drop = list(videos)[first:first + length], rng.randrange(10, 100)
            asked = questions(videos, names, drop / 8)
            features = joined_features(names, drop, models[args.seeds[0]].extractor)
            for seed, model in models.items():
                ask(model, features, asked, found[seed])
        for row in rows:
            result = found[row['seed']]
            row['lengths'][length] = dict(
                sentences=len(result['long']), border_sentences=len(result['border']),
                **{key: 100 * statistics.fmean(values) for key, values in result.items()})
    return dict(per_seed=rows, two_hours=two_hours(args.seeds[0]))


def joined_features(names: list[str], drop: int, extractor):
    """Features of a file of several videos."""
    from mmn_plugin.apis.video_features import VideoFeatures

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'joined.mp4'
        join_videos(names, path, drop)
        return VideoFeatures.of(path, lambda: extractor)


def ask(model, features, asked: list[dict], found: dict[str, list[bool]]) -> None:
    """Ask for all moments in the long video, and for each in its own."""
    encoded, = model.video_encoder([features])
    right = hits(model.ground(encoded, [item['sentence'] for item in asked]),
                 [item['moment'] for item in asked])
    found['long'] += right
    clip = 24 / model.model.grid.num_clips
    step = round(model.model.grid.num_clips * (1 - model.video_encoder.long_video.overlap)) * clip
    starts = [step * number for number in range(encoded.num_windows)]
    found['border'] += [ok for ok, item in zip(right, asked, strict=True)
                        if crosses(item['moment'], starts)]
    for name in dict.fromkeys(item['video'] for item in asked):
        own = [item for item in asked if item['video'] == name]
        answers = model(f'{ROOT / DATA}/features.h5::{name}', [item['sentence'] for item in own])
        found['short'] += hits(answers, [item['own'] for item in own])


def two_hours(seed: int) -> dict:
    """Time and memory of 300 videos in a row, in a process of their own."""
    names = [*split_of('val'), *split_of('test')]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'long.mp4'
        join_videos(names, path, 0)
        script = f"""
import json, resource, sys, time
sys.path.insert(0, {str(ROOT)!r})
import torch
from mmn_plugin.apis import GroundingInferencer
torch.set_num_threads(1)
inferencer = GroundingInferencer({str(ROOT / CONFIG)!r}, {str(checkpoint_of(seed))!r}, 'cpu')
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
inferencer({str(ROOT / DATA / f'videos/{names[0]}.mp4')!r}, {SENTENCE!r})
before, began = peak(), time.time()
features = inferencer.extractor({str(path)!r})
extracted = time.time()
encoded = inferencer.encode(features, 7200.)
encode_seconds = time.time() - extracted
inferencer.ground(encoded, {SENTENCE!r})
print('result', json.dumps(dict(
    seconds=encoded.duration, windows=encoded.num_windows, moments=len(encoded.spans),
    extract_seconds=extracted - began, encode_seconds=encode_seconds,
    peak_before_mb=before, growth_mb=peak() - before)))
"""
        output = run(sys.executable, '-c', script, capture=True)
    return json.loads(output.rpartition('result ')[2])


def absence(args: Namespace) -> dict:
    """Present against absent sentences on Shapes' test videos."""
    return dict(per_seed=[absence_of(seed) for seed in args.seeds])


def absence_of(seed: int) -> dict:
    """Threshold from validation; AUROC and shares on test, where what happens is known."""
    from mmaction.registry import DATASETS

    from mmn_plugin.apis.presence import auroc, calibrate_presence, measure_presence

    model, result = inferencer_of(seed), dict(seed=seed)
    with chdir(ROOT):  # paths of configs start there
        validation = DATASETS.build(model.config.val_dataloader.dataset)
        test = DATASETS.build(model.config.test_dataloader.dataset)
        result['validation'] = calibrate_presence(model, validation)
        for kind in ('any', 'near'):
            present, absent = measure_presence(model, test, absent_sentences(kind))
            result[kind] = dict(
                present=len(present), absent=len(absent), auroc=auroc(present, absent),
                present_kept=float((present >= model.presence_threshold).mean()),
                absent_kept=float((absent >= model.presence_threshold).mean()))
    return result


def absent_sentences(kind: str) -> dict[str, list[str]]:
    """16 sentences of other test videos whose colour, shape and action never occur together.

    ``near``: they differ from something that does happen in one of the three alone.
    """
    videos, rng = split_of('test'), random.Random(0)
    known = sorted({(event.combination, sentence) for entry in videos.values() for event, sentence
                    in zip(entry['events'], entry['sentences'], strict=True)})
    result = {}
    for name, entry in videos.items():
        own = {event.combination for event in entry['events']}
        fitting = [sentence for combination, sentence in known if combination not in own and (
            kind == 'any' or any(sum(a != b for a, b in zip(combination, other, strict=True)) == 1
                                 for other in own))]
        result[name] = rng.sample(fitting, min(len(fitting), 16))
    return result


def inference_cost(args: Namespace) -> dict:
    """Milliseconds of a sentence, without and with its text encoder, one CPU thread."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    model, rng = inferencer_of(args.seeds[0]), np.random.default_rng(0)
    rows = []
    for label, seconds in (('Shapes, 24 s', 24), ('Shapes, 10 min', 600), ('Shapes, 2 h', 7200)):
        features = rng.random((seconds * 4 // 3, 174), dtype=np.float32)
        rows.append(dict(video=label, **sentence_cost(model, features, seconds, SENTENCE)))
    large = large_inferencer()
    features = rng.random((800, 4096), dtype=np.float32)
    rows.append(dict(video='TACoS config and DistilBERT, 224 s',
                     **sentence_cost(large, features, 224, 'a person opens the door')))
    return dict(figures=rows)


def large_inferencer():
    """The published sizes for TACoS with random weights."""
    import torch
    from mmaction.registry import MODELS
    from mmengine.config import Config

    from mmn_plugin.apis import GroundingInferencer

    config = Config.fromfile(ROOT / 'configs/mmn_tacos.py')
    text, tokenizer = config.model.text_encoder, config.model.data_preprocessor.tokenizer
    del text.name_or_path, tokenizer.name_or_path
    text.config = dict(model_type='distilbert', vocab_size=30522)
    tokenizer.vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *SENTENCE.split(), 'person', 'opens',
                       'door', 'a']
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'random.pth'
        torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), path)
        return GroundingInferencer(config, path, 'cpu')


def sentence_cost(model, features, seconds: float, sentence: str, repeats: int = 50) -> dict:
    """Median milliseconds of encoding once, of a sentence, and of its text encoder alone."""
    import torch

    began = time.perf_counter()
    encoded = model.encode(features, seconds)
    encode = time.perf_counter() - began
    text, whole = [], []
    sample = model.predict(encoded, sentence)
    for _ in range(repeats):
        began = time.perf_counter()
        model.ground(encoded, sentence)
        whole.append(time.perf_counter() - began)
        with torch.inference_mode():
            began = time.perf_counter()
            model.model.text_encoder(model.model.data_preprocessor.batch_sentences([sample]))
            text.append(time.perf_counter() - began)
    whole, text = statistics.median(whole), statistics.median(text)
    return dict(moments=len(encoded.spans), windows=encoded.num_windows, encode_ms=1000 * encode,
                text_ms=1000 * text, besides_ms=1000 * (whole - text))


def render_long_video(result: dict) -> str:
    """R@1 by number of videos in a row."""
    per_seed = result['per_seed']

    def column(length, key):
        return [row['lengths'][length][key] for row in per_seed]

    rows = [[f'{int(length) * 24 / 60:g} min ({length} videos)', f'{column(length, "sentences")[0]}',
             *(spread(column(length, key)) for key in ('short', 'long', 'border'))]
            for length in per_seed[0]['lengths']]
    hours = result['two_hours']
    return table(['long video', 'sentences', 'R@1, IoU=0.5 in their own 24 s', 'in the long video',
                  'of moments over a window border'], rows) + (
        f'\n\nTwo hours of video ({hours["windows"]:,} windows, {hours["moments"]:,} moments): '
        f'features in {hours["extract_seconds"]:.0f} s, windows in {hours["encode_seconds"]:.0f} '
        f's, {hours["growth_mb"]:.0f} MB more memory than 24 s.')


def render_absence(result: dict) -> str:
    """AUROC, and what the threshold of validation keeps."""
    per_seed = result['per_seed']
    names = dict(any='never occur in the video',
                 near='differ from what occurs in colour, shape or action alone')
    rows = [[label, *(spread([100 * seed[kind][key] for seed in per_seed])
                      for key in ('auroc', 'present_kept', 'absent_kept'))]
            for kind, label in names.items()]
    return table(['absent sentences that', 'AUROC, %', 'present kept, %', 'absent kept, %'], rows)


def render_inference_cost(result: dict) -> str:
    """Milliseconds."""
    return table(
        ['video', 'moments', 'encoding it, from features', 'text encoder', 'rest of a sentence'],
        [[row['video'], f'{row["moments"]:,}', f'{row["encode_ms"]:,.0f} ms',
          f'{row["text_ms"]:.1f} ms', f'{row["besides_ms"]:.1f} ms'] for row in result['figures']])
