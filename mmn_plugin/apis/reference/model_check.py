"""A whole model against a golden file."""

from pathlib import Path

import numpy as np
import torch
from mmaction.registry import MODELS, TRANSFORMS
from mmengine.structures import InstanceData

from mmn_plugin.models import moment_scores
from mmn_plugin.models.published_weights import from_published, published_name
from mmn_plugin.structures import GroundingDataSample

from .evaluation_check import check_ranking
from .golden_file import GoldenFile
from .report import Report
from .trajectory import train_trajectory

# Relative to the largest reference value of a quantity.
FLOAT64_BOUND = 1e-6  # losses, gradients, buffers, trajectory
FORWARD_BOUND = 1e-5  # float64 embeddings and scores, against what was computed in float32
POOLING_BOUND = 1e-6
# Absolute, of the same in float32: entries of unit vectors, their cosines and sigmoids. Relative to
# a small cosine the rounding of a CPU's kernels can be several times this.
FLOAT32_BOUND = 1e-5


def check_model(
    golden: GoldenFile, vocabulary: Path, conv_mode: str = 'dense', device: str = 'cpu'
) -> Report:
    """Check every quantity of a file that holds a model.

    Args:
        golden (GoldenFile): The reference.
        vocabulary (Path): WordPiece vocabulary, one entry a line.
        conv_mode (str): How the moment encoder computes. Defaults to ``'dense'``.
        device (str): Where the model computes; the bounds are the same. Defaults to ``'cpu'``.

    Returns:
        Report: A row per quantity; one that says so per group the file has nothing of.

    Raises:
        GoldenFileError: If a group is incomplete, or what the model or its input is made from is
            absent or damaged; the message names file and key.
        KeyError: If a weight is absent or unknown; the message names it.
    """
    report = Report()
    model = build_model(golden.config, vocabulary, conv_mode).to(device)
    model.load_state_dict(from_published(golden.weights('state')))
    samples = check_data(report, golden, model)
    features = torch.from_numpy(golden['pooled_feats'])
    check_training(report, golden, model, features.double(), samples)
    check_trajectory(report, golden, model, features.double(), samples)
    check_inference(report, golden, model, features, samples)
    return report


def build_model(config: dict, vocabulary: Path, conv_mode: str = 'dense'):
    """The model of a golden file's settings."""
    return MODELS.build(
        model_settings(config, _head(config), 'GroundingDataPreprocessor', vocabulary, conv_mode)
    )


def model_settings(
    config: dict, head: dict, preprocessor: str, vocabulary: Path, conv_mode: str
) -> dict:
    """What to build of a golden file's settings, with a head and a data preprocessor."""
    return dict(
        type='MMN',
        grid=dict(num_clips=config['num_clips'], pooling_counts=config['pooling_counts']),
        backbone=dict(
            type='ClipEncoder',
            in_channels=config['in_dim'],
            out_channels=config['hidden'],
            kernel_size=config['featpool_kernel'],
            stride=config['num_pre_clips'] // config['num_clips'],
        ),
        neck=dict(conv_mode=conv_mode, **_neck(config)),
        text_encoder=dict(
            type='SentenceEncoder',
            embed_channels=config['joint'],
            config=dict(model_type='distilbert', **config['bert']),
        ),
        head=head,
        data_preprocessor=dict(
            type=preprocessor, tokenizer=dict(type='SentenceTokenizer', vocab=str(vocabulary))
        ),
    )


def _neck(config: dict) -> dict:
    moment_map = {'pool': 'MomentMapPool', 'conv': 'MomentMapConv'}
    return dict(
        type='MomentMapNeck',
        channels=config['hidden'],
        embed_channels=config['joint'],
        kernel_size=config['conv_kernel'],
        num_layers=config['conv_layers'],
        moment_map=dict(type=moment_map[config['map']]),
    )


