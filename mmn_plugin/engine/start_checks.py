"""A run before its first iteration: what is built, set and checked."""

import filecmp
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import HOOKS, RUNNERS
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS, OPTIMIZERS
from mmengine.runner import Runner

from mmn_plugin.config import apply_tf32, config_errors, needs_weights, print_warning
from mmn_plugin.errors import ConfigError, InputError
from mmn_plugin.evaluation import GroundingMetric
from mmn_plugin.features.feature_file import CONSTANT, ZERO, lack_of_content

from .dist import bare_model


def require_parts(config: Config) -> None:
    """Make sure that a config of a run names what there is, where MMEngine would call None.

    Raises:
        ConfigError: If there is no model, or no such optimizer or function that collates a batch.
    """
    where = config.filename or 'the config'
    if 'model' not in config:
        raise ConfigError(f'{where} lacks the setting `model`')
    collated = [f'{split}_dataloader.collate_fn' for split in ('train', 'val', 'test')]
    for name in ('optim_wrapper.optimizer', *collated):
        part, key = name.split('.')
        kind = ((config.get(part) or {}).get(key) or {}).get('type')
        registry = OPTIMIZERS if key == 'optimizer' else FUNCTIONS
        if isinstance(kind, str) and registry.get(kind) is None:
            raise ConfigError(
                f'{where}: {name}.type is {kind!r}, and there is no {registry.name} of that name'
            )


# What the Runner builds by `build_NAME` when it is needed.
_BUILT_LATER = ('train_loop', 'val_loop', 'test_loop', 'optim_wrapper', 'param_scheduler')


def build_runner(config: Config, doubts: list[str]) -> Runner:
    """Build the Runner; doubts about its options go to the log, or where there is none are printed.

    Raises:
        ConfigError: If something cannot be built as the config says; also later, when the Runner
            builds the rest: loops with their data loaders, optimizer, and parameter schedulers.
    """
    require_parts(config)
    if not needs_weights(config):
        config.model_wrapper_cfg = dict(type='ModelWithoutParameters')
    tell = print_warning
    try:
        with config_errors(config):
            runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        tell = runner.logger.warning
    finally:
        for text in doubts:
            tell(text)
    for name in _BUILT_LATER:
        build = getattr(runner, f'build_{name}')
        setattr(runner, f'build_{name}', config_errors(config)(build))
    return runner


def single_datasets(dataset) -> Iterator:
    """The datasets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner[0] is None:
        yield dataset
        return
    for part in inner:
        yield from single_datasets(part)


_LOOKED_AT = 8  # videos of a dataset whose features are looked at


@HOOKS.register_module()
class StartHook(Hook):
    """Apply ``env_cfg.allow_tf32``, and call this module's checks when a run starts.

    As a hook, so that both happen under any tool that builds MMEngine's Runner.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        """Allow or forbid TF32 in this process."""
        apply_tf32(runner.cfg)

    def before_train(self, runner) -> None:
        """Check the training; see `check_settings` and `check_datasets`."""
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                check_datasets(bare_model(runner), loop.dataloader.dataset)
        check_settings(runner)

    def before_test(self, runner) -> None:
        """Check the test set; see `check_datasets`."""
        check_datasets(bare_model(runner), runner.test_loop.dataloader.dataset)


def check_datasets(model, dataset) -> None:
    """Hold the datasets of a loop against the model.

    One video of each goes through the clip encoder, the features of some are looked at, and all
    sentences go through the tokenizer (which then knows them). A validation set with other
    features, or a sentence that cannot be encoded, would otherwise end the run only after its
    first epoch; features that are all zero would not end it at all.

    Args:
        model (nn.Module): A localizer.
        dataset (Dataset): Also one that wraps others.

    Raises:
        ValueError: If features, sentences or vocabulary do not fit the model, or two videos of
            concatenated datasets have one id.
    """
    _check_ids([*single_datasets(dataset)])
    for one in single_datasets(dataset):
        _check_sizes(one, model)
        _check_content(one)
        _check_sentences(one, model)


