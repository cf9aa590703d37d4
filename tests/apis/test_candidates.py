"""Clips of the best moments, and what a callable makes of them."""

import runpy
import tempfile

import numpy as np
import pytest
import torch
from helpers.run_tool import ROOT
from helpers.tiny_video_llm import write_video_llm

from mmn_plugin.apis.candidates import Candidate
from mmn_plugin.errors import InputError
from mmn_plugin.features import probe_video, read_pictures

SENTENCE = 'a red box'


@pytest.fixture
def ask(grounder, inferencer, tmp_path):
    """Candidates of a video that is encoded once."""
    encoded = inferencer.encode(grounder.video)

    def candidates(refine=None, **options):
        given = dict(out_dir=tmp_path / 'clips', refine=refine, encoded=encoded) | options
        return inferencer.candidates(grounder.video, SENTENCE, **given)

    return candidates


def test_clips_show_the_video_from_their_offsets_on(grounder, inferencer, ask):
    (answer,) = inferencer(grounder.video, [SENTENCE])
    found = ask(n=2, pad=1.5)
    assert [[one.start, one.end] for one in found] == answer['moments'][:2]
    assert [one.score for one in found] == answer['scores'][:2]
    pictures = list(read_pictures(grounder.video))
    for one in found:
        assert one.offset == pytest.approx(max(one.start - 1.5, 0))
        assert one.offset + one.duration == pytest.approx(min(one.end + 1.5, 24))
        assert probe_video(one.clip).duration == pytest.approx(one.duration, abs=0.13)
        (time, picture), *_ = read_pictures(one.clip)
        whole = [shown for begin, shown in pictures if begin <= one.offset + time + 1e-3][-1]
        assert np.abs(picture.astype(int) - whole.astype(int)).mean() < 8  # encoded anew


def test_answers_are_put_into_the_clock_of_the_video_and_clamped_to_the_clip(ask):
    plain = ask(pad=2.0)
    answers = iter([(1.0, 2.5, 0.25), (-3, np.float32(2), 0.75), torch.tensor([1.0, 1e9, 0.5])])
    asked = []

    def refine(clip, sentence):
        asked.append((clip, sentence))
        return next(answers)

    found = ask(refine, pad=2.0)
    assert asked == [(one.clip, SENTENCE) for one in plain]
    assert [one.score for one in found] == [0.75, 0.5, 0.25]  # the best of them first
    first, second, third = plain
    assert [(one.start, one.end) for one in found] == [
        (second.offset, second.offset + 2),
        (third.offset + 1, third.offset + third.duration),
        (first.offset + 1, first.offset + 2.5),
    ]
    assert all(one.refined and one.problem is None for one in found)
    assert all(0 <= one.start < one.end <= 24 for one in found)


WRONG = {
    'None: no such moment': None,
    'is not (start, end, score)': (1.0, 2.0),
    "'1 to 2' is not (start": '1 to 2',
    'three finite numbers': (float('nan'), 2.0, 0.5),
    'finite numbers': (1.0, float('inf'), 0.5),
    'is not three': ('1', 2.0, 0.5),
    'not three finite': (True, 2.0, 0.5),
    'ends before it starts': (3.0, 1.0, 0.5),
    '1 to 1 s ends before': (1.0, 1.0, 0.5),
    'is not in the clip of': (100.0, 101.0, 0.5),
    '-2 to -1 s is not in the clip': (-2.0, -1.0, 0.5),
    'score 87 of the answer': (1.0, 2.0, 87),
    'RuntimeError: out of memory': RuntimeError('out of memory'),
}


def test_an_answer_that_is_no_span_leaves_its_candidate_and_loses_no_other(ask):
    plain = ask(n=3, pad=0.0)
    for problem, wrong in WRONG.items():
        answers = iter([(0.0, 0.5, 0.01), wrong, (0.0, 0.5, 0.02)])

        def refine(clip, sentence, answers=answers):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        *refined, left = ask(refine, n=3, pad=0.0)
        assert [one.offset for one in refined] == [plain[2].offset, plain[0].offset]
        assert all(one.refined for one in refined)
        assert problem in left.problem
        expected = plain[1]
        assert not left.refined
        assert (left.start, left.end, left.score) == (expected.start, expected.end, expected.score)
        assert left.clip.is_file()


def test_clips_go_to_a_new_folder_where_none_is_named(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    folders = {one.clip.parent for _ in range(2) for one in ask(n=1, out_dir=None)}
    assert len(folders) == 2
    assert all(folder.name.startswith('mmn_clips_') for folder in folders)


def test_no_new_folder_stays_where_there_are_no_clips(ask, inferencer, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    with monkeypatch.context() as absent:
        absent.setitem(inferencer.meta, 'presence', dict(threshold=2.0, tail=0.0))
        assert ask(drop_absent=True, out_dir=None) == []
    with pytest.raises(InputError):
        ask(n=0, out_dir=None)
    monkeypatch.setattr(Candidate, 'cut', lambda *_: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'):
        ask(out_dir=None)
    assert not [*tmp_path.iterdir()]


def test_absent_sentences_give_no_candidates_where_that_is_asked_for(ask, inferencer, monkeypatch):
    monkeypatch.setitem(inferencer.meta, 'presence', dict(threshold=2.0, tail=0.0))
    assert len(ask(n=1)) == 1
    assert ask(drop_absent=True) == []


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(n=0), 'n=0; give 1 or more'),
        (dict(pad=-1), 'pad=-1: give seconds of 0 or more'),
        (dict(pad=float('nan')), 'pad=nan'),
    ],
)
def test_settings_out_of_range_are_refused(ask, options, message):
    with pytest.raises(InputError, match=message):
        ask(**options)


def test_features_and_arrays_have_no_clips(inferencer, features):
    for video in (features, 'f.h5::entry'):
        with pytest.raises(InputError, match='clips are cut out of a video file'):
            inferencer.candidates(video, SENTENCE)


@pytest.fixture(scope='module')
def example():
    return runpy.run_path(str(ROOT / 'docs/examples/refine_with_video_llm.py'))


def test_the_examples_video_llm_refines_clips(ask, example, tmp_path):
    folder = write_video_llm(tmp_path / 'llm', '0.5-1.25', '0.50-1.25s')
    llm = example['VideoLLM'](folder, frames=3, height=28)
    shown = llm.prompt(ask(n=1)[0].clip, SENTENCE)[0]['content']
    assert [part['type'] for part in shown] == ['text', 'image'] * 3 + ['text']
    assert SENTENCE in shown[-1]['text']
    found = ask(llm, n=2)
    assert len(found) == 2
    for one in found:
        assert one.problem is None
        assert one.refined
        assert (one.start, one.end) == (one.offset + 0.5, one.offset + 1.25)
        assert 0 < one.score < 1


def test_the_example_reads_spans_from_words(example):
    read = example['read_span']
    for words, span in {
        '3.5 - 7': (3.5, 7),
        'From 3.5s to 7 seconds.': (3.5, 7),
        'In 12 frames I see it from 0:03 until 1:07.5': (3, 67.5),
        '10\u201312.25': (10, 12.25),
        'None.': None,
    }.items():
        assert read(words) == span
    with pytest.raises(ValueError, match="answered 'a red box', which is no span"):
        read('a red box')
