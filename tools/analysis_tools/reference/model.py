"""A whole model against a golden file."""

from pathlib import Path

import numpy as np
import torch
from mmaction.registry import MODELS
from mmengine.optim import build_optim_wrapper

from mmn_plugin.config import load_config
from mmn_plugin.datasets import PoolClipFeatures
from mmn_plugin.engine import CrossVideoNegativeHook, FreezeLanguageModelHook
from mmn_plugin.models import moment_scores
from mmn_plugin.models.published_weights import UNUSED, from_published, published_name
from mmn_plugin.structures import GroundingDataSample, VideoEmbedding, true_windows

from .golden_file import GoldenFile, Report
from .ranking import check_ranking

# Relative to the largest reference value of a quantity.
FLOAT64_BOUND = 1e-6  # losses, gradients, buffers, trajectory
FORWARD_BOUND = 1e-5  # float64 embeddings and scores, against what was computed in float32
POOLING_BOUND = 1e-6
# Absolute, of the same in float32: entries of unit vectors, their cosines and sigmoids. Relative to
# a small cosine the rounding of a CPU's kernels can be several times this.
FLOAT32_BOUND = 1e-5


SETTINGS = {  # of our models: of a golden file
    'grid.num_clips': 'num_clips',
    'grid.pooling_counts': 'pooling_counts',
    'backbone.in_channels': 'in_dim',
    'backbone.out_channels': 'hidden',
    'backbone.kernel_size': 'featpool_kernel',
    'neck.channels': 'hidden',
    'neck.embed_channels': 'joint',
    'neck.kernel_size': 'conv_kernel',
    'neck.num_layers': 'conv_layers',
    'text_encoder.embed_channels': 'joint',
    'head.loss_matching.negative_iou': 'negative_iou',
    'head.loss_matching.margin': 'margin',
    'head.loss_matching.temperature_video': 'tau_video',
    'head.loss_matching.temperature_sentence': 'tau_sent',
    'head.loss_iou.min_iou': 'min_iou',
    'head.loss_iou.max_iou': 'max_iou',
    'head.contrastive_weight': 'contrastive_weight',
}
SETTINGS_OF_MOMENTS = {
    'head.loss_matching.num_positive': 'num_positive',
    'head.loss_matching.sentence_removal_iou': 'sent_removal_iou',
    'head.score_power': 'score_power',
    'head.nms_threshold': 'nms_thr',
}


def check_model(
    golden: GoldenFile, vocabulary: Path, neck: dict | None = None, device: str = 'cpu'
) -> Report:
    """Check every quantity of a file that holds a model.

    Args:
        golden (GoldenFile): The reference.
        vocabulary (Path): WordPiece vocabulary, one entry a line.
        neck (dict, optional): Settings of the neck, as ``conv_mode``. Defaults to None: dense.
        device (str): Where the model computes; the bounds are the same. Defaults to ``'cpu'``.

    Returns:
        Report: A row per quantity; one that says so per group the file has nothing of.

    Raises:
        GoldenFileError: If a group is incomplete, or what the model or its input is made from is
            absent or damaged; the message names the key.
        KeyError: If a weight is absent or unknown; the message names it.
    """
    report = Report()
    model = build_model(golden.config, vocabulary, neck).to(device)
    state = from_published(golden.weights('state'))
    model.load_state_dict(state)
    samples = check_data(report, golden, model)
    features = torch.from_numpy(golden['pooled_feats'])
    batch = batch_of(model.double(), features.double(), samples)
    check_training(report, golden, model, batch)
    model.load_state_dict(state)
    check_trajectory(report, golden, model, batch)
    check_inference(report, golden, model, features, samples)
    return report


