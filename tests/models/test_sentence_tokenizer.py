import json
import pickle

import numpy as np
import pytest
import torch
from mmaction.registry import TOKENIZER

from mmn_plugin.models.text_encoders import SentenceTokenizer
from mmn_plugin.structures.annotations import parse_video

SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
VOCAB = [*SPECIAL, 'a', 'dog', 'run', '##s', '##ning', 'cafe', '.', '!', "'", 'he']


@pytest.fixture
def tokenizer():
    return SentenceTokenizer(vocab=VOCAB)


@pytest.fixture(scope='module')
def real(shared):
    return shared / 'data' / 'vocab' / 'bert-base-uncased.txt'


def test_words_that_the_vocabulary_lacks_are_named_once_as_written(tokenizer):
    assert tokenizer.unknown_words('He RUNS a Dgo, the café … dgo, the runners!') == [
        'Dgo', 'the', 'dgo', 'runners'
    ]  # fmt: skip
    assert tokenizer.unknown_words('a dog runs.') == []


@pytest.mark.parametrize('name', ['tacos_pool', 'charades_pool', 'activitynet_pool'])
def test_ids_agree_with_the_published_code(shared, golden, name):
    figures = golden(name)
    annotations = json.loads(str(figures['annotation_json']))
    tokenizer = SentenceTokenizer(vocab=shared / 'golden' / 'vocab_small.txt')
    for index, video_id in enumerate(figures['video_order']):
        video = parse_video(name, str(video_id), annotations[str(video_id)])
        input_ids, mask = tokenizer.pad(tokenizer.encode(video.sentences))
        np.testing.assert_array_equal(input_ids, figures[f'input_ids/{index}'])
        np.testing.assert_array_equal(mask.sum(1), figures[f'word_lens/{index}'])


def test_padding_fills_with_the_pad_token(tokenizer):
    input_ids, mask = tokenizer.pad(tokenizer.encode(['a dog.', 'he runs!']))
    assert input_ids.dtype == mask.dtype == torch.int64
    assert input_ids.tolist() == [[2, 5, 6, 11, 3, 0], [2, 14, 7, 8, 12, 3]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1] * 6]
    assert tokenizer.encode([]) == []
    assert tokenizer.pad([])[0].shape == (0, 0)


def test_a_vocabulary_comes_as_list_mapping_or_file(tmp_path):
    (tmp_path / 'vocab.txt').write_bytes('\r\n'.join([*VOCAB, '']).encode())
    sources = [VOCAB, {token: i for i, token in enumerate(VOCAB)}, tmp_path / 'vocab.txt']
    for source in sources:
        tokenizer = SentenceTokenizer(vocab=source)
        assert tokenizer.encode(['Café dogs']) == [[2, 10, 6, 8, 3]]
        assert tokenizer.vocab_size == len(VOCAB)
    folder = SentenceTokenizer(name_or_path=str(tmp_path))
    assert folder.encode(['Café dogs']) == [[2, 10, 6, 8, 3]]
    vocab = [*VOCAB, 'Dog']
    assert SentenceTokenizer(vocab=vocab, lowercase=False).encode(['Dog dog']) == [[2, 15, 6, 3]]


