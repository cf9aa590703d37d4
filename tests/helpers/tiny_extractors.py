"""Recognizers and vision models of a few channels with random weights, on the disk."""

from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

SIDE = 32
TOWER = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)


def write_recognizer(folder: Path, kind: str = '3d', clip_len: int = 4) -> dict:
    """Config and checkpoint; returns what an extractor needs to know."""
    folder.mkdir(parents=True, exist_ok=True)
    head = dict(type='I3DHead', num_classes=5, in_channels=32, spatial_type='avg')
    if kind == '3d':
        backbone = dict(
            type='ResNet3dSlowOnly',
            depth=18,
            base_channels=4,
            lateral=False,
            conv1_kernel=(1, 3, 3),
            conv1_stride_t=1,
            pool1_stride_t=1,
            inflate=(0, 0, 1, 1),
            pretrained=None,
        )
        sampling = dict(type='SampleFrames', clip_len=clip_len, frame_interval=2, num_clips=1)
    else:
        backbone = (
            dict(type='MobileOneTSM', arch='s0')
            if kind == 'tsm'
            else dict(type='ResNet', depth=18, pretrained=None)
        )
        head = dict(type='TSNHead', num_classes=5, in_channels=512, spatial_type='avg')
        sampling = dict(type='SampleFrames', clip_len=1, frame_interval=1, num_clips=clip_len)
    shape = 'NCTHW' if kind == '3d' else 'NCHW'
    model = dict(
        type='Recognizer3D' if kind == '3d' else 'Recognizer2D',
        backbone=backbone,
        cls_head=head,
        data_preprocessor=dict(
            type='ActionDataPreprocessor',
            mean=[100.0, 110.0, 120.0],
            std=[50.0, 60.0, 70.0],
            format_shape=shape,
        ),
    )
    pipeline = [
        dict(type='DecordInit'),
        sampling,
        dict(type='DecordDecode'),
        dict(type='Resize', scale=(-1, 40)),
        dict(type='CenterCrop', crop_size=SIDE),
        dict(type='FormatShape', input_format=shape),
        dict(type='PackActionInputs'),
    ]
    config = folder / 'recognizer.py'
    config.write_text(
        f'model = {model!r}\nval_dataloader = dict(dataset=dict(pipeline={pipeline!r}))\n'
    )
    torch.manual_seed(0)
    save_weights(model, folder / 'recognizer.pth')
    return dict(
        type='RecognizerFeatureExtractor',
        config=str(config),
        checkpoint=str(folder / 'recognizer.pth'),
        fps=8.0,
        stride=4,
        device='cpu',
    )


def build(model: dict):
    """The recognizer of a config with random weights; nothing is downloaded."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        return MODELS.build(Config(model))


def save_weights(model: dict, path: Path, prefix: str = '') -> None:
    """Checkpoint with the weights of a part of a newly built model."""
    state = build(model).state_dict()
    torch.save(
        dict(
            meta={},
            state_dict={
                key.removeprefix(prefix): value
                for key, value in state.items()
                if key.startswith(prefix)
            },
        ),
        path,
    )


def write_vision_model(folder: Path, pooler: bool = False) -> dict:
    """A ViT as `save_pretrained` leaves it."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(**TOWER, image_size=SIDE, patch_size=16)
    transformers.ViTModel(config, add_pooling_layer=pooler).save_pretrained(folder)
    size = dict(height=SIDE, width=SIDE)
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return dict(
        type='HuggingFaceFeatureExtractor', model=str(folder), fps=4.0, stride=2, device='cpu'
    )
