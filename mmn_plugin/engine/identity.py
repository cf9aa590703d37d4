"""What a checkpoint belongs to: architecture, tokenizer, extractor."""

import logging
import re

import torch
from mmaction.registry import HOOKS, TOKENIZER
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmn_plugin.config import require_checkpoint_content
from mmn_plugin.errors import InputError
from mmn_plugin.features.feature_file import read_fingerprint, require_same_extractor

from .dist import bare_model
from .start_checks import single_datasets


@HOOKS.register_module()
class ArchitectureHook(Hook):
    """Store in every checkpoint which moments its model knows, and compare when one is loaded.

    The weights of two configs can have the same names and shapes (those of TACoS and Charades-STA
    do) although their moments differ; one tested under the other's config would give figures,
    and wrong ones.
    """

    KEY = 'architecture'
    LANGUAGE_MODEL = 'language_model'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the model's ``architecture`` into the checkpoint's ``meta``.

        And the configuration of its language model, so that a checkpoint can be used where the
        folder or the hub that the language model came from is not.
        """
        model = bare_model(runner)
        checkpoint['meta'][self.KEY] = model.architecture
        language_model = getattr(getattr(model, 'text_encoder', None), 'language_model', None)
        if language_model is not None:
            checkpoint['meta'][self.LANGUAGE_MODEL] = language_model

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare; checkpoints without the entry (converted ones) pass.

        Raises:
            ValueError: If the checkpoint's model had other moments, or the file is no checkpoint.
        """
        require_checkpoint_content(checkpoint, getattr(runner, '_load_from', None))
        theirs = checkpoint.get('meta', {}).get(self.KEY)
        ours = bare_model(runner).architecture
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


@HOOKS.register_module()
class TokenizerHook(Hook):
    """Store the tokenizer in every checkpoint and compare it when one is loaded.

    The vocabulary decides which embedding a word gets, so a checkpoint used with another one
    gives wrong answers without any error; here that is an error. The same tokenizer may be written
    down in several ways (`SentenceTokenizer.differences`). A checkpoint's own tokenizer serves
    where the configured one cannot be built (its file is elsewhere).
    """

    KEY = 'tokenizer'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the tokenizer's state into the checkpoint's ``meta``."""
        checkpoint['meta'][self.KEY] = self._preprocessor(runner).tokenizer.state()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare with, or take over, the tokenizer of a checkpoint.

        Raises:
            ValueError: If the tokenizers of model and checkpoint give different ids (the message
                says by what), or the file is no checkpoint.
        """
        require_checkpoint_content(checkpoint, getattr(runner, '_load_from', None))
        state = checkpoint.get('meta', {}).get(self.KEY)
        if state is None:
            return
        preprocessor = self._preprocessor(runner)
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

    @staticmethod
    def _preprocessor(runner):
        return bare_model(runner).data_preprocessor


