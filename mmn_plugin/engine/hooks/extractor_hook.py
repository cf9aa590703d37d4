"""A checkpoint belongs to an extractor."""

import logging

from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmn_plugin.datasets.features.fingerprint import read_fingerprint, require_same_extractor

from ..runner.checkpoint_content import require_checkpoint_content
from ..single_datasets import single_datasets


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
