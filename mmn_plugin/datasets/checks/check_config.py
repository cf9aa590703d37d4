"""Check the datasets that a config names."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmaction.registry import DATASETS, TOKENIZER
from mmengine.config import Config

from ...structures.token_limit import token_limit
from ..temporal_grounding_dataset import TemporalGroundingDataset
from ..tube_grounding_dataset import TubeGroundingDataset
from .check_annotations import check_annotations
from .check_features import check_features
from .check_report import CheckReport
from .check_sentences import check_sentences
from .check_splits import check_splits
from .check_tubes import check_tubes

SPLITS = ('train', 'val', 'test')


def check_config(
    cfg: Config,
    splits: Sequence[str] | None = None,
    quick: bool = False,
    num_examples: int = 3,
    track: Callable[[Iterable, str], Iterable] = lambda items, text: items,
) -> CheckReport:
    """Check annotations, features and sentences of a config's datasets, and its splits.

    Args:
        cfg (Config): With ``{train,val,test}_dataloader.dataset``; ``model.backbone.in_channels``,
            ``model.data_preprocessor.tokenizer`` and ``model.text_encoder`` are compared where
            the config has them.
        splits (Sequence[str], optional): Which of train, val, test. Defaults to all there are.
        quick (bool): Look at the shapes of features alone. Defaults to False.
        num_examples (int): Offenders named for each kind of finding. Defaults to 3.
        track (Callable): See `check_features`.

    Raises:
        ValueError: If the config has none of the splits.
    """
    report = CheckReport(num_examples)
    available = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    wanted = [split for split in splits or available if split in available]
    if not wanted or len(wanted) < len(splits or ()):
        raise ValueError(
            f'the config has datasets for {available or "no split"}; '
            f'asked for {list(splits or SPLITS)}'
        )
    model = cfg.get('model') or {}
    in_channels = (model.get('backbone') or {}).get('in_channels')
    tokenizer, max_tokens = _language(model, report)
    video_ids, scanned = {}, {}
    for split in wanted:
        video_ids[split] = set()
        for dataset in _datasets(cfg[f'{split}_dataloader']['dataset'], split, report):
            source = (tuple(dataset.feature_files), tuple(dataset.feature_keys))
            seen = scanned.setdefault(source, set())  # ActivityNet's val and test share videos
            if isinstance(dataset, TubeGroundingDataset):
                values = not quick and not seen
                videos = check_tubes(dataset, split, report, in_channels, not values, track)
            else:
                videos = check_annotations(dataset.ann_file, split, report, dataset.weak)
                needed = [video.video_id for video in videos]
                check_features(*source, needed, split, report, in_channels, quick, seen, track)
            seen.update(video.video_id for video in videos)
            video_ids[split].update(video.video_id for video in videos)
            if tokenizer is not None:
                check_sentences(videos, split, report, tokenizer, max_tokens)
            if not dataset.feature_files:
                report.add('error', split, 'no features', 'data_prefix.features is not set')
    check_splits(video_ids, report)
    return report


def _datasets(
    cfg: dict, split: str, report: CheckReport
) -> list[TemporalGroundingDataset | TubeGroundingDataset]:
    """The grounding datasets within a dataset config, which may be wrapped; nothing is loaded."""
    if 'datasets' in cfg:
        return [found for part in cfg['datasets'] for found in _datasets(part, split, report)]
    if 'dataset' in cfg:
        return _datasets(cfg['dataset'], split, report)
    try:
        dataset = DATASETS.build({**cfg, 'lazy_init': True, 'pipeline': []})
    except (KeyError, TypeError, ValueError) as error:
        report.add('error', split, 'dataset cannot be built', str(error.args[0]))
        return []
    if not isinstance(dataset, TemporalGroundingDataset | TubeGroundingDataset):
        report.add(
            'error',
            split,
            'dataset of another kind',
            f'{type(dataset).__name__} is '
            'neither a TemporalGroundingDataset nor a TubeGroundingDataset',
        )
        return []
    return [dataset]


def _language(model: dict, report: CheckReport) -> tuple[Any, int | None]:
    """Tokenizer and token limit of the model; what cannot be had is said in the report."""
    tokenizer_cfg = (model.get('data_preprocessor') or {}).get('tokenizer')
    if tokenizer_cfg is None:
        return None, None
    try:
        tokenizer = TOKENIZER.build(tokenizer_cfg)
    except (OSError, ValueError) as error:
        report.add('error', 'all', 'tokenizer cannot be built', str(error))
        return None, None
    language_model = _language_model_config(model.get('text_encoder') or {}, report)
    vocab_size = getattr(language_model, 'vocab_size', None)
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        report.add(
            'error',
            'all',
            'tokenizer of another language model',
            f'model.data_preprocessor.tokenizer has {tokenizer.vocab_size} tokens, '
            f'model.text_encoder takes {vocab_size}; set both to the same language model',
        )
    return tokenizer, None if language_model is None else token_limit(language_model)


def _language_model_config(text_encoder: dict, report: CheckReport) -> Any:
    from transformers import AutoConfig  # takes a second

    name, config = text_encoder.get('name_or_path'), text_encoder.get('config')
    if name is None and config is None:
        return None
    try:
        return AutoConfig.for_model(**config) if name is None else AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.add(
            'error',
            'all',
            'language model not found',
            f'model.text_encoder: {str(error).splitlines()[0]}',
        )
        return None