def _check_ids(datasets: list) -> None:
    """Refuse an id that datasets of different features have in common."""
    origin = {}
    for one in datasets if len(datasets) > 1 else ():
        for video in map(one.get_data_info, range(len(one))):
            first = origin.setdefault(video['video_id'], one)
            if first.feature_files != one.feature_files:
                raise InputError(
                    f'{first.ann_file} and {one.ann_file} both have a video {video["video_id"]!r}, '
                    'with features from different files: give each dataset a corpus of its own '
                    '(the setting `corpus`), or rename the video'
                )


@torch.no_grad()
def _check_sizes(dataset, model) -> None:
    """Encode the clips of a dataset's first video."""
    sample = dataset[0]
    features = sample['inputs'].to(model.data_preprocessor.device)
    if features.ndim == 2:
        features = features[None]  # (1, R, D); of a video of tubes it is (T, R, D) already
    try:
        model.encode_clips(features, [sample['data_samples']])
    except ValueError as error:
        files = ', '.join(dataset.feature_files)
        raise InputError(f'{error} (dataset {dataset.ann_file}, features {files})') from None


def _check_content(dataset) -> None:
    """Refuse features that are all zero in all videos that are looked at; of fewer, warn."""
    places = np.unique(np.linspace(0, len(dataset) - 1, _LOOKED_AT).round().astype(int))
    found = {}
    for sample in map(dataset.__getitem__, places.tolist()):
        for features in sample['inputs'].split(dataset.feature_sizes, dim=-1):
            rows = features.flatten(0, -2).numpy()  # (R, D) of one file; of tubes it was (T, R, D)
            problem = lack_of_content(rows) if len(rows) else None
            if problem in (ZERO, CONSTANT):
                found[sample['data_samples'].video_id] = problem
    if not found:
        return
    videos = ', '.join(f'{video!r} ({problem})' for video, problem in list(found.items())[:3])
    message = (
        f'{", ".join(dataset.feature_files)}: of {len(places)} videos that were looked '
        f'at, {len(found)} tell nothing of when something happens: {videos}. '
        '`mmn check` names all; extract them again'
    )
    if list(found.values()) == [ZERO] * len(places):
        raise InputError(message)
    print_log(message, 'current', logging.WARNING)


def _check_sentences(dataset, model) -> None:
    """Tokenize all sentences of a dataset."""
    tokenizer = model.data_preprocessor.tokenizer
    known = None if tokenizer is None else model.text_encoder.bert.config.vocab_size
    if tokenizer is not None and tokenizer.vocab_size > known:
        raise InputError(
            f'the tokenizer has {tokenizer.vocab_size} tokens, the language model knows '
            f'{known}: model.data_preprocessor.tokenizer and model.text_encoder do not belong '
            'together'
        )
    for video in map(dataset.get_data_info, range(len(dataset))):
        problems = model.inspect_sentences(video['sentences'])
        for place, sentence, (_, problem) in zip(
            video['sentence_index'], video['sentences'], problems, strict=True
        ):
            if problem:
                raise InputError(
                    f'{dataset.ann_file}: video {video["video_id"]!r}, sentence {place} '
                    f'({sentence!r}): {problem}. Correct or remove it; '
                    '`mmn check` lists all such sentences'
                )


def check_settings(runner) -> None:
    """Hold what validation and checkpoints will ask for against what there will be.

    Warns of learning rates for no parameter, of a batch size to which the learning rate does not
    belong, and of a checkpoint that is chosen on the test split.

    Args:
        runner (Runner): About to train.

    Raises:
        ValueError: If R@n asks for more moments than the head keeps, or ``save_best`` names a
            metric that validation does not report.
    """
    _warn_of_unused_keys(runner)
    _warn_of_batch_size(runner)
    if runner.val_loop is None:
        return
    evaluators = runner.val_loop.evaluator.metrics
    metrics = [metric for metric in evaluators if isinstance(metric, GroundingMetric)]
    for metric in metrics:
        asked, kept = max(metric.top_n), bare_model(runner).head.top_n
        if asked > kept:
            raise InputError(
                f'val_evaluator asks for R@{asked}, but model.head.top_n={kept} moments are kept '
                'per sentence: raise it'
            )
    datasets = single_datasets(runner.val_loop.dataloader.dataset)
    corpora = sorted({getattr(one, 'corpus', None) for one in datasets} - {None})
    groups = ['', *(f'{corpus}/' for corpus in corpora), *(['mean/'] if corpora else [])]
    reported = {
        f'{metric.prefix}/{group}{name}'
        for metric in metrics
        for group in groups
        for name in metric.names
    }
    best = _best_metrics(runner)
    for name in best if metrics and len(metrics) == len(evaluators) else ():
        # other groups of sentences ("grounding/0-10s/R1@0.5") depend on the data
        unknown = name.count('/') < 2 or '/mean/' in name
        if name != 'auto' and unknown and name not in reported:
            raise InputError(
                f'default_hooks.checkpoint.save_best={name!r} is no metric of the '
                f'validation, which reports {", ".join(sorted(reported))}'
            )
    _warn_of_choice_on_test(runner, best)


