"""Where models of Hugging Face are looked for."""

import pytest
from helpers.tiny_towers import write_text_tower

from mmn_plugin.errors import DownloadError
from mmn_plugin.features import TextTower
from mmn_plugin.hub import find_model, from_hub, is_local, published_name
from mmn_plugin.models import SentenceEncoder, SentenceTokenizer

NAME = 'some-org/some-model'


def folder_of_model(path):
    path.mkdir(parents=True)
    (path / 'config.json').write_text('{}')
    return str(path)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.delenv('MMN_MODEL_ROOT', raising=False)


def test_a_model_is_found_below_the_root_by_name(tmp_path):
    assert find_model(NAME) == NAME
    short = folder_of_model(tmp_path / 'some-model')
    assert find_model(NAME, str(tmp_path)) == short
    full = folder_of_model(tmp_path / NAME)
    assert find_model(NAME, str(tmp_path)) == full
    assert find_model(short, str(tmp_path)) == short


def test_the_root_may_be_the_models_own_folder(tmp_path, monkeypatch):
    own = folder_of_model(tmp_path / 'clip')
    assert find_model(NAME, own) == own
    monkeypatch.setenv('MMN_MODEL_ROOT', own)  # holds for all models: none of them is this one
    assert find_model(NAME) == NAME


def test_a_folder_that_stands_for_a_name_is_logged_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmn_plugin.hub.print_log', lambda text, **_: said.append(text))
    own = folder_of_model(tmp_path / 'siglip')
    for _ in range(3):
        find_model(NAME, own)
    assert said == [f'the model in {own} stands for {NAME}']
    find_model('siglip', str(tmp_path))
    assert len(said) == 1


@pytest.mark.parametrize(
    ('given', 'published'),
    [
        (NAME, NAME),
        ('gpt2', 'gpt2'),
        ('data/shapes/towers/video', 'video'),
        ('/home/someone/models/clip/', 'clip'),
        ('../clip', 'clip'),
        ('/home/x/hub/models--openai--clip-vit/snapshots/0123abcd', 'openai/clip-vit'),
    ],
)
def test_a_models_name_elsewhere_holds_no_folder_of_this_machine(given, published):
    assert published_name(given) == published


def test_the_variable_is_looked_at_after_the_root(tmp_path, monkeypatch):
    here, there = folder_of_model(tmp_path / 'a' / NAME), folder_of_model(tmp_path / 'b' / NAME)
    monkeypatch.setenv('MMN_MODEL_ROOT', str(tmp_path / 'a'))
    assert find_model(NAME) == here
    assert find_model(NAME, str(tmp_path / 'b')) == there
    with pytest.raises(ValueError, match='nowhere is no folder'):
        find_model(NAME, str(tmp_path / 'nowhere'))


def test_the_error_names_the_places_and_what_to_set(tmp_path):
    with pytest.raises(OSError, match=NAME) as raised:
        TextTower(NAME, root=str(tmp_path)).encode_sentences(['a man'])
    message = str(raised.value)
    for part in (f'{tmp_path} does not hold it', 'HF_HUB_OFFLINE=1', 'HF_HOME'):
        assert part in message


def test_the_hub_is_asked_once_for_a_model_that_it_does_not_give():
    asked = []
    with pytest.raises(DownloadError, match='there is no model'):
        from_hub(asked.append, NAME)
    assert not asked


def test_encoder_and_tokenizer_look_there_too(tmp_path, monkeypatch):
    write_text_tower(tmp_path / NAME)
    with pytest.raises(OSError, match='no folder of models is given'):
        SentenceEncoder(4, NAME)
    monkeypatch.setenv('MMN_MODEL_ROOT', str(tmp_path))
    assert SentenceEncoder(4, NAME).bert.config.hidden_size == 16
    assert SentenceTokenizer(NAME).encode(['a man'])


def test_a_folder_without_weights_is_no_complete_model(tmp_path):
    folder = write_text_tower(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(OSError, match='is no complete model, copy or download all files'):
        TextTower(folder).encode_sentences(['a man'])
    (tmp_path / 'model.safetensors').write_bytes(b'damaged')
    with pytest.raises(ValueError, match='weights are damaged: copy or download'):
        TextTower(folder).encode_sentences(['a man'])


def test_weights_that_are_missing_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_text_tower(tmp_path)
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['encoder.layer.1.output.dense.weight']
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'lacks weights of AutoModel.*layer\.1\.output'):
        TextTower(folder).encode_sentences(['a man'])


def test_weights_are_on_this_machine_in_a_folder_or_in_the_cache(tmp_path, monkeypatch):
    root = tmp_path / 'models'
    folder_of_model(root / NAME)
    assert is_local(NAME, str(root))
    assert not is_local(NAME)
    snapshot = tmp_path / 'cache' / 'models--some-org--some-model' / 'snapshots' / 'abc'
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / 'refs'
    refs.mkdir()
    (refs / 'main').write_text('abc')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'cache'))
    (snapshot / 'config.json').write_text('{}')
    assert not is_local(NAME)  # its configuration alone
    (snapshot / 'model.safetensors').touch()
    assert is_local(NAME)
    assert not is_local(NAME, revision='other')