def _head(config: dict) -> dict:
    return dict(
        type='MutualMatchingHead',
        loss_matching=dict(
            type='MutualMatchingLoss',
            num_positive=config['num_positive'],
            negative_iou=config['negative_iou'],
            sentence_removal_iou=config['sent_removal_iou'],
            margin=config['margin'],
            temperature_video=config['tau_video'],
            temperature_sentence=config['tau_sent'],
        ),
        loss_iou=dict(
            type='IoURegressionLoss', min_iou=config['min_iou'], max_iou=config['max_iou']
        ),
        contrastive_weight=config['contrastive_weight'],
        score_power=config['score_power'],
        nms_threshold=config['nms_thr'],
    )


def check_data(report: Report, golden: GoldenFile, model) -> list[GroundingDataSample]:
    """Annotations, pooled features, token ids and IoU targets; returns the batch's samples."""
    videos = golden.annotations()
    samples = []
    for video in videos:
        sample = GroundingDataSample(
            metainfo=dict(
                video_id=video.video_id,
                duration=video.duration,
                sentences=video.sentences,
                sentence_index=video.sentence_index,
            )
        )
        sample.gt_instances = InstanceData(moments=torch.tensor(video.moments))
        samples.append(sample)
    moments = {str(v): s.gt_instances.moments.numpy() for v, s in enumerate(samples)}
    report.compare('moments', moments, golden.group('moments'), 0.0)
    report.compare(
        'durations', dict(all=[v.duration for v in videos]), dict(all=golden['durations']), 0.0
    )
    pool = TRANSFORMS.build(
        dict(type='PoolClipFeatures', num_segments=golden.config['num_pre_clips'])
    )
    pooled = [
        pool(dict(features=golden[f'feat/{v.video_id}'], video_id=v.video_id))['features']
        for v in videos
    ]
    report.compare(
        'pooled_feats', dict(all=np.stack(pooled)), dict(all=golden['pooled_feats']), POOLING_BOUND
    )
    tokenizer, ids, lengths = model.data_preprocessor.tokenizer, {}, {}
    for v, video in enumerate(videos):
        input_ids, attention_mask = tokenizer.pad(tokenizer.encode(video.sentences))
        ids[str(v)], lengths[str(v)] = input_ids.numpy(), attention_mask.sum(1).numpy()
    report.compare('input_ids', ids, golden.group('input_ids'), 0.0)
    report.compare('word_lens', lengths, golden.group('word_lens'), 0.0)
    report.compare('mask2d', dict(all=model.grid.mask.numpy()), dict(all=golden['mask2d']), 0.0)
    iou = {
        str(v): model.grid.iou(s.gt_instances.moments, s.duration).numpy()
        for v, s in enumerate(samples)
    }
    report.compare('iou', iou, golden.group('iou'), 0.0)
    return samples


def check_training(report: Report, golden: GoldenFile, model, features, samples) -> None:
    """Losses, all gradients and BatchNorm's buffers after one forward, in float64."""
    state = from_published(golden.weights('state'))
    model.load_state_dict(state)
    model.double().train()
    batch = model.data_preprocessor(dict(inputs=list(features), data_samples=samples))
    losses = model(**batch, mode='loss')
    total = sum(losses.values())
    weight = golden.config['contrastive_weight']
    ours = dict(
        loss_vid=losses['loss_vid'] / weight,
        loss_sent=losses['loss_sent'] / weight,
        loss_iou=losses['loss_iou'],
        total=total,
    )
    for name, value in ours.items():
        reference = {name: golden[f'train/{name}']} if golden.holds('train') else {}
        report.compare(f'train/{name}', {name: value.item()}, reference, FLOAT64_BOUND)
    model.zero_grad()
    total.backward()
    reference = golden.group('grad')
    gradients = {
        published_name(name): parameter.grad for name, parameter in model.named_parameters()
    }
    gradients = {
        name: value.reshape(reference[name].shape) if name in reference else value
        for name, value in gradients.items()
    }
    largest = max((float(np.abs(value).max()) for value in reference.values()), default=0.0)
    report.compare(
        'grad',
        gradients,
        reference,
        FLOAT64_BOUND,
        absolute={name: largest for name in reference if is_zero_gradient(name)},
    )
    buffers = {
        published_name(name): value
        for name, value in model.state_dict().items()
        if name.endswith(('running_mean', 'running_var'))
    }
    report.compare('train_buffers', buffers, golden.group('train_buffers'), FLOAT64_BOUND)