def _warn_of_unused_keys(runner) -> None:
    """Settings by parts of parameters' names that no parameter has."""
    wrapper = runner.cfg.get('optim_wrapper')
    settings = (wrapper.get('paramwise_cfg') if isinstance(wrapper, dict) else None) or {}
    names = [name for name, _ in bare_model(runner).named_parameters()]
    unused = [
        key for key in settings.get('custom_keys') or {} if not any(key in name for name in names)
    ]
    if unused:
        runner.logger.warning(
            'optim_wrapper.paramwise_cfg.custom_keys sets rates for '
            f'{", ".join(unused)}, which no parameter has in its name'
        )


def _warn_of_batch_size(runner) -> None:
    """Videos per step of all processes, where the config's learning rate is for another number."""
    scaling = runner.auto_scale_lr or {}
    wanted, batch_size = scaling.get('base_batch_size'), runner.train_dataloader.batch_size
    if not wanted or not batch_size or scaling.get('enable'):
        return  # MMEngine logs how it scales the rate
    videos = runner.world_size * batch_size
    if videos == wanted:
        return
    if runner.iter:
        remedy = 'the resumed run keeps the rate of its checkpoint'
    else:
        remedy = (
            f'--auto-scale-lr multiplies it by {videos / wanted:g}; or choose '
            f'train_dataloader.batch_size so that a step has {wanted} videos'
        )
    runner.logger.warning(
        f'a step has {videos} videos ({runner.world_size} x {batch_size}), and the learning rate '
        f'belongs to {wanted} (auto_scale_lr.base_batch_size): {remedy}'
    )


def _warn_of_choice_on_test(runner, best: list[str]) -> None:
    """Figures of a checkpoint that was chosen on the test split are no estimate."""
    chosen = [f'save_best={name}' for name in best]
    chosen += [
        f'EarlyStoppingHook(monitor={hook.monitor!r})'
        for hook in runner.hooks
        if isinstance(hook, EarlyStoppingHook)
    ]
    if not chosen:
        return
    tested = [*_annotation_files(runner.cfg.get('test_dataloader'))]
    shared = [
        str(path)
        for path in _annotation_files(runner.cfg.get('val_dataloader'))
        if any(path == other or filecmp.cmp(path, other, shallow=False) for other in tested)
    ]
    if shared:
        runner.logger.warning(
            f'{", ".join(chosen)} chooses the checkpoint on the test split: validation reads '
            f'{", ".join(shared)}, and so does the test. Test figures of that checkpoint are '
            'optimistic; report them as such, or give validation a split of its own'
        )


def _best_metrics(runner) -> list[str]:
    """Metrics by which the run keeps a best checkpoint."""
    wanted = [
        hook.save_best
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and hook.save_best
    ]
    return [name for names in wanted for name in ([names] if isinstance(names, str) else names)]


def _annotation_files(settings) -> Iterator[Path]:
    """Annotation files that a dataloader's config names, those inside wrappers included."""
    if isinstance(settings, dict):
        if settings.get('ann_file'):
            path = Path(settings.get('data_root') or '', settings['ann_file']).resolve()
            if path.is_file():
                yield path
        settings = [*settings.values()]
    for part in settings if isinstance(settings, list | tuple) else ():
        yield from _annotation_files(part)
