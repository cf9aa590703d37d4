"""What inference reaches for sentences that do not occur, and how fast it is."""
import json
import random
import statistics
import tempfile
import time
from argparse import Namespace
from contextlib import chdir
from pathlib import Path

from .renderers import spread, table
from .running import CONFIG, ROOT, WORK, train_and_test

DATA = Path('data/shapes')
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
    """Milliseconds of a sentence, of its text encoder and of all else, one CPU thread."""
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


def sentence_cost(model, features, seconds: float, sentence: str, repeats: int = 30) -> dict:
    """Median milliseconds of encoding once, of a sentence, and of its text encoder alone.

    Time of the processor, in one thread: what else the machine does is not counted.
    """
    import torch

    began = time.process_time()
    encoded = model.encode(features, seconds)
    encode = time.process_time() - began
    text, whole = [], []
    sample = model.predict(encoded, sentence)
    for _ in range(repeats):
        began = time.process_time()
        model.ground(encoded, sentence)
        whole.append(time.process_time() - began)
        with torch.inference_mode():
            began = time.process_time()
            model.model.text_encoder(model.model.data_preprocessor.batch_sentences([sample]))
            text.append(time.process_time() - began)
    whole, text = statistics.median(whole), statistics.median(text)
    return dict(moments=len(encoded.spans), windows=encoded.num_windows, encode_ms=1000 * encode,
                text_ms=1000 * text, besides_ms=1000 * (whole - text))


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
