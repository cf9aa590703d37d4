"""A vocabulary from annotations serves the tokenizer."""

from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_corpus

from mmn_plugin.models.text_encoders import SentenceTokenizer

TOOL = 'data/build_vocabulary.py'


def test_every_word_of_the_training_sentences_is_a_token_of_its_own(tmp_path):
    write_corpus(tmp_path)
    code, output = run_tool(TOOL, tmp_path / 'train.json', '--out', tmp_path / 'new' / 'vocab.txt')
    assert code == 0, output
    tokenizer = SentenceTokenizer(vocab=str(tmp_path / 'new' / 'vocab.txt'))
    (ids,) = tokenizer.encode(['A person opens the door slowly.'])
    assert len(ids) == 2 + 7
    assert tokenizer.unk_id not in ids


def test_a_missing_annotation_file_is_named(tmp_path):
    code, output = run_tool(TOOL, tmp_path / 'absent.json', '--out', tmp_path / 'vocab.txt')
    assert code == 1
    assert 'absent.json does not exist' in output
