"""What a checkpoint belongs to: config, architecture, tokenizer, extractor, tower."""

import logging
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import torch
from mmaction.registry import HOOKS, TOKENIZER
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from torch import Tensor, nn

from mmn_plugin.config import require_checkpoint_content
from mmn_plugin.errors import InputError
from mmn_plugin.features.feature_file import read_fingerprint, require_same_extractor

from .dist import bare_model
from .start_checks import single_datasets

_SHOWN = 5


@dataclass
class CheckpointIdentity:
    """What a checkpoint's weights belong to, as plain data under its ``meta``.

    Attributes:
        architecture (dict, optional): The model's ``architecture``. The weights of two configs can
            have the same names and shapes (those of TACoS and Charades-STA do) although their
            moments differ; one tested under the other's config would give figures, and wrong ones.
        language_model (dict, optional): Configuration of the language model, so that a checkpoint
            can be used where the folder or the hub that the language model came from is not.
        tokenizer (dict, optional): State of the tokenizer. The vocabulary decides which embedding
            a word gets, so another one gives wrong answers without any error.
        extractor (list[dict | None], optional): What made the features, one entry for each
            feature file (see `read_extractor`). Features of another layer, stride or network can
            have the same size, and a model fed with them answers, but wrongly.
        tower (dict, optional): Fingerprint of the tower that scores are made with. Its weights are
            not in the checkpoint, and those of another one answer, but wrongly.
    """

    architecture: dict | None = None
    language_model: dict | None = None
    tokenizer: dict | None = None
    extractor: list[dict | None] | None = None
    tower: dict | None = None

    @classmethod
    def collect(cls, model: nn.Module, datasets=()) -> 'CheckpointIdentity':
        """Identity of a model and of the datasets that it trains on.

        Args:
            model (nn.Module): A localizer.
            datasets (Sequence): Its datasets. Defaults to none.

        Raises:
            ValueError: If the features of the datasets come from different extractors.
        """
        _, extractor = read_extractor(datasets)
        tokenizer = model.data_preprocessor.tokenizer
        return cls(
            architecture=model.architecture,
            language_model=getattr(model.text_encoder, 'language_model', None),
            tokenizer=None if tokenizer is None else tokenizer.state(),
            extractor=extractor if any(extractor) else None,
            tower=model.tower.fingerprint if model.head.tower_spaces else None,
        )

    @classmethod
    def of(cls, checkpoint: dict) -> 'CheckpointIdentity':
        """Identity that a loaded checkpoint carries; published weights carry none."""
        meta = checkpoint.get('meta', {})
        return cls(**{field.name: meta.get(field.name) for field in fields(cls)})

    def entries(self) -> dict:
        """What is known, as entries of a checkpoint's ``meta``."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def check(
        cls, model: nn.Module, checkpoint: dict, path: str | None = None, strict: bool = True
    ) -> dict[str, Tensor]:
        """Compare a loaded checkpoint with the model that its weights are for.

        Entries that the checkpoint lacks are not compared. Its own tokenizer serves where the
        model's cannot be built (its file is elsewhere). The tower is compared at its first use.

        MMEngine loads the weights that fit and logs the rest, so that testing a wrong checkpoint
        gives the figures of a partly random model. Here every weight is needed, in its shape; a
        training that starts from weights (``strict=False``) may leave some out, but not all.

        Args:
            model (nn.Module): A localizer.
            checkpoint (dict): What was loaded.
            path (str, optional): Its file, for messages. Defaults to None.
            strict (bool): Whether every weight must fit. Defaults to True.

        Returns:
            dict[str, Tensor]: The checkpoint's weights under the model's names.

        Raises:
            ValueError: If it is no checkpoint, or belongs to another vocabulary, other moments or
                another architecture; the message says by what.
        """
        require_checkpoint_content(checkpoint, path)
        theirs = cls.of(checkpoint)
        _check_tokenizer(model.data_preprocessor, theirs.tokenizer)
        _check_architecture(model.architecture, theirs.architecture)
        model.tower_fingerprint = theirs.tower
        return _check_weights(model, checkpoint, path or 'the checkpoint', strict)


def _check_tokenizer(preprocessor: nn.Module, state: dict | None) -> None:
    if state is None:
        return
    try:
        tokenizer = preprocessor.tokenizer
    except OSError:
        preprocessor.tokenizer = TOKENIZER.get('SentenceTokenizer').from_state(state)
        return
    differences = tokenizer.differences(state)
    if differences:
        raise InputError(
            'the checkpoint was trained with another vocabulary or tokenizer setting than '
            'model.data_preprocessor.tokenizer of this config, and words would get the '
            f'embeddings of others. {"; ".join(differences)}. Give the vocabulary and the '
            'settings it was trained with'
        )


def _check_architecture(ours: dict, theirs: dict | None) -> None:
    if theirs is None or theirs == ours:
        return
    differing = '; '.join(
        f'{key}: {theirs.get(key)}, here {value}'
        for key, value in ours.items()
        if theirs.get(key) != value
    )
    raise InputError(
        f'the checkpoint belongs to another architecture than the config '
        f'({differing}). Use the config that it was trained with'
    )


def _check_weights(model: nn.Module, checkpoint: dict, path: str, strict: bool) -> dict:
    own, given = model.state_dict(), checkpoint.get('state_dict', checkpoint)
    given = {re.sub('^module[.]', '', key): value for key, value in given.items()}
    shared = [key for key in own if key in given]
    reshaped = [key for key in shared if _shape(own[key]) != _shape(given[key])]
    problems = [
        f'{len(keys)} {what}: {", ".join(keys[:_SHOWN])}{", ..." if len(keys) > _SHOWN else ""}'
        for what, keys in {
            # MMEngine too forgives a missing num_batches_tracked, which old checkpoints lack
            'missing': [k for k in own if k not in given and 'num_batches_tracked' not in k],
            'unknown': [key for key in given if key not in own],
            'of another shape': [
                f'{key} ({_shape(given[key])}, here {_shape(own[key])})' for key in reshaped
            ],
        }.items()
        if keys
    ]
    if (own and len(reshaped) == len(shared)) or (problems and strict):
        raise InputError(
            f'{path} belongs to another architecture than the config: {"; ".join(problems)}. '
            'Use the config that it was trained with'
        )
    return given


def _shape(value) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar' if torch.is_tensor(value) else ''


def read_extractor(datasets) -> tuple[list[str], list[dict | None]]:
    """Feature files of datasets, and what made their features.

    That stands in the attributes of their HDF5 files (``mmn extract`` writes
    them); of a file without attributes nothing is known.

    Args:
        datasets (Sequence): With ``feature_files`` and ``feature_keys``.

    Returns:
        tuple[list[str], list[dict | None]]: Files and fingerprints of the first dataset of which
        anything is known.

    Raises:
        ValueError: If two datasets' features come from different extractors.
    """
    files, found = [], []
    for dataset in datasets:
        names = dataset.feature_files
        these = [read_fingerprint(*file) for file in zip(names, dataset.feature_keys, strict=True)]
        require_same_extractor(found, these, ', '.join(files), names)
        if not any(found):
            files, found = names, these
    return files, found


def _untold(datasets) -> list[str]:
    """Feature files that do not tell what made them."""
    files = [
        (name, read_fingerprint(name, key))
        for dataset in datasets
        for name, key in zip(dataset.feature_files, dataset.feature_keys, strict=True)
    ]
    return [name for name, found in files if not found]


def require_tower_features(model: nn.Module, files: list[str], found: list[dict | None]) -> None:
    """Refuse features of another tower than the sentences'; of untold features nothing is known.

    Args:
        model (nn.Module): A localizer.
        files (list[str]): Feature files, or other names for messages.
        found (list[dict | None]): Their fingerprints.

    Raises:
        ValueError: If features and sentences are embedded by different towers.
    """
    if model.head.tower_spaces and any(found):
        tower = model.tower_fingerprint or model.tower.fingerprint  # the first needs no weights
        remedy = 'Extract features with this tower, or set model.tower to the one that made them'
        require_same_extractor([tower], found, 'model.tower', files, remedy)


def checkpoint_config(checkpoint: dict, path: str) -> Config:
    """The config that a model was trained with, which is data alone: nothing of it is run.

    Args:
        checkpoint (dict): A loaded checkpoint of `SafeCheckpointHook`.
        path (str): Its file, for messages.

    Raises:
        ValueError: If it carries no config, or one that could import foreign code.
    """
    content = checkpoint.get('meta', {}).get('settings')
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path} carries no config: give the one that it was trained with')
    config = Config(content)
    require_plain_types(config, path)
    return config


def require_plain_types(config: Config, path: str) -> None:
    """Refuse a foreign config whose parts are more than names in a registry.

    MMEngine would import whatever ``type='module.name'`` says, and call it.

    Args:
        config (Config): From a checkpoint or a folder.
        path (str): Where it lay, for the message.

    Raises:
        ValueError: Naming the entry.
    """
    parts = [config._cfg_dict.to_dict()]
    for part in parts:  # which grows
        if isinstance(part, dict):
            parts += part.values()
            for key in [key for key in ('type', '_scope_') if key in part]:
                value = part[key]
                if key == '_scope_':
                    known = value in ('mmaction', 'mmcv', 'mmengine', 'mmn_plugin')
                else:
                    known = isinstance(value, str) and re.fullmatch(r'\w+', value)
                if not known:
                    raise InputError(
                        f'the config that {path} carries asks for {key}={value!r}, which could '
                        'import foreign code: give the config that it was trained with'
                    )
            if part.get('rewrite') is not None:
                raise InputError(
                    f'the config that {path} carries asks for rewrite={part["rewrite"]!r}, which '
                    'is foreign code: give the config that it was trained with'
                )
        elif isinstance(part, list | tuple):
            parts += part


_OF_THE_START = ('work_dir', 'resume', 'load_from', 'launcher', 'experiment_name')
# A checkpoint brings the optimizer's and the schedulers' state, of which these are a part.
_IN_THE_CHECKPOINT = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg.',
    'param_scheduler',
    'auto_scale_lr',
    'randomness.seed',
)
_LONGEST = 60  # characters of a value


def changed_settings(before: dict, now: dict) -> list[str]:
    """Name every setting that differs between two configs.

    Args:
        before (dict): Config of the checkpoint; empty where it is not known.
        now (dict): Config of the run that resumes it.

    Returns:
        list[str]: For each setting both values, and which of the two counts.
    """
    if not before:
        return []
    first, second = dict(_leaves('', before)), dict(_leaves('', now))
    changes = []
    for name in {**second, **first}:
        old, new = (settings.get(name, 'not set') for settings in (first, second))
        if old != new and name.partition('.')[0] not in _OF_THE_START:
            kept = name.startswith(_IN_THE_CHECKPOINT) and not name.endswith('.type')
            old, new = (v if len(v) <= _LONGEST else f'{v[:_LONGEST]}…' for v in (old, new))
            changes.append(
                f'{name}: {old} in the checkpoint, {new} in this config; '
                f'{"the checkpoint" if kept else "this config"} counts'
            )
    return changes


def _leaves(name: str, value) -> Iterator[tuple[str, str]]:
    """Dotted names of all settings in a value, with what they are set to."""
    if isinstance(value, list | tuple) and any(isinstance(entry, dict) for entry in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        yield name, repr(value)
        return
    for key, entry in value.items():
        yield from _leaves(f'{name}.{key}' if name else key, entry)


@HOOKS.register_module()
class CheckpointWeightsHook(Hook):
    """Compare the weights of a checkpoint with a model of any kind before they are loaded.

    A test or a resumed training needs every weight, a training that starts from weights some.

    Raises:
        ValueError: If they do not fit, or the file is no checkpoint.
    """

    priority = 'LOWEST'  # after the hooks that change the loaded state, such as an EMA's

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check what was read; MMEngine copies the weights into the model afterwards."""
        trains = isinstance(runner._train_loop, BaseLoop)  # else it is a test
        path, strict = runner._load_from or 'the checkpoint', runner._resume or not trains
        self._check(bare_model(runner), checkpoint, path, strict)

    def _check(self, model: nn.Module, checkpoint: dict, path: str, strict: bool) -> None:
        require_checkpoint_content(checkpoint, path)
        _check_weights(model, checkpoint, path, strict)


