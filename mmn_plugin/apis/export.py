"""Models for runtimes without PyTorch."""

import copy
import json
import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.files import OutputFolder
from mmn_plugin.models.heads.base_head import unit_vectors
from mmn_plugin.structures import SentenceBatch


class TextSide(nn.Module):
    """Token ids to unit embeddings of sentences, of an ``MMN`` in evaluation mode."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.text_encoder = model.text_encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(S, L) int64 ids, and 1 at tokens, 0 at padding -> ``contrastive`` and ``iou`` (S, J)."""
        encoder = self.text_encoder
        means = encoder.token_means(SentenceBatch(input_ids, attention_mask, input_ids[:, 0]))
        pooled = encoder.layernorm(means)  # (S, C)
        sentences = unit_vectors(
            dict(iou=encoder.fc_iou(pooled), contrastive=encoder.fc_contrastive(pooled))
        )
        return sentences['contrastive'], sentences['iou']


class VideoSide(nn.Module):
    """Pooled features to unit embeddings of all moments; the moment encoder computes densely."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, D) -> ``contrastive`` and ``iou``, both (B, P, J)."""
        moments = unit_vectors(self.neck(self.backbone(features)))
        return moments['contrastive'], moments['iou']


VIDEO, TEXT, CONSTANTS, TOKENIZER = 'video.onnx', 'text.onnx', 'model.json', 'tokenizer.json'
OUTPUTS = ['contrastive', 'iou']


def export_onnx(inferencer, folder: str | Path) -> list[Path]:
    """Write both sides of a model.

    ``video.onnx`` takes pooled features (B, R, D), ``text.onnx`` token ids (S, L); both give unit
    embeddings, so that a score needs two products and no more (``model.json`` says how, and holds
    the moments as shares of the duration). ``tokenizer.json`` is read by the library tokenizers.

    Args:
        inferencer (GroundingInferencer): The model; it is not changed.
        folder (str | Path): Made if it is not there; the files in it are returned.

    Raises:
        ValueError: If the packages for it are not installed, the model scores clips rather than
            moments, or by a tower.
        OutputError: If the folder cannot be written into, or holds other files of these names.
    """
    if inferencer.model.head.moment_map is None:
        raise InputError(
            f'only MMN can be exported, not {type(inferencer.model).__name__}: the '
            'graphs hold embeddings of moments'
        )
    if inferencer.model.head.tower_spaces:
        raise InputError(
            'scores of this model need its tower, which is not in the graphs: export it with '
            'model.head.tower_weight=0'
        )
    _require('onnx', 'onnxscript')
    files = dict.fromkeys((VIDEO, TEXT, CONSTANTS, TOKENIZER))
    with OutputFolder(folder).writing(files) as path:
        _write(inferencer, path)
        return [path / name for name in files]


def _write(inferencer, folder: Path) -> None:
    model = _dense_copy(inferencer.model)
    features, text = example_inputs(inferencer, videos=2, sentences=3)
    limits = dict(videos=4096, sentences=1 << 16, tokens=model.text_encoder.max_tokens or 512)
    videos, sentences, tokens = (
        torch.export.Dim(name, min=1, max=most) for name, most in limits.items()
    )
    of_text = {0: sentences, 1: tokens}
    for side, inputs, name, shapes in (
        (VideoSide(model), (features,), VIDEO, dict(features={0: videos})),
        (TextSide(model), text, TEXT, dict(input_ids=of_text, attention_mask=of_text)),
    ):
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                side.eval(),
                inputs,
                folder / name,
                input_names=list(shapes),
                output_names=OUTPUTS,
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    (folder / CONSTANTS).write_text(json.dumps(_constants(inferencer), indent=1) + '\n')
    tokenizer = model.data_preprocessor.tokenizer.state()['tokenizer']
    (folder / TOKENIZER).write_text(tokenizer, encoding='utf-8')


def check_onnx(inferencer, folder: str | Path) -> dict[str, float]:
    """Largest difference from PyTorch of each output in onnxruntime, over several sizes.

    Args:
        inferencer (GroundingInferencer): The model that was exported.
        folder (str | Path): From `export_onnx`.

    Returns:
        dict[str, float]: ``contrastive`` and ``iou`` of both, as ``video/iou`` or ``text/iou``.

    Raises:
        ValueError: If onnxruntime is not installed.
    """
    _require('onnxruntime')
    import onnxruntime

    model = _dense_copy(inferencer.model)
    sides = {VIDEO: VideoSide(model), TEXT: TextSide(model)}
    sessions = {
        name: onnxruntime.InferenceSession(Path(folder) / name, providers=['CPUExecutionProvider'])
        for name in sides
    }
    worst: dict[str, float] = {}
    for count in (1, 2, 5):
        features, text = example_inputs(inferencer, count, count, seed=count)
        for name, given in ((VIDEO, (features,)), (TEXT, text)):
            names = [value.name for value in sessions[name].get_inputs()]
            with torch.inference_mode():
                expected = sides[name](*given)
            arrays = {key: value.numpy() for key, value in zip(names, given, strict=True)}
            found = sessions[name].run(OUTPUTS, arrays)
            for output, ours, theirs in zip(OUTPUTS, expected, found, strict=True):
                key = f'{Path(name).stem}/{output}'
                difference = float(np.abs(ours.numpy() - theirs).max())
                worst[key] = max(worst.get(key, 0.0), difference)
    return worst


def example_inputs(inferencer, videos: int, sentences: int, seed: int = 0):
    """Random features (B, R, D), and token ids and mask (S, L) of sentences of random lengths."""
    model, generator = inferencer.model, torch.Generator().manual_seed(seed)
    rows = model.grid.num_clips * model.backbone.pool.stride[0]
    features = torch.rand(videos, rows, model.backbone.in_channels, generator=generator)
    tokenizer = model.data_preprocessor.tokenizer
    longest = min(model.text_encoder.max_tokens or 12, 12)
    lengths = torch.randint(3, longest + 1, (sentences,), generator=generator).tolist()
    most = tokenizer.vocab_size
    ids = [torch.randint(most, (length,), generator=generator).tolist() for length in lengths]
    return features, tokenizer.pad(ids)


def _constants(inferencer) -> dict:
    model = inferencer.model
    head, grid = model.head, model.grid
    return dict(
        format='mmn_plugin/onnx',
        version=1,
        score='(0.5 * contrastive + 0.5) ** score_power * sigmoid(iou_scale * iou), where '
        'contrastive and iou are dot products of a sentence with a moment',
        score_power=head.score_power,
        iou_scale=head.iou_scale,
        expected_iou_power=head.expected_iou_power,
        nms_threshold=head.nms_threshold,
        top_n=inferencer.top_n,
        presence_threshold=inferencer.presence_threshold,
        num_segments=grid.num_clips * model.backbone.pool.stride[0],
        feature_size=model.backbone.in_channels,
        max_tokens=model.data_preprocessor.tokenizer.max_length,
        moments=grid.spans(1.0).tolist(),
    )


def _dense_copy(model: nn.Module) -> nn.Module:
    """On the CPU, with the convolutions that a graph can hold."""
    model = copy.deepcopy(model).cpu().eval()
    model.neck.encoder.conv_mode = 'dense'
    return model


@contextmanager
def _quiet():
    """The exporter speaks of its own inner steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        logging.disable(before)


def _require(*packages: str) -> None:
    if absent := [name for name in packages if find_spec(name) is None]:
        raise InputError(
            f'{", ".join(absent)} cannot be imported: install the extra, '
            'pip install "mmn_plugin[onnx]"'
        )
