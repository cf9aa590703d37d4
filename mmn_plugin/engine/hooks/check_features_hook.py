"""Find data that does not fit the model before a day is lost."""

import logging

import numpy as np
import torch
from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmn_plugin.datasets.checks.check_features import CONSTANT, ZERO, lack_of_content

from ..bare_model import bare_model
from ..single_datasets import single_datasets


@HOOKS.register_module()
class CheckFeaturesHook(Hook):
    """Before the first iteration, hold every dataset of the run against the model.

    One video of each dataset goes through the clip encoder, the features of some are looked at,
    and all sentences go through the tokenizer (which then knows them). A validation set with other
    features, or a sentence that cannot be encoded, would otherwise end the run only after its
    first epoch; features that are all zero would not end it at all.
    """

    LOOKED_AT = 8  # videos of a dataset, spread over it

    def before_train(self, runner) -> None:
        """Check the training and the validation set.

        Raises:
            ValueError: If features, sentences or vocabulary do not fit the model.
        """
        self._check(runner, runner.train_loop)
        if runner.val_loop is not None:
            self._check(runner, runner.val_loop)

    def before_test(self, runner) -> None:
        """Check the test set.

        Raises:
            ValueError: If features, sentences or vocabulary do not fit the model.
        """
        self._check(runner, runner.test_loop)

    def _check(self, runner, loop) -> None:
        model = bare_model(runner)
        for dataset in single_datasets(loop.dataloader.dataset):
            self.check_features(dataset, model)
            self.check_content(dataset)
            self.check_sentences(dataset, model)

    @staticmethod
    @torch.no_grad()
    def check_features(dataset, model) -> None:
        """Encode the clips of a dataset's first video.

        Raises:
            ValueError: If the features' size or number does not fit the model.
        """
        sample = dataset[0]
        features = sample['inputs'].to(next(model.parameters()).device)
        if features.ndim == 2:
            features = features[None]  # (1, R, D); of a video of tubes it is (T, R, D) already
        try:
            model.encode_clips(features, [sample['data_samples']])
        except ValueError as error:
            files = ', '.join(dataset.feature_files)
            raise ValueError(f'{error} (dataset {dataset.ann_file}, features {files})') from None

    @classmethod
    def check_content(cls, dataset) -> None:
        """Look for features that are all zero, or the same all the time, in some videos.

        Raises:
            ValueError: If those of all videos that were looked at are zero; fewer are a warning.
        """
        places = np.unique(np.linspace(0, len(dataset) - 1, cls.LOOKED_AT).round().astype(int))
        found = {}
        for place in places.tolist():
            sample = dataset[place]
            for features in sample['inputs'].split(dataset.feature_sizes, dim=-1):
                # (R, D) of one file; of a video of tubes (T, R, D)
                rows = features.flatten(0, -2).numpy()
                problem = lack_of_content(rows) if len(rows) else None
                if problem in (ZERO, CONSTANT):
                    found[sample['data_samples'].video_id] = problem
        if not found:
            return
        videos = ', '.join(f'{video!r} ({problem})' for video, problem in list(found.items())[:3])
        message = (
            f'{", ".join(dataset.feature_files)}: of {len(places)} videos that were looked '
            f'at, {len(found)} tell nothing of when something happens: {videos}. '
            'tools/data/check_dataset.py names all; extract them again'
        )
        if list(found.values()) == [ZERO] * len(places):
            raise ValueError(message)
        print_log(message, 'current', logging.WARNING)

    @staticmethod
    def check_sentences(dataset, model) -> None:
        """Tokenise all sentences of a dataset.

        Raises:
            ValueError: If one cannot be encoded, or the tokenizer has tokens that the language
                model does not know.
        """
        tokenizer = model.data_preprocessor.tokenizer
        known = model.text_encoder.bert.config.vocab_size
        if tokenizer.vocab_size > known:
            raise ValueError(
                f'the tokenizer has {tokenizer.vocab_size} tokens, the language model knows '
                f'{known}: model.data_preprocessor.tokenizer and model.text_encoder do not belong '
                'together'
            )
        videos = [dataset.get_data_info(index) for index in range(len(dataset))]
        sentences = [sentence for video in videos for sentence in video['sentences']]
        problems = iter(tokenizer.inspect(sentences))
        for video in videos:
            for place, sentence in zip(video['sentence_index'], video['sentences'], strict=True):
                _, problem = next(problems)
                if problem:
                    raise ValueError(
                        f'{dataset.ann_file}: video {video["video_id"]!r}, sentence {place} '
                        f'({sentence!r}): {problem}. Correct or remove it; '
                        'tools/data/check_dataset.py lists all such sentences'
                    )