def check_weights(config: Config) -> None:
    """Add `CheckpointWeightsHook` to a config whose own hooks do not compare a checkpoint."""
    hooks = [*(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])]
    if not any(isinstance(h, dict) and h.get('type') == 'CheckpointIdentityHook' for h in hooks):
        check = dict(type='CheckpointWeightsHook')
        config.custom_hooks = [*(config.get('custom_hooks') or []), check]


@HOOKS.register_module()
class CheckpointIdentityHook(CheckpointWeightsHook):
    """Store the `CheckpointIdentity` in every checkpoint, and check it when one is loaded.

    The features of training, validation and test set are compared with each other, and with those
    that the checkpoint was trained on. Files that do not tell their extractor are accepted; one
    warning says so. A training that takes only the weights may go on with other features.

    Raises:
        ValueError: If something differs, or a file is no checkpoint.
    """

    def __init__(self) -> None:
        self._own = self._loaded = CheckpointIdentity()
        self._path = 'the checkpoint'

    def _check(self, model: nn.Module, checkpoint: dict, path: str, strict: bool) -> None:
        CheckpointIdentity.check(model, checkpoint, path, strict)
        self._loaded, self._path = CheckpointIdentity.of(checkpoint), path

    def before_train(self, runner) -> None:
        """Compare training and validation set, and both with the checkpoint that is resumed."""
        datasets = [*single_datasets(runner.train_loop.dataloader.dataset)]
        self._own = CheckpointIdentity.collect(bare_model(runner), datasets)
        files, ours = read_extractor(datasets)
        require_tower_features(bare_model(runner), files, ours)
        if runner.val_loop is not None:
            val_datasets = [*single_datasets(runner.val_loop.dataloader.dataset)]
            val_files, val = read_extractor(val_datasets)
            require_same_extractor(ours, val, ', '.join(files), val_files)
            datasets += val_datasets
        try:
            require_same_extractor(self._loaded.extractor, ours, self._path, files)
        except ValueError as error:
            if runner._resume:
                raise
            _warn(f'{error} (training goes on: only its weights are taken)')
        if runner._resume and self._own.extractor is None:
            self._own.extractor = self._loaded.extractor  # as was known before
        _warn_of_unknown(_untold(datasets))

    def before_test(self, runner) -> None:
        """Compare the test set with the checkpoint."""
        datasets = [*single_datasets(runner.test_loop.dataloader.dataset)]
        files, found = read_extractor(datasets)
        require_tower_features(bare_model(runner), files, found)
        require_same_extractor(self._loaded.extractor, found, self._path, files)
        if any(self._loaded.extractor or ()):
            _warn_of_unknown(_untold(datasets))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the identity of the training into the checkpoint's ``meta``."""
        checkpoint['meta'].update(self._own.entries())


def _warn_of_unknown(files: list[str]) -> None:
    if files:
        _warn(
            f'{", ".join(dict.fromkeys(files))}: no attributes tell which extractor made these '
            'features, so that they cannot be compared with those of a checkpoint'
        )


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
