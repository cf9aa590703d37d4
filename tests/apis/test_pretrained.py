"""A model without its config, and as a folder."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.tiny_grounder import GRID_SIZE
from mmaction.registry import MODELS
from mmengine.config import Config
from transformers import DistilBertConfig, DistilBertModel

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.pretrained import plain_meta
from mmn_plugin.engine import CheckpointIdentity
from mmn_plugin.files import OutputError

SENTENCES = ['a person opens the door', 'red box', 'slowly closes the blue door']


@pytest.fixture(scope='module')
def own(grounder):
    """The model by its checkpoint alone."""
    return GroundingInferencer(checkpoint=grounder.checkpoint, device='cpu')


@pytest.fixture(scope='module')
def video():
    return np.random.default_rng(0).random((40, GRID_SIZE), dtype=np.float32)


@pytest.fixture(scope='module')
def expected(inferencer, video):
    return inferencer(video, SENTENCES, 30.0)


@pytest.fixture
def folder(own, tmp_path):
    own.save_pretrained(tmp_path / 'model')
    return tmp_path / 'model'


def test_the_checkpoint_carries_its_config_and_vocabulary(
    grounder, own, inferencer, video, expected
):
    assert own(video, SENTENCES, 30.0) == expected
    assert own.extractor.settings == inferencer.extractor.settings
    vocabulary = grounder.corpus / 'vocab.txt'
    kept = vocabulary.read_text()
    try:
        vocabulary.write_text(kept.replace('box', 'hat'))
        moved = GroundingInferencer(checkpoint=grounder.checkpoint, device='cpu')
    finally:
        vocabulary.write_text(kept)
    assert moved(video, SENTENCES, 30.0) == expected


def test_a_saved_model_answers_the_same_to_the_bit_on_any_machine(
    grounder, own, folder, video, expected
):
    again = GroundingInferencer.from_pretrained(folder, device='cpu')
    assert again(video, SENTENCES, 30.0) == expected
    assert again.extractor.settings == own.extractor.settings
    ours, theirs = own.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.meta == own.meta
    assert again.meta['epoch'] == 3
    meta = dict(settings=dict(data_root='/home'), cfg='a = 1', tensor=torch.ones(2), epoch=3)
    assert plain_meta(meta) == dict(epoch=3)  # what stays behind
    given = GroundingInferencer(grounder.config, folder, 'cpu')  # in the place of a checkpoint
    assert given(video, SENTENCES, 30.0) == expected
    text = (folder / 'config.json').read_text()
    assert 'name_or_path' not in text
    assert str(grounder.folder) not in text
    names = ['README.md', 'config.json', 'model.safetensors', 'tokenizer.json']
    assert sorted(path.name for path in folder.iterdir()) == names


def test_settings_travel_with_the_folder(grounder, video, tmp_path):
    options = dict(presence_threshold=0.25, long_video=dict(window=10.0, overlap=0.5))
    GroundingInferencer(checkpoint=grounder.checkpoint, device='cpu', **options).save_pretrained(
        tmp_path
    )
    again = GroundingInferencer.from_pretrained(tmp_path, device='cpu')
    assert again.presence_threshold == 0.25
    assert again.encode(video, 30.0).num_windows == 5
    page = (tmp_path / 'README.md').read_text()
    assert f'| features | {GRID_SIZE} numbers per step; made from a video file by `Grid' in page
    assert '| moments | 8 clips, pooling counts [7] |' in page
    assert 'presence is below 0.250 probably does' in page
    assert 'Videos longer than 15 s are looked at in windows of 10 s' in page
    assert '## Limits' in page
    assert '{' not in page


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('config.json', b'{', 'config.json is damaged'),
        ('config.json', b'[]', 'is damaged'),
        ('config.json', b'{"format": "other"}', "format 'other'"),
        ('config.json', b'{"format": "mmn_plugin/model", "version": 1}', "is damaged: 'config'"),
        ('model.safetensors', b'xx', 'model.safetensors is damaged'),
        ('model.safetensors', None, 'lacks model.safetensors'),
        ('tokenizer.json', None, 'lacks tokenizer.json'),
    ],
)
def test_a_damaged_folder_is_named(folder, name, content, message):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        GroundingInferencer.from_pretrained(folder, device='cpu')


def test_a_folder_that_asks_for_foreign_code_is_refused(folder):
    content = json.loads((folder / 'config.json').read_text())
    content['config']['extractor'] = dict(type='os.system', command='true')
    (folder / 'config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"type='os\.system', which could import"):
        GroundingInferencer.from_pretrained(folder, device='cpu')


def test_places_that_are_no_models_are_refused_and_left_alone(own, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder of save_pretrained'):
        GroundingInferencer.from_pretrained(tmp_path)
    own.save_pretrained(folder)  # a model's files are replaced
    for name in ('README.md', 'config.json'):
        (tmp_path / name).write_text('{"mine": 1}')
        with pytest.raises(OutputError, match=f'{name} is there and was not written by'):
            own.save_pretrained(tmp_path)
        with pytest.raises(OutputError, match=f'{name} is a file, and a folder is needed'):
            own.save_pretrained(tmp_path / name)
        assert [path.name for path in tmp_path.glob('*.*')] == [name]
        (tmp_path / name).unlink()


def test_names_come_from_the_model_index(grounder):
    assert {'mmn_tacos', 'mmn_shapes'} <= set(GroundingInferencer.list_models())
    shapes = GroundingInferencer.list_models(patterns='.*_shapes')
    assert {'mmn_shapes', 'mscl_shapes'} <= set(shapes)
    assert 'mmn_tacos' not in shapes
    assert GroundingInferencer.list_models(patterns='mmn_tacos$') == ['mmn_tacos']
    with pytest.raises(ValueError, match="no weights of 'mmn_tacos' are published"):
        GroundingInferencer('mmn_tacos')
    with pytest.raises(FileNotFoundError, match=r"no model 'mmn_tokos'.*mmn_tacos"):
        GroundingInferencer('mmn_tokos', grounder.checkpoint)
    with pytest.raises(ValueError, match=r'another (architecture|vocabulary)'):
        GroundingInferencer('mmn_shapes', grounder.checkpoint, 'cpu')
    with pytest.raises(ValueError, match='no checkpoint was given'):
        GroundingInferencer(grounder.config)


def test_weights_of_a_named_model_are_taken_where_they_are_published(
    grounder, monkeypatch, video, expected
):
    entry = dict(Name='tiny', Config=str(grounder.config), Weights=str(grounder.checkpoint))
    monkeypatch.setattr('mmn_plugin.apis.pretrained.named_models', lambda: dict(tiny=entry))
    assert GroundingInferencer('tiny', device='cpu')(video, SENTENCES, 30.0) == expected


def test_a_pretrained_language_model_is_not_asked_for_again(grounder, tmp_path, video):
    sizes = dict(dim=16, n_heads=2, n_layers=1, hidden_dim=16, max_position_embeddings=32)
    config = DistilBertConfig(vocab_size=32, tie_weights_=True, **sizes)
    DistilBertModel(config).save_pretrained(tmp_path / 'language_model')
    settings = Config.fromfile(grounder.config)
    settings.model.text_encoder = dict(
        type='SentenceEncoder', embed_channels=8, name_or_path=str(tmp_path / 'language_model')
    )
    model = MODELS.build(settings.model).eval()
    checkpoint = dict(
        state_dict=model.state_dict(),
        meta=dict(settings=settings.to_dict(), **CheckpointIdentity.collect(model).entries()),
    )
    torch.save(checkpoint, tmp_path / 'full.pth')
    before = GroundingInferencer(settings, tmp_path / 'full.pth', 'cpu')(video, SENTENCES, 30.0)
    (tmp_path / 'language_model').rename(tmp_path / 'gone')
    alone = GroundingInferencer(checkpoint=tmp_path / 'full.pth', device='cpu')
    assert alone(video, SENTENCES, 30.0) == before
    alone.save_pretrained(tmp_path / 'folder')
    again = GroundingInferencer.from_pretrained(tmp_path / 'folder', device='cpu')
    assert again(video, SENTENCES, 30.0) == before


def test_absent_sentences_can_come_back_empty(grounder, own, video, expected):
    encoded = own.encode(video, 30.0)
    presence = own.predict(encoded, SENTENCES).pred_instances.presence
    assert presence.shape == (3,)
    assert 'present' not in expected[0]
    with pytest.raises(ValueError, match='drop_absent needs a presence_threshold'):
        own.ground(encoded, SENTENCES, drop_absent=True)
    middle = float(presence.sort().values[1])
    strict = GroundingInferencer(None, grounder.checkpoint, 'cpu', presence_threshold=middle)
    answers = strict(video, SENTENCES, 30.0, drop_absent=True)
    assert sum(answer['present'] for answer in answers) == 2
    assert all(bool(answer['moments']) == answer['present'] for answer in answers)
    assert all(answer['moments'] for answer in strict(video, SENTENCES, 30.0))


@pytest.mark.parametrize('conv_mode', ['dense', 'sparse'])
def test_threads_share_one_inferencer(grounder, video, conv_mode):
    """Different videos and sentences make what they share change all the time."""
    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu')
    inferencer.model.neck.encoder.conv_mode = conv_mode
    words = ('a', 'person', 'opens', 'closes', 'the', 'door', 'box', 'red', 'blue', 'slowly')
    rng = np.random.default_rng(0)
    asked = [[' '.join(rng.choice(words, 4)) for _ in range(3)] for _ in range(24)]
    videos = [video[i:] for i in range(24)]
    alone = [inferencer(v, s, 30.0) for v, s in zip(videos, asked, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(inferencer, videos, asked, [30.0] * 24)) == alone
        extractors = list(pool.map(lambda _: inferencer.extractor, range(8)))
    assert len(set(map(id, extractors))) == 1
