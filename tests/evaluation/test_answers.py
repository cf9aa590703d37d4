"""Files of language models' answers beside annotations."""

import json
import random

import pytest

from mmn_plugin.errors import MissingFileError
from mmn_plugin.evaluation import (
    AnswerReader,
    PredictionsError,
    answer_checks,
    answer_counts,
    answers_content,
    read_answers,
)
from mmn_plugin.structures.annotations import VideoAnnotation

VIDEOS = [
    VideoAnnotation('b', 40.0, None, ['Somebody waves.', 'a dog', 'Somebody waves'], [0, 1, 2]),
    VideoAnnotation('a', 20.0, None, ['a cat'], [3]),
]


def line(video_id, sentence, answer):
    return json.dumps(dict(video_id=video_id, sentence=sentence, answer=answer))


def read(path, *lines, videos=VIDEOS):
    path.write_text('\n'.join(lines) + '\n')
    return read_answers(path, videos, AnswerReader())


def test_answers_become_predictions_of_every_annotated_sentence(tmp_path):
    answers, left_out = read(
        tmp_path / 'x.jsonl',
        line('a', 'A cat!', 'from 25 s to 30 s'),
        '',
        line('b', 'somebody waves', 'from 50 s to 30 s and from 1 s to 2 s'),
        line('c', 'a bird', 'from 1 s to 2 s'),
    )
    assert left_out == 1
    videos = answers_content(answers)['videos']
    assert list(videos) == ['b', 'a']
    waves = dict(sentence='Somebody waves.', moments=[[30, 40], [1, 2]], reading='times')
    assert videos['b']['sentences'] == [
        dict(waves, index=0),
        dict(index=1, sentence='a dog', moments=[], reading='unread'),  # not answered
        dict(waves, index=2, sentence='Somebody waves'),
    ]
    assert videos['a']['sentences'][0]['moments'] == [[25, 30]]
    assert answer_counts(answers) == dict(
        num_sentences=4,
        num_times=3,
        num_absent=0,
        num_unread=0,
        num_missing=1,
        num_swapped=2,
        num_clipped=2,
        num_outside=1,
    )


def test_a_repeated_sentence_takes_as_many_answers_in_order(tmp_path):
    answers, _ = read(
        tmp_path / 'x.jsonl',
        line('b', 'Somebody waves', '1 s to 2 s'),
        line('b', 'Somebody waves', 'it does not occur'),
        line('b', 'a dog', [3, 4]),  # parsed by somebody before
        line('a', 'a cat', None),
    )
    readings = [(one.index, one.reading.reading, one.moments) for one in answers]
    assert readings == [
        (0, 'times', [(1, 2)]),
        (1, 'times', [(3, 4)]),
        (2, 'absent', []),
        (3, 'unread', []),
    ]


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        (['{"video_id": "a"'], 'line 1 is not JSON'),
        (['', '[]'], 'line 2 needs "video_id", "sentence"'),
        (['{"video_id": "a", "sentence": "a cat"}'], 'line 1 needs .* and "answer"'),
        ([line('c', 'a cat', '')], 'no answer about a video of the annotations'),
        ([line('a', 'a cat', ''), line('b', 'a cow', '')], "line 2: video 'b' has no .*'a cow'"),
        ([line('a', 'a cat', '')] * 2, "line 2: sentence 'a cat' .* has 2 answers"),
        ([line('b', 'somebody waves', '')] * 3, 'line 3: .* 3 answers, and is annotated 2 times'),
    ],
)
def test_a_broken_file_is_refused_by_line(tmp_path, lines, message):
    with pytest.raises(PredictionsError, match=message):
        read(tmp_path / 'x.jsonl', *lines)


def test_a_file_that_does_not_exist_or_is_no_text_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r'absent\.jsonl does not exist'):
        read_answers(tmp_path / 'absent.jsonl', VIDEOS, AnswerReader())
    (tmp_path / 'x.jsonl').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(PredictionsError, match='line 1 is not JSON'):
        read_answers(tmp_path / 'x.jsonl', VIDEOS, AnswerReader())


def checks(answer, number=40, sentences=2):
    """Figures and warnings of answers, each a function of its true moment, in videos of 200 s."""
    generator = random.Random(0)
    truth, videos, given = [], [], {}
    for name in map(str, range(number // sentences)):
        texts = [f'sentence {place}' for place in range(sentences)]
        videos.append(VideoAnnotation(name, 200.0, None, texts, list(range(sentences))))
        for text in texts:
            start = generator.uniform(0, 150)
            truth.append([(start, start + generator.uniform(5, 40))])
            given[name, text] = answer(*truth[-1][0])
    lines = [line(*key, f'{start:.2f} s to {end:.2f} s') for key, (start, end) in given.items()]
    return videos, truth, lines


@pytest.mark.parametrize(
    ('answer', 'figure', 'value', 'warnings'),
    [
        (lambda start, end: (start + 1, end + 1), 'clock_factor', 1.0, []),
        (
            lambda start, end: (start % 40, start % 40 + 20),
            'latest_end',
            60,
            ['99% of the answers'],
        ),
        (
            lambda start, end: (5 * (start // 5), 5 * (end // 5) + 5),
            'percent_multiples_of_5',
            100,
            ['100.0% of the answered times are multiples of 5 s'],
        ),
        (lambda start, end: (2 * start, 2 * end), 'clock_factor', 2, ['are 2 times the true ones']),
        (
            lambda start, end: (31, 199),
            'percent_most_common_span',
            100,
            ['100.0% of the answers are the same span', '100.0% of the 20 videos'],
        ),
    ],
)
def test_answers_that_come_of_something_else_are_warned_of(
    tmp_path, answer, figure, value, warnings
):
    videos, truth, lines = checks(answer)
    answers, _ = read(tmp_path / 'x.jsonl', *lines, videos=videos)
    figures, found = answer_checks(answers, truth)
    assert figures[figure] == pytest.approx(value, rel=0.05)
    assert len(found) == len(warnings)
    assert all(text in one for text, one in zip(warnings, found, strict=True))


def test_few_answers_have_no_figures(tmp_path):
    videos, truth, lines = checks(lambda start, end: (0, 1), number=8)
    answers, _ = read(tmp_path / 'x.jsonl', *lines, videos=videos)
    assert answer_checks(answers, truth) == ({}, [])


def test_checks_look_at_sentences_that_occur_and_at_one_window_for_the_clock(tmp_path):
    videos, truth, lines = checks(lambda start, end: (2 * start, 2 * end), number=60)
    answers, _ = read(tmp_path / 'x.jsonl', *lines, videos=videos)
    for place in range(60):
        if place % 3 == 1:
            truth[place] = []
        elif place % 3 == 2:
            truth[place] = [(0.5, 1.0), *truth[place]]
    figures, warnings = answer_checks(answers, truth)
    assert figures['clock_factor'] == pytest.approx(2, rel=0.01)  # of 20 sentences
    assert 'are 2 times the true ones' in ' '.join(warnings)
    twice = [[(0.5, 1.0), *windows] if windows else [] for windows in truth]
    assert answer_checks(answers, twice)[0]['clock_factor'] == 1
    assert answer_checks(answers, [[]] * 60) == ({}, [])
