"""The shipped extractors."""

from pathlib import Path

import pytest
import yaml

from mmn_plugin.features import EXTRACTORS, extractor_config
from mmn_plugin.features.recognizer import RecognizerConfig, _find
from mmn_plugin.files import config_root

CONFIGS = sorted(path.stem for path in (config_root() / 'extractors').glob('*.py'))
RECOGNISERS = [name for name in CONFIGS if name[:4] in ('c3d_', 'i3d_', 'slow', 'swin')]
DOCS = Path(__file__).resolve().parents[2] / 'docs' / 'features.md'


def test_what_the_issue_of_the_page_lists_is_there():
    assert len(RECOGNISERS) == 5
    towers = {'clip_vit_b32', 'siglip_base_p16', 'siglip2_base_p16_224', 'videoprism_base'}
    assert {'shapes_grid', *towers} <= set(CONFIGS)
    assert {extractor_config(name)['type'] for name in towers} == {'DualTower'}
    text = DOCS.read_text()
    assert not [name for name in CONFIGS if f'`{name}.py`' not in text]


@pytest.mark.parametrize('name', CONFIGS)
def test_each_builds_without_its_weights(name):
    extractor = EXTRACTORS.build(extractor_config(name))
    assert extractor.fps > 0


@pytest.mark.parametrize('name', [n for n in RECOGNISERS if not n.startswith('c3d')])
def test_weights_are_those_that_the_zoo_names_for_the_config(name):
    settings = extractor_config(name)
    index = yaml.safe_load((_find(settings['config']).parent / 'metafile.yml').read_text())
    weights = {model['Name']: model['Weights'] for model in index['Models']}
    assert weights[Path(settings['config']).stem] == settings['checkpoint']


@pytest.mark.parametrize('name', [n for n in RECOGNISERS if n.startswith('c3d')])
def test_c3d_weights_are_those_that_its_config_starts_from(name):
    settings = extractor_config(name)
    model = RecognizerConfig(settings['config']).model
    assert model['backbone']['pretrained'] == settings['checkpoint']


def test_options_of_the_command_line_replace_those_of_the_config():
    settings = extractor_config('c3d_fc7_sports1m', {'extractor.batch_size': 2}, 'w.pth', 25.0, 8)
    assert settings == dict(
        extractor_config('extractors/c3d_fc7_sports1m.py'),
        batch_size=2,
        checkpoint='w.pth',
        fps=25.0,
        stride=8,
    )
    assert extractor_config('clip_vit_b32', checkpoint='folder')['model'] == 'folder'
    assert extractor_config('mmn_shapes.py') == extractor_config('shapes_grid')


@pytest.mark.parametrize(
    ('name', 'checkpoint', 'error', 'message'),
    [
        ('no_such', None, FileNotFoundError, 'no_such'),
        ('mmn_tacos.py', None, ValueError, 'no `extractor`'),
        ('shapes_grid', 'w.pth', ValueError, 'GridFeatureExtractor has no weights'),
    ],
)
def test_what_cannot_be_is_said(name, checkpoint, error, message):
    with pytest.raises(error, match=message):
        extractor_config(name, checkpoint=checkpoint)