def build_model(
    config: dict,
    vocabulary: Path,
    neck: dict | None = None,
    base: str = 'mmn_charades.py',
    settings: dict[str, str] = SETTINGS | SETTINGS_OF_MOMENTS,
):
    """The model of one of our configs with a golden file's settings."""
    ours = load_config(base)
    moment_map = {'pool': 'MomentMapPool', 'conv': 'MomentMapConv'}
    values = {name: config[theirs] for name, theirs in settings.items()} | {
        'backbone.stride': config['num_pre_clips'] // config['num_clips'],
        'neck.conv_mode': 'dense',
        'neck.moment_map.type': moment_map[config['map']],
        'text_encoder.name_or_path': None,
        'text_encoder.config': dict(model_type='distilbert', **config['bert']),
        'data_preprocessor.tokenizer.name_or_path': None,
        'data_preprocessor.tokenizer.vocab': str(vocabulary),
    }
    values |= {f'neck.{name}': value for name, value in (neck or {}).items()}
    ours.merge_from_dict({f'model.{name}': value for name, value in values.items()})
    return MODELS.build(ours.model)


def batch_of(model, features, samples: list) -> dict:
    """Preprocessed videos."""
    return model.data_preprocessor(dict(inputs=list(features), data_samples=samples))


def check_data(report: Report, golden: GoldenFile, model) -> list[GroundingDataSample]:
    """Annotations, pooled features, token ids and IoU targets; returns the batch's samples."""
    videos, samples = golden.annotations(), []
    names = ('video_id', 'duration', 'sentences', 'sentence_index')
    for video in videos:
        metainfo = {name: getattr(video, name) for name in names}
        samples.append(GroundingDataSample(metainfo=metainfo))
        samples[-1].gt_instances = true_windows(video.windows)
    moments = {str(v): sample.gt_instances.moments for v, sample in enumerate(samples)}
    report.compare('moments', moments, golden.group('moments'), 0.0)
    report.compare('durations', [v.duration for v in videos], golden['durations'], 0.0)
    num_segments = golden.config['num_pre_clips']
    features = (golden[f'feat/{video.video_id}'] for video in videos)
    pooled = np.stack([PoolClipFeatures.pool(rows, num_segments) for rows in features])
    report.compare('pooled_feats', pooled, golden['pooled_feats'], POOLING_BOUND)
    tokenizer, ids, lengths = model.data_preprocessor.tokenizer, {}, {}
    for v, video in enumerate(videos):
        ids[str(v)], attention_mask = tokenizer.pad(tokenizer.encode(video.sentences))
        lengths[str(v)] = attention_mask.sum(1)
    report.compare('input_ids', ids, golden.group('input_ids'), 0.0)
    report.compare('word_lens', lengths, golden.group('word_lens'), 0.0)
    report.compare('mask2d', model.grid.mask, golden['mask2d'], 0.0)
    iou = {str(v): model.grid.best_iou(s.windows, s.duration) for v, s in enumerate(samples)}
    report.compare('iou', iou, golden.group('iou'), 0.0)
    return samples


def check_training(report: Report, golden: GoldenFile, model, batch: dict) -> None:
    """Losses, all gradients and BatchNorm's buffers after one forward, in float64."""
    losses = model.train()(**batch, mode='loss')
    total = sum(losses.values())
    weight = golden.config['contrastive_weight']
    ours = dict(
        loss_vid=losses['loss_vid'] / weight,
        loss_sent=losses['loss_sent'] / weight,
        loss_iou=losses['loss_iou'],
        total=total,
    )
    for name, value in ours.items():
        reference = golden[f'train/{name}'] if golden.holds('train') else {}
        report.compare(f'train/{name}', value, reference, FLOAT64_BOUND)
    check_gradients(report, 'grad', model, total, golden.group('grad'), FLOAT64_BOUND)
    check_buffers(report, 'train_buffers', model, golden.group('train_buffers'))


def check_gradients(
    report: Report, quantity: str, model, total: torch.Tensor, reference: dict, bound: float
) -> None:
    """Compare the gradients of all parameters, by their published names."""
    if not reference:
        report.skip(quantity)
        return
    model.zero_grad()
    total.backward()
    gradients = {published_name(name): value.grad for name, value in model.named_parameters()}
    gradients |= {name: np.zeros_like(reference[name]) for name in UNUSED if name in reference}
    gradients = {
        name: value.reshape(reference[name].shape) if name in reference else value
        for name, value in gradients.items()
    }
    largest = max(float(np.abs(value).max()) for value in reference.values())
    zero = {name: largest for name in reference if is_zero_gradient(name)}
    report.compare(quantity, gradients, reference, bound, absolute=zero)


