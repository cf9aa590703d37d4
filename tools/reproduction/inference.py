"""Trained models on Shapes, and how fast inference is."""

import json
import statistics
import tempfile
import time
from pathlib import Path

from .renderers import table
from .running import CONFIG, ROOT, WORK, best_of, train_and_test

DATA = Path('data/shapes')
SENTENCE = 'the aqua circle goes on and off'
LARGE_SENTENCE = 'a person opens the door'


def checkpoint_of(seed: int) -> Path:
    """Best checkpoint of the experiment `shapes`, trained where it is not there."""
    work = WORK / f'shapes_seed{seed}'
    if not list((ROOT / work).glob('best_*.pth')):
        train_and_test('shapes', seed)
    return best_of(work)


def inferencer_of(seed: int):
    """The trained model with today's config."""
    from mmn_plugin.apis import GroundingInferencer

    return GroundingInferencer(str(ROOT / CONFIG), checkpoint_of(seed), 'cpu')


def split_of(name: str) -> dict[str, dict]:
    """Videos of a split: annotation, and ``events`` with what really happens."""
    from mmn_plugin.shapes import SceneSampler

    sampler = SceneSampler(json.loads((ROOT / DATA / 'manifest.json').read_text())['seed'])
    videos = json.loads((ROOT / DATA / f'annotations/{name}.json').read_text())
    for video, entry in videos.items():
        entry['events'] = sampler.sample(int(video[-5:]), video, name == 'train').events
    return videos


def inference_cost() -> dict:
    """Milliseconds of a sentence, of its text encoder and of all else, one CPU thread."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    model, rng = inferencer_of(seed=0), np.random.default_rng(0)
    rows = []
    for label, seconds in (('Shapes, 24 s', 24), ('Shapes, 10 min', 600), ('Shapes, 2 h', 7200)):
        features = rng.random((seconds * 4 // 3, 174), dtype=np.float32)
        rows.append(dict(video=label, **sentence_cost(model, features, seconds, SENTENCE)))
    features = rng.random((800, 4096), dtype=np.float32)
    cost = sentence_cost(large_inferencer(), features, 224, LARGE_SENTENCE)
    return dict(figures=[*rows, dict(video='TACoS config and DistilBERT, 224 s', **cost)])


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
    words = dict.fromkeys(f'{SENTENCE} {LARGE_SENTENCE}'.split())
    tokenizer.vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *words]
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
    return dict(
        moments=len(encoded.spans),
        windows=encoded.num_windows,
        encode_ms=1000 * encode,
        text_ms=1000 * text,
        besides_ms=1000 * (whole - text),
    )


def render_inference_cost(result: dict) -> str:
    """Milliseconds."""
    header = ['video', 'moments', 'encoding it, from features', 'text encoder']
    form = '{video}|{moments:,}|{encode_ms:,.0f} ms|{text_ms:.1f} ms|{besides_ms:.1f} ms'
    rows = [form.format(**row).split('|') for row in result['figures']]
    return table([*header, 'rest of a sentence'], rows)
