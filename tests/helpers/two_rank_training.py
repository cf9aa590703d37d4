"""Training steps of a tiny model, the same in one process and, shared out, in two."""

import copy

import torch
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import nn

from helpers.stub_tower import StubTower
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from helpers.tiny_weak import tiny_weak_model
from mmn_plugin.models import NegativeSource
from mmn_plugin.structures import GroundingDataSample, true_windows

SENTENCES = (
    'A person opens the door.',
    'the red box',
    'then the blue box closes slowly',
    'a person opens the DOOR',
    'the box',
)

# Videos and numbers of sentences per rank and step, and what else differs from CASE. A name that
# occurs twice is the same video.
CASE = dict(
    steps=[[[('a', 2), ('b', 1)], [('c', 1), ('d', 2)]]],
    source=dict(scope='global'),
    loss={},
    max_norm=None,
    dtype=torch.float64,
    accumulate=1,
    train_bn=False,
    conv_mode='dense',
    weak=False,
    windows=(1,),  # of a sentence, in turn
    head={},
)
CASES = {
    '3 sentences per rank': {},
    '1 and 17 sentences': dict(steps=[[[('a', 1)], [('c', 5), ('d', 12)]]]),
    'the same video on both ranks': dict(steps=[[[('a', 2), ('b', 3)], [('c', 1), ('a', 2)]]]),
    'three positives': dict(loss=dict(num_positive=3)),
    'chunks of one video': dict(loss=dict(num_positive=3, chunk_elements=1)),
    'a last short batch': dict(
        steps=[[[('a', 2), ('b', 1)], [('c', 1), ('d', 3)]], [[('e', 1)], [('a', 2), ('f', 3)]]]
    ),
    'clipping': dict(max_norm=0.05),
    'float32': dict(dtype=torch.float32, loss=dict(num_positive=3), max_norm=0.05),
    'texts': dict(
        source=dict(scope='global', exclude_same_text=True),
        steps=[[[('a', 4), ('b', 3)], [('c', 1), ('d', 5)]], [[('e', 4)], [('a', 4), ('f', 5)]]],
    ),
    'meanings': dict(
        source=dict(scope='global', exclude_similar=0.7),
        steps=[[[('a', 4), ('b', 3)], [('c', 1), ('d', 5)]], [[('e', 4)], [('a', 4), ('f', 5)]]],
    ),
    'accumulation': dict(
        accumulate=2,
        max_norm=0.05,
        steps=[[[('a', 2), ('b', 1)], [('c', 1), ('d', 3)]], [[('e', 1)], [('a', 2), ('f', 3)]]],
    ),
    'trained BatchNorm over all ranks': dict(train_bn=True, conv_mode='sparse', max_norm=0.05),
    'trained BatchNorm over all ranks, in strips': dict(train_bn=True, conv_mode='strips'),
    'weak supervision': dict(
        weak=True,
        source=dict(scope='global', exclude_same_text=True),
        steps=[[[('a', 4), ('b', 3)], [('c', 1)]], [[('e', 4)], [('a', 4), ('f', 5)]]],
    ),
    'pieces of one and of two videos': dict(
        source=dict(scope='global', piece=2),
        accumulate=2,
        max_norm=0.05,
        steps=[
            [[('a', 2), ('b', 1), ('i', 1)], [('c', 1), ('d', 3)]],
            [[('e', 1), ('f', 2), ('g', 3)], [('a', 2), ('h', 1), ('j', 1)]],
        ],
    ),
    'several windows, and none': dict(
        windows=(2, 0, 1, 3),
        source=dict(scope='global', exclude_same_text=True),
        loss=dict(num_positive=3),
        steps=[
            [[('a', 2), ('b', 1)], [('c', 1), ('d', 4)]],
            [[('e', 4)], [('a', 2), ('f', 3)]],
        ],
    ),
    'a rank in which nothing occurs': dict(
        windows=(0, 1),  # the only sentence of b and of d does not
        steps=[[[('b', 1)], [('a', 2), ('c', 1)]], [[('a', 1), ('e', 2)], [('d', 1)]]],
    ),
    'sentences that are ignored': dict(
        windows=(0, 2, 1),
        head=dict(absent='ignore', positives='sentence'),
        loss=dict(num_positive=2),
        steps=[
            [[('a', 2), ('b', 1)], [('c', 1), ('d', 4)]],
            [[('e', 4)], [('c', 1)]],
        ],
    ),
    'nothing occurs': dict(
        windows=(0,),
        head=dict(absent='ignore'),
        steps=[[[('a', 1)], [('c', 2)]]],
    ),
    'local': dict(source=dict(scope='local')),
}


