"""Dual towers in real sizes with random weights: speed, memory, equality with transformers."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from benchmark import peak_mb
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmn_plugin.config import load_config
from mmn_plugin.features import DualTower, build_extractor
from mmn_plugin.files import write_json

from .running import ROOT, in_process
from .tables import table

WORDS = ('<pad>', '<unk>', '<eos>', 'a', 'person', 'opens', 'the', 'door')
SENTENCE = 'a person opens the door'
SIZE = (360, 640)  # of the frames
LIMIT = 200.0  # seconds for a tower, most of which VideoPrism needs on two cores


def _clip(folder: Path):
    transformers.CLIPImageProcessorPil().save_pretrained(folder)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=dict(eos_token_id=2)))


def _siglip2(folder: Path):
    transformers.SiglipImageProcessorPil().save_pretrained(folder)
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=dict(vocab_size=256_000)))


def _videoprism(folder: Path):
    settings = dict(
        do_resize=True,
        size=dict(height=288, width=288),
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=False,
    )
    write_json(settings, folder / 'video_preprocessor_config.json')
    return transformers.VideoPrismClipModel(transformers.VideoPrismConfig())


# Config of the extractor, its model, and rows that are timed.
TOWERS: dict[str, tuple[str, Callable, int]] = {
    'CLIP ViT-B/32': ('clip_vit_b32', _clip, 32),
    'SigLIP 2 base, 224 x 224': ('siglip2_base_p16_224', _siglip2, 16),
    'VideoPrism base, 16 x 288 x 288': ('videoprism_base', _videoprism, 2),
}


def towers(repeats: int) -> dict:
    """Each tower in a process of its own, so that its memory can be told."""
    return dict(
        figures=[
            dict(tower=name, **in_process(figures_of, name, repeats, limit=LIMIT))
            for name in TOWERS
        ]
    )


def figures_of(name: str, repeats: int) -> dict:
    """Speed and memory of a tower, and how far it is from transformers' own class."""
    config, write, count = TOWERS[name]
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        write(Path(folder)).save_pretrained(folder)
        save_tokenizer(folder, limit=64)
        settings = load_config(ROOT / f'configs/extractors/{config}.py').extractor
        settings = dict(settings, model=folder, revision=None, device='cpu', batch_size=count)
        tower = build_extractor(settings)
        weights = sum(weight.numel() for weight in tower.model.parameters())
        shape = ((count - 1) * tower.stride + 1, *SIZE, 3)
        frames = list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        before = peak_mb()
        preparing, rows, sentence = (
            statistics.median(seconds_of(part) for _ in range(repeats))
            for part in (
                lambda: list(tower.preparation.stream(frames, 'cpu')),
                lambda: tower(frames),
                lambda: tower.encode_sentences([SENTENCE]),
            )
        )
        return dict(
            millions_of_weights=weights / 1e6,
            frames_of_a_row=tower.clip_len,
            rows_per_second=count / rows,
            frame_ms=1000 * preparing / len(frames),
            sentence_ms=1000 * sentence,
            megabytes_loaded=before,
            megabytes_extracting=peak_mb(),
            **differences(tower, frames),
        )


def save_tokenizer(folder: str, limit: int) -> None:
    """One of a few words, which all of the models take."""
    vocab = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A <eos>', special_tokens=[('<eos>', vocab['<eos>'])]
    )
    special = dict(pad_token='<pad>', unk_token='<unk>', eos_token='<eos>')
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=limit, **special
    ).save_pretrained(folder)


def differences(tower: DualTower, frames: list[np.ndarray]) -> dict[str, float]:
    """Largest difference of a row's and a sentence's unit vector from the model's own."""
    windows = next(tower.batches(frames[: tower.stride]))
    pixels = tower.preparation.normalize(windows)
    padding = dict(padding=tower.padding, max_length=tower.max_tokens)
    tokens = tower.tokenizer([SENTENCE], return_tensors='pt', **padding)
    tokens.pop('token_type_ids', None)
    model = tower.model
    with torch.inference_mode():
        if tower.sees_windows:
            row = model.get_video_features(pixels).pooler_output
        else:
            row = model.get_image_features(pixels.flatten(0, 1)).pooler_output
        text = model.get_text_features(**tokens).pooler_output
    ours = tower(frames[: tower.stride])[0], tower.encode_sentences([SENTENCE])[0].numpy()
    theirs = row.reshape(-1, row.shape[-1]).mean(0).numpy(), text[0].numpy()
    names = ('row_difference', 'sentence_difference')
    return {
        key: float(np.abs(unit(one) - unit(other)).max())
        for key, one, other in zip(names, ours, theirs, strict=True)
    }


def unit(vector: np.ndarray) -> np.ndarray:
    """A vector of length 1."""
    return vector / np.linalg.norm(vector)


def seconds_of(work: Callable) -> float:
    """Time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def render_towers(result: dict) -> str:
    """Rows a second, milliseconds and megabytes by tower."""
    header = ['random weights, on the CPU', 'weights', 'rows per second', 'a frame is prepared in']
    header += ['a sentence in', 'memory with one batch', 'largest difference']
    rows = []
    for row in result['figures']:
        if 'error' in row:
            rows.append([row['tower'], row['error'].splitlines()[-1], *[''] * (len(header) - 2)])
            continue
        apart = max(row['row_difference'], row['sentence_difference'])
        rows.append(
            [
                row['tower'],
                f'{row["millions_of_weights"]:.0f} M',
                f'{row["rows_per_second"]:.2f}',
                f'{row["frame_ms"]:.0f} ms',
                f'{row["sentence_ms"]:.0f} ms',
                f'{row["megabytes_extracting"] / 1024:.1f} GB',
                f'{apart:.1g}',
            ]
        )
    return table(header, rows)