@HOOKS.register_module()
class ExtractorHook(Hook):
    """Store in every checkpoint which extractor made its features, and compare when it is used.

    Features of another layer, stride or network can have the same size, and a model fed with them
    answers, but wrongly. What made features stands in the attributes of their HDF5 file
    (``tools/data/extract_features.py`` writes them). Files without attributes are accepted; one
    warning says so.
    """

    KEY = 'extractor'

    def __init__(self) -> None:
        self._ours: list[dict | None] = []
        self._theirs: list[dict | None] | None = None
        self._checkpoint = 'the checkpoint'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remember what the checkpoint was trained on.

        Raises:
            ValueError: If the file is no checkpoint.
        """
        self._checkpoint = getattr(runner, '_load_from', None) or 'the checkpoint'
        require_checkpoint_content(checkpoint, self._checkpoint)
        self._theirs = checkpoint.get('meta', {}).get(self.KEY)

    def before_train(self, runner) -> None:
        """Compare training and validation set, and both with the checkpoint that is resumed.

        Raises:
            ValueError: If their features come from different extractors.
        """
        files, self._ours = self._read(runner.train_loop)
        unknown = [name for name, found in zip(files, self._ours, strict=True) if not found]
        if runner.val_loop is not None:
            val_files, val = self._read(runner.val_loop)
            unknown += require_same_extractor(self._ours, val, ', '.join(files), val_files)
        try:
            require_same_extractor(self._theirs, self._ours, self._checkpoint, files)
        except ValueError as error:
            if runner._resume:
                raise
            print_log(
                f'{error} (training goes on: only its weights are taken)',
                'current',
                logging.WARNING,
            )
        self._warn(unknown)

    def before_test(self, runner) -> None:
        """Compare the test set with the checkpoint.

        Raises:
            ValueError: If its features come from another extractor.
        """
        files, found = self._read(runner.test_loop)
        self._warn(require_same_extractor(self._theirs, found, self._checkpoint, files))

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the fingerprints of the training's feature files into the checkpoint's ``meta``."""
        known = self._ours
        if not any(known) and runner._resume and self._theirs:
            known = self._theirs  # files without attributes: as was known before
        if any(known):
            checkpoint['meta'][self.KEY] = known

    @staticmethod
    def _read(loop) -> tuple[list[str], list[dict | None]]:
        """Files and fingerprints of a loop's datasets, which have to agree among each other."""
        files, found = [], []
        for dataset in single_datasets(loop.dataloader.dataset):
            names = getattr(dataset, 'feature_files', [])
            these = [
                read_fingerprint(*file)
                for file in zip(names, getattr(dataset, 'feature_keys', []), strict=True)
            ]
            require_same_extractor(found, these, ', '.join(files), names)
            if not any(found):
                files, found = names, these
        return files, found

    @staticmethod
    def _warn(unknown: list[str]) -> None:
        if unknown:
            print_log(
                f'{", ".join(dict.fromkeys(unknown))}: no attributes tell which extractor '
                'made these features, so that they cannot be compared with those of a '
                'checkpoint',
                'current',
                logging.WARNING,
            )


_SHOWN = 5


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Compare a checkpoint's weights with the model's before they are loaded.

    MMEngine loads what fits and logs the rest, so that testing a wrong checkpoint gives the figures
    of a partly random model. Here testing and resuming need every weight, in its shape. Starting
    a training from weights (``load_from``) may leave some out, but not all of them.

    Args:
        strict (bool): every weight must fit, also when the run is not resumed. Defaults to True.

    Raises:
        ValueError: after loading a checkpoint that does not fit, or a file that is none; it names
            keys and shapes.
    """

    priority = 'LOWEST'  # after the hooks that change the loaded state, such as an EMA's

    def __init__(self, strict: bool = True):
        self.strict = strict

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the weights that were read; MMEngine copies them into the model afterwards."""
        require_checkpoint_content(checkpoint, runner._load_from)
        model = bare_model(runner)
        given = checkpoint.get('state_dict', checkpoint)
        given = {re.sub('^module[.]', '', key): value for key, value in given.items()}
        problems, nothing_fits = _compare(model.state_dict(), given)
        if nothing_fits or (problems and (self.strict or runner._resume)):
            raise InputError(
                f'{runner._load_from or "the checkpoint"} belongs to another architecture than '
                f'the config: {"; ".join(problems)}. Use the config that it was trained with'
            )


def _compare(own: dict, given: dict) -> tuple[list[str], bool]:
    """Name what differs between two state dicts, and say whether nothing at all fits."""
    shared = own.keys() & given.keys()
    # MMEngine too forgives a missing num_batches_tracked, which old checkpoints lack.
    missing = [key for key in own if key not in given and 'num_batches_tracked' not in key]
    unexpected = [key for key in given if key not in own]
    reshaped = [key for key in own if key in shared and _shape(own[key]) != _shape(given[key])]
    shapes = [f'{key} ({_shape(given[key])}, here {_shape(own[key])})' for key in reshaped]
    problems = [
        f'{len(keys)} {what}: {", ".join(keys[:_SHOWN])}{", ..." if len(keys) > _SHOWN else ""}'
        for what, keys in (
            ('missing', missing),
            ('unknown', unexpected),
            ('of another shape', shapes),
        )
        if keys
    ]
    return problems, len(reshaped) == len(shared)


def _shape(value) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar' if torch.is_tensor(value) else ''
