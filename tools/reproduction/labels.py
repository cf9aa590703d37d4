"""Which labels of the published annotations a person should look at."""

import time

from mmengine.config import Config

from mmn_plugin.datasets import check_config
from mmn_plugin.datasets.label_check import KINDS

from .running import shared_folder
from .tables import table

QUERIES = dict(
    train='highlight_train_release.jsonl',
    val='highlight_val_release.jsonl',
    test='highlight_test_with_gt.jsonl',
)
PUBLISHED = {split: f'{split}.json' for split in ('train', 'val', 'test')}
# Name, folder, type of the dataset and its files.
DATASETS = (
    ('TACoS', 'tacos', 'TemporalGroundingDataset', PUBLISHED),
    ('Charades-STA', 'charades_sta', 'TemporalGroundingDataset', PUBLISHED),
    ('ActivityNet Captions', 'activitynet', 'TemporalGroundingDataset', PUBLISHED),
    ('QVHighlights', 'qvhighlights', 'QVHighlightsDataset', QUERIES),
)
TOWER = dict(type='TextTower', model='sentence-transformers/all-MiniLM-L6-v2')


def labels() -> dict:
    """What `mmn check` counts without features, by text alone and with vectors of `TOWER`.

    `MMN_MODEL_ROOT` or the Hugging Face cache has to have its weights.
    """
    folder, rows = shared_folder('data') / 'annotations', []
    for name, source, kind, files in DATASETS:
        datasets = {
            f'{split}_dataloader': dict(dataset=dict(type=kind, ann_file=str(path)))
            for split, file in files.items()
            if (path := folder / source / file).is_file()
        }
        by_text = counted(Config(datasets))
        by_vectors = counted(Config(dict(datasets, model=dict(tower=TOWER))))
        rows.append(dict(dataset=name, text=by_text, vectors=by_vectors))
    return dict(tower=TOWER['model'], rows=rows)


def counted(config: Config) -> dict:
    """CPU time, what compared sentences, and for each split its sentences and those by kind."""
    began = time.process_time()
    report = check_config(config, features=False)
    cpu_seconds = time.process_time() - began
    splits = {}
    for split, found in report.labels.items():
        splits[split] = dict(sentences=found.num_sentences)
        for kind, figures in found.figures().items():
            splits[split][kind] = figures['count']
    return dict(cpu_seconds=cpu_seconds, compared_by=report.compared_by, splits=splits)


def render_labels(result: dict) -> str:
    """Sentences of each kind, and their share, in each split."""
    others = list(KINDS)[1:]
    heads = [kind.replace('_', ' ') for kind in others]
    heads = ['split', 'sentences', 'same meaning, by text', 'and by vectors', *heads]
    rows = []
    for row in result['rows']:
        for split, by_text in row['text']['splits'].items():
            total = by_text['sentences']
            counts = [by_text['same_meaning'], row['vectors']['splits'][split]['same_meaning']]
            counts += [by_text[kind] for kind in others]
            cells = [f'{count:,} ({count / total:.2%})' if count else '0' for count in counts]
            rows.append([f'{row["dataset"]}, {split}', f'{total:,}', *cells])
    text, vectors = (
        max(row[way]['cpu_seconds'] for row in result['rows']) for way in ('text', 'vectors')
    )
    return (
        f'{table(heads, rows)}\n\nThe largest dataset took {text:.0f} s of CPU time by text alone, '
        f'and {vectors / 60:.0f} minutes with vectors of {result["tower"]} without a GPU.'
    )