@pytest.mark.parametrize(
    ('sentence', 'problem'),
    [
        ('你好.', 'holds no word of the vocabulary'),  # punctuation does not rescue it
        ('☃', 'holds no word of the vocabulary'),
        ('', 'holds no word'),
        ('...', 'holds no word'),
        ('\u200b', 'holds no word'),
        ('a dog \ud83d runs', 'which is no character'),
        ('caf\udce9', 'which is no character'),
    ],
)
def test_a_sentence_that_says_nothing_is_refused_and_inspected(tokenizer, sentence, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        tokenizer.encode(['a dog runs', sentence])
    str(caught.value).encode()  # can be printed
    (length, fine), (_, found) = tokenizer.inspect(['a dog runs', sentence])
    assert (length, fine) == (6, None)
    assert problem in found
    assert tokenizer.encode(['zebra dog']) == [[2, 1, 6, 3]]  # one known word suffices


def test_truncation_keeps_the_separator_and_warns_once(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'mmn_plugin.models.text_encoders.tokenizer.print_log',
        lambda message, **kwargs: messages.append(message),
    )
    tokenizer = SentenceTokenizer(vocab=VOCAB, max_length=4)
    assert tokenizer.encode(['a dog', 'a dog runs!']) == [[2, 5, 6, 3], [2, 5, 6, 3]]
    tokenizer.encode(['he runs a cafe'])
    [message] = messages
    assert 'a sentence of 7 tokens is cut to 4' in message  # [CLS] a dog run ##s ! [SEP]
    tokenizer = TOKENIZER.build(dict(type='SentenceTokenizer', vocab=VOCAB))  # without a limit
    assert len(tokenizer.encode(['dog ' * 2000])[0]) == 2002


def test_it_travels_as_plain_data(tokenizer, tmp_path):
    torch.save(tokenizer.state(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    copy = SentenceTokenizer.from_state(state)
    assert copy.encode(['Café dogs!']) == tokenizer.encode(['Café dogs!'])
    assert copy.max_length == tokenizer.max_length
    assert pickle.loads(pickle.dumps(tokenizer)).encode(['a dog']) == [[2, 5, 6, 3]]


def test_the_same_tokenizer_from_file_and_folders_is_the_same(real, tmp_path):
    from transformers import BertTokenizerFast

    from_file = SentenceTokenizer(vocab=real)
    tokens = real.read_text(encoding='utf-8').split('\n')[:30_522]
    (tmp_path / 'plain').mkdir()
    (tmp_path / 'plain/vocab.txt').write_text('\n'.join(tokens), encoding='utf-8')
    plain = SentenceTokenizer(str(tmp_path / 'plain'))
    (tmp_path / 'plain/tokenizer_config.json').write_text(
        json.dumps(dict(tokenizer_class='BertTokenizer', do_lower_case=True))
    )
    configured = SentenceTokenizer(str(tmp_path / 'plain'))
    vocab = {token: i for i, token in enumerate(tokens)}
    BertTokenizerFast(vocab=vocab).save_pretrained(tmp_path / 'saved')
    saved = SentenceTokenizer(str(tmp_path / 'saved'))
    assert saved.state() != from_file.state()
    sentences = ['Café déjà-vu: a naïve façade!', "He doesn't wash 你好 (the 2nd ☃) & zzyzxqqw."]
    assert saved.encode(sentences) == from_file.encode(sentences)
    for other in (plain, configured, saved):
        assert from_file.differences(other.state()) == []
        assert other.differences(from_file.state()) == []


def rewritten(tokenizer, **parts):
    """Its state, with parts as another release might write them."""
    state = tokenizer.state()
    content = {**json.loads(state['tokenizer']), **parts}
    return dict(state, tokenizer=json.dumps(content, indent=1, sort_keys=True))


def normalizer(lowercase=True, strip_accents=None, clean_text=True, handle_chinese_chars=True):
    return dict(type='BertNormalizer', **locals())


def sequence(*normalizers):
    return dict(type='Sequence', normalizers=normalizers)


def test_how_a_tokenizer_is_written_down_does_not_matter(tokenizer):
    lower = sequence(normalizer(lowercase=False, strip_accents=True), dict(type='Lowercase'))
    splitters = [dict(type='WhitespaceSplit'), dict(type='BertPreTokenizer')]
    for parts in (
        {},
        dict(normalizer=normalizer(strip_accents=True)),
        dict(normalizer=lower),
        dict(pre_tokenizer=dict(type='Sequence', pretokenizers=splitters)),
    ):
        assert tokenizer.differences(rewritten(tokenizer, **parts)) == []


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (dict(normalizer=normalizer(lowercase=False)), "'Dog' becomes 'Dog', here 'dog'"),
        (dict(normalizer=normalizer(strip_accents=False)), "'café' becomes 'café', here 'cafe'"),
        (dict(normalizer=None), "normalizer: 'Dog' becomes 'Dog'"),
        (dict(normalizer=normalizer(handle_chinese_chars=False)), "normalizer: '小狗'"),
        (dict(normalizer=normalizer(clean_text=False)), 'normalizer: '),
        (
            dict(
                normalizer=sequence(
                    normalizer(), dict(type='Replace', pattern=dict(String='ß'), content='ss')
                )
            ),
            "normalizer: 'ß' becomes 'ss', here 'ß'",
        ),
        (dict(pre_tokenizer=dict(type='WhitespaceSplit')), 'pre-tokenizer: "a dog'),
        (dict(post_processor=None), "ids: 'Dog' becomes [6], here [2, 6, 3]"),
        (dict(added_tokens=[]), 'ids: '),
    ],
)
def test_another_step_is_named_with_an_example(tokenizer, parts, message):
    found = tokenizer.differences(rewritten(tokenizer, **parts))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (dict(vocab=[*VOCAB[:-2], 'he', "'"]), '15 tokens, here 15; 2 differ, the first is'),
        (dict(vocab=[*VOCAB, 'cat']), "16 tokens, here 15; 1 differ, the first is 'cat'"),
        (dict(vocab=VOCAB[::-1]), 'the id of [PAD]: 14, here 0'),
        (dict(vocab=VOCAB, max_length=7), 'max_length: 7, here None'),
        (dict(vocab=VOCAB, lowercase=False), "'Dog' becomes 'Dog', here 'dog'"),
    ],
)
def test_another_tokenizer_is_told_by_what_differs(tokenizer, other, message):
    state = SentenceTokenizer(**other).state()
    assert message in '; '.join(tokenizer.differences(state))
    assert SentenceTokenizer(**other).differences(tokenizer.state())


def test_another_rule_of_the_model_is_named(tokenizer):
    model = json.loads(tokenizer.state()['tokenizer'])['model']
    for key, value in (('continuing_subword_prefix', '@@'), ('max_input_chars_per_word', 9)):
        found = tokenizer.differences(rewritten(tokenizer, model={**model, key: value}))
        assert found == [f'{key} of the model: {value!r}, here {model[key]!r}']


def test_bad_sources_are_refused(tmp_path, monkeypatch):
    def not_found(name, **kwargs):
        raise OSError(f'{name} is not a local folder and is not a valid model identifier')

    monkeypatch.setattr('transformers.AutoTokenizer.from_pretrained', not_found)
    with pytest.raises(OSError, match=r"no model 'no/such-model'.*vocab="):
        SentenceTokenizer('no/such-model')
    for settings in ({}, dict(name_or_path='name', vocab=VOCAB)):
        with pytest.raises(ValueError, match='not both'):
            SentenceTokenizer(**settings)
    with pytest.raises(FileNotFoundError, match=r'vocab\.txt'):
        SentenceTokenizer(vocab=tmp_path / 'vocab.txt')
    with pytest.raises(ValueError, match=r"lacks \['\[UNK\]'\]"):
        SentenceTokenizer(vocab=[token for token in VOCAB if token != '[UNK]'])