def is_zero_gradient(name: str) -> bool:
    """Whether a parameter's gradient is zero in exact arithmetic.

    A bias before BatchNorm is subtracted again; a bias on all keys shifts all of a softmax's
    logits alike.
    """
    before_norm = name.startswith('proposal_conv.convs.') and name.endswith('.bias')
    return before_norm or name.endswith('k_lin.bias')


def check_trajectory(report: Report, golden: GoldenFile, model, features, samples) -> None:
    """Losses and gradient norm of the optimiser's steps on one batch, in float64."""
    if not golden.holds('trajectory'):
        report.skip('trajectory')
        return
    model.load_state_dict(from_published(golden.weights('state')))
    batch = model.data_preprocessor(dict(inputs=list(features), data_samples=samples))
    ours = train_trajectory(model, batch, golden.config, steps=len(golden['trajectory']))
    for column, name in enumerate(('loss_vid', 'loss_sent', 'loss_iou', 'total', 'grad_norm')):
        report.compare(
            f'trajectory/{name}',
            dict(all=ours[:, column]),
            dict(all=golden['trajectory'][:, column]),
            FLOAT64_BOUND,
        )


@torch.no_grad()
def check_inference(report: Report, golden: GoldenFile, model, features, samples) -> None:
    """Embeddings and scores in eval mode, in float64 and float32; of these ranking and recall."""
    if not golden.holds('eval'):
        report.skip('eval')
        return
    state = golden.weights('state') | golden.weights('eval_buffers')
    model.eval()
    reference = {'map_iou': dict(all=golden['eval/map_iou'])} | {
        name: golden.group(f'eval/{name}', required=True)
        for name in ('sent_iou', 'sent_contrastive', 'contrastive', 'iou_score')
    }
    for dtype in (torch.float64, torch.float32):
        model.to(dtype).load_state_dict(from_published(state))
        ours = inference_figures(model, features.to(dtype), samples)
        check_forward(report, ours, reference, dtype)
    scores = [
        moment_scores(ours['contrastive'][v], ours['iou_score'][v], golden.config['score_power'])
        for v in ours['contrastive']
    ]
    check_ranking(report, golden, model.grid, scores, golden.config['nms_thr'], 'eval/')


def inference_figures(model, features, samples) -> dict[str, dict[str, torch.Tensor]]:
    """Embeddings and scores of a batch by the names of the published code, each by video."""
    batch = model.data_preprocessor(dict(inputs=list(features), data_samples=samples))
    moments, sentences = model(**batch, mode='tensor')
    counts = [len(sample.sentences) for sample in samples]
    contrastive, iou_score = model.head.score(moments, sentences, batch['sentences'].video, counts)
    by_sentence = dict(
        sent_iou=sentences['iou'],
        sent_contrastive=sentences['contrastive'],
        contrastive=contrastive,
        iou_score=iou_score,
    )
    return dict(map_iou=dict(all=moments['iou'].transpose(1, 2))) | {
        name: {str(v): part for v, part in enumerate(value.split(counts))}
        for name, value in by_sentence.items()
    }


def check_forward(report: Report, ours: dict, reference: dict, dtype: torch.dtype) -> None:
    """Compare quantities by name and video: float64 each in its row, float32 all in one."""
    if dtype == torch.float64:
        for name, values in ours.items():
            report.compare(f'eval/{name}', values, reference[name], FORWARD_BOUND)
        return
    ours, reference = (
        {
            f'{name}/{key}': value
            for name, values in figures.items()
            for key, value in values.items()
        }
        for figures in (ours, reference)
    )
    report.compare(
        'eval in float32', ours, reference, FLOAT32_BOUND, absolute=dict.fromkeys(reference, 1.0)
    )