def case(name: str) -> dict:
    """Settings of a case."""
    return CASE | CASES[name]


def build_model(settings: dict) -> nn.Module:
    """The same weights for every process; BatchNorm is frozen on made-up statistics."""
    weak = settings['weak']
    config = Config.fromfile(f'mmn_plugin::{"mscl" if weak else "mmn"}_charades.py')
    config.merge_from_dict(dict(model=(tiny_weak_model if weak else tiny_model)('unused', 0.0)))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    config.model.head.loss_matching.update(settings['loss'])
    if not weak:
        config.model.neck.conv_mode = settings['conv_mode']
    torch.manual_seed(0)
    model = MODELS.build(config.model).to(settings['dtype']).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not settings['train_bn']:
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.eval()
    for name, value in settings['head'].items():
        setattr(model.head, name, value)
    model.head.negatives, model.tower = NegativeSource(**settings['source']), StubTower()
    return model


def sample(name: str, count: int, about: dict = CASE) -> tuple[torch.Tensor, GroundingDataSample]:
    """A video's features and sentences, which its name and their number decide."""
    generator = torch.Generator().manual_seed(ord(name))
    duration = 20.0 + ord(name) % 7
    result = GroundingDataSample(
        metainfo=dict(
            video_id=name,
            duration=duration,
            sentence_index=list(range(count)),
            sentences=[SENTENCES[(ord(name) + i) % len(SENTENCES)] for i in range(count)],
        )
    )
    windows = about['windows']
    counts = [windows[(ord(name) + i) % len(windows)] for i in range(count)]
    starts = torch.rand(sum(counts), generator=generator) * duration / 2
    if not about['weak']:
        own = torch.stack([starts, starts + duration / 4], 1).split(counts)
        result.gt_instances = true_windows([part.tolist() for part in own])
    return torch.randn(NUM_SEGMENTS, FEATURE_SIZE, generator=generator), result


def train(settings: dict, rank: int | None) -> dict:
    """Train through all steps, as one of two ranks or, with None, as the only process.

    Returns:
        dict: ``losses``, a dict of floats per step, ``gradients``, of every parameter as the
        optimizer saw it (averaged and clipped), and, after the last step, ``weights`` and
        ``statistics``, BatchNorm's running mean and variance.
    """
    plain = build_model(settings)
    model = (
        plain
        if rank is None
        else MMDistributedDataParallel(plain, find_unused_parameters=True, broadcast_buffers=False)
    )
    if settings['train_bn'] and rank is not None:  # the sparse mode computes it on CPUs as well
        for module in plain.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__, module.process_group = nn.SyncBatchNorm, None
    clip = settings['max_norm'] and dict(max_norm=settings['max_norm'])
    optim = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.1),
            clip_grad=clip,
            accumulative_counts=settings['accumulate'],
        ),
    )
    optim.initialize_count_status(model, 0, len(settings['steps']))
    seen, gradients = [], []
    for ranks in settings['steps']:
        videos = ranks[rank] if rank is not None else [video for part in ranks for video in part]
        inputs, samples = zip(*(sample(*video, settings) for video in videos), strict=True)
        inputs = [value.to(settings['dtype']) for value in inputs]
        data = plain.data_preprocessor(dict(inputs=inputs, data_samples=list(samples)))
        with optim.optim_context(model):
            losses = model(**data, mode='loss')
            seen.append({name: value.item() for name, value in losses.items()})
        optim.backward(optim.scale_loss(sum(losses.values())))
        if optim.should_update():
            if clip:
                optim._clip_grad()
            gradients.append(
                copy.deepcopy(
                    {name: parameter.grad for name, parameter in plain.named_parameters()}
                )
            )
            optim.optimizer.step()
            optim.zero_grad()
    return dict(
        losses=seen,
        gradients=gradients,
        weights={name: value.detach() for name, value in plain.named_parameters()},
        statistics={
            name: value
            for name, value in plain.named_buffers()
            if name.endswith(('running_mean', 'running_var'))
        },
    )
