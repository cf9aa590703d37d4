"""The scripts that make Shapes and its tubes, and a vocabulary."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.run_tool import ROOT, output_of, run_tool
from helpers.tiny_corpus import write_corpus

from mmn_plugin.models.text_encoders import SentenceTokenizer

TOOL = 'data/make_shapes.py'


def test_a_corpus_is_made_and_another_one_is_not_mixed_with_it(tmp_path):
    arguments = (TOOL, tmp_path, '--videos', 12, '--size', 32)
    for _ in range(2):
        assert '10 train, 1 val, 1 test' in output_of(*arguments)
    assert len(list((tmp_path / 'videos').glob('*.mp4'))) == 12
    assert 'another corpus (seed=0 instead of 1)' in output_of(*arguments, '--seed', 1, code=1)
    output = output_of(*arguments, '--workers', '-1', code=2)
    assert "argument --workers: '-1' is not a whole number" in output


def test_a_corpus_with_absent_and_repeated_moments_is_asked_for(tmp_path):
    arguments = (TOOL, tmp_path, '--videos', 10, '--size', 32, '--absent-and-repeated')
    assert '8 train, 1 val, 1 test' in output_of(*arguments)
    (entry,) = json.loads((tmp_path / 'annotations/test.json').read_text()).values()
    assert [] in entry['timestamps']
    assert 'another corpus' in output_of(*arguments[:-1], code=1)


def test_after_a_kill_it_goes_on(tmp_path):
    command = [sys.executable, ROOT / 'tools' / TOOL, tmp_path, '--videos', '60', '--size', '32']
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={'PYTHONPATH': str(ROOT)},
    )
    try:
        deadline = time.time() + 300
        while len(list(tmp_path.glob('videos/*.mp4'))) < 10:
            assert process.poll() is None
            assert time.time() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
    try:
        process.communicate(timeout=300)  # until the last worker that holds its output has ended
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail('workers outlived their parent')
    made = {p: p.stat().st_mtime_ns for p in tmp_path.glob('videos/*.mp4')}
    assert len(made) < 60
    output_of(TOOL, tmp_path, '--videos', 60, '--size', 32)
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert len(list(tmp_path.glob('videos/*.mp4'))) == 60


@pytest.mark.parametrize(
    ('tool', 'module', 'size'),
    [
        ('make_shapes.py', 'corpus.ShapesCorpus', ('--size', 32)),
        ('make_shapes_tubes.py', 'tubes.ShapesTubes', ()),
    ],
)
def test_ctrl_c_is_one_line(tmp_path, monkeypatch, tool, module, size):
    def interrupted(*_):
        raise KeyboardInterrupt

    assert run_tool(TOOL, tmp_path / 'corpus', '--videos', 10, '--size', 32)[0] == 0
    monkeypatch.setattr(f'mmn_plugin.shapes.{module}.write', interrupted)
    code, output = run_tool(f'data/{tool}', tmp_path / 'corpus', '--videos', 10, *size)
    assert (code, output.splitlines()[-1]) == (130, 'Interrupted')
    assert 'Traceback' not in output


def test_every_word_of_the_training_sentences_is_a_token_of_its_own(tmp_path):
    write_corpus(tmp_path)
    out = tmp_path / 'new' / 'vocab.txt'
    output_of('data/build_vocabulary.py', tmp_path / 'train.json', '--out', out)
    tokenizer = SentenceTokenizer(vocab=str(out))
    (ids,) = tokenizer.encode(['A person opens the door slowly.'])
    assert len(ids) == 2 + 7
    assert tokenizer.unk_id not in ids