def is_zero_gradient(name: str) -> bool:
    """Whether a parameter's gradient is zero in exact arithmetic.

    A bias before BatchNorm is subtracted again; a bias on all keys shifts all of a softmax's
    logits alike.
    """
    before_norm = name.startswith('proposal_conv.convs.') and name.endswith('.bias')
    return before_norm or name.endswith('k_lin.bias')


def check_buffers(report: Report, quantity: str, model, reference: dict) -> None:
    """Compare BatchNorm's statistics, by their published names."""
    buffers = {
        published_name(name): value
        for name, value in model.state_dict().items()
        if name.endswith(('running_mean', 'running_var'))
    }
    report.compare(quantity, buffers, reference, FLOAT64_BOUND)


def check_trajectory(report: Report, golden: GoldenFile, model, batch: dict) -> None:
    """Losses and gradient norm of the optimizer's steps on one batch, in float64."""
    if not golden.holds('trajectory'):
        report.skip('trajectory')
        return
    reference = golden['trajectory']
    ours = train(model, batch, golden.config['trajectory'], len(reference))
    for column, name in enumerate(('loss_vid', 'loss_sent', 'loss_iou', 'total', 'grad_norm')):
        report.compare(f'trajectory/{name}', ours[:, column], reference[:, column], FLOAT64_BOUND)


def train(model, batch: dict, settings: dict, steps: int) -> np.ndarray:
    """Train on one batch; a step counts as an epoch of the schedules.

    Args:
        model (MMN): In the state and precision to start from.
        batch (dict): Preprocessed.
        settings (dict): ``trajectory`` of a golden file's settings.
        steps (int): Number of steps.

    Returns:
        np.ndarray: (steps, 5) float64: loss_vid and loss_sent times the contrastive weight
        (without the late factor), loss_iou, total (with it), gradient norm before clipping.
    """
    optimizer = dict(
        type='AdamW', **{key: settings[key] for key in ('lr', 'betas', 'weight_decay')}
    )
    of_bert = dict(bert=dict(lr_mult=settings['bert_lr'] / settings['lr']))
    optim_wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=optimizer,
            clip_grad=dict(max_norm=settings['clip']),
            paramwise_cfg=dict(custom_keys=of_bert),
        ),
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(
        optim_wrapper.optimizer, [settings['milestone']], settings['gamma']
    )
    negatives = CrossVideoNegativeHook(
        settings['full_contrastive_through_step'], settings['late_contrastive_factor']
    )
    model.train()
    rows = []
    for step in range(1, steps + 1):
        FreezeLanguageModelHook.freeze(model, step <= settings['bert_frozen_through_step'])
        model.head.contrastive_factor = factor = negatives.factor(step)
        losses = model(**batch, mode='loss')
        total = sum(losses.values())
        optim_wrapper.zero_grad()
        optim_wrapper.backward(total)
        norm = torch.nn.utils.get_total_norm(
            [value.grad for value in model.parameters() if value.grad is not None]
        )
        optim_wrapper.step()
        scheduler.step()
        vid, sent = losses['loss_vid'] / factor, losses['loss_sent'] / factor
        rows.append([value.item() for value in (vid, sent, losses['loss_iou'], total, norm)])
    FreezeLanguageModelHook.freeze(model, False)
    return np.array(rows)


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
    moments, sentences = model(**batch_of(model, features, samples), mode='tensor')
    counts = [len(sample.sentences) for sample in samples]
    videos = VideoEmbedding.stack(model.head.split(moments, samples))
    cosines = model.head.cosines(videos, sentences, counts)
    by_sentence = dict(
        sent_iou=sentences['iou'],
        sent_contrastive=sentences['contrastive'],
        contrastive=cosines['contrastive'],
        iou_score=(model.head.iou_scale * cosines['iou']).sigmoid(),
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
        {f'{name}/{key}': array for name in figures for key, array in figures[name].items()}
        for figures in (ours, reference)
    )
    report.compare(
        'eval in float32', ours, reference, FLOAT32_BOUND, absolute=dict.fromkeys(reference, 1.0)
    )
