"""Configs of zero-shot models of tiny towers, as files."""

from pathlib import Path

from .tiny_corpus import PIPELINE, write_settings
from .tiny_towers import write_dual_tower
from .tiny_zero_shot import zero_shot_settings

SENTENCES = ['a man opens the door', 'the dog runs', 'what does the red ball do?']


def write_zero_shot(folder: Path, kind: str = 'clip', **changes) -> Path:
    """A config, whose tower is the folder ``org/KIND`` below the folder ``models``.

    ``changes`` replace settings of the tower.
    """
    tower = write_dual_tower(folder / 'models' / 'org' / kind, kind)
    tower.update(dict(model=f'org/{kind}') | changes)
    tower.pop('device')
    model = zero_shot_settings(unrelated=SENTENCES[1:], nms_threshold=0.45)
    settings = dict(
        default_scope='mmaction',
        custom_imports=dict(imports=['mmn_plugin']),
        extractor=tower,
        model=model | dict(tower=tower),
        presence=dict(threshold=0.5, tail=0.0),
        test_dataloader=dict(
            dataset=dict(type='TemporalGroundingDataset', ann_file='', pipeline=PIPELINE)
        ),
    )
    return write_settings(folder / f'zero_shot_{kind}.py', settings)
