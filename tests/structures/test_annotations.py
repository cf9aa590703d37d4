"""Rules of annotation files: what is read, clamped, dropped and refused."""

import json

import pytest

from mmn_plugin.structures.annotations import AnnotationError, parse_video, read_annotations


def write(folder, content):
    path = folder / 'ann.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def video(**changes):
    entry = {'duration': 20.0, 'timestamps': [[1, 5], [7.5, 9]], 'sentences': ['one', 'two']}
    return {key: value for key, value in (entry | changes).items() if value is not None}


def test_real_sentences_are_all_read_where_times_are_not(shared):
    path = shared / 'data' / 'annotations' / 'activitynet' / 'train.json'
    kept, timed = (
        sum(len(v.sentences) for v in read_annotations(path, timed)) for timed in (False, True)
    )
    assert kept == timed + 4  # those whose end is before their start


IN_FRAMES = {'fps': 25.0, 'num_frames': 500, 'timestamps': [[50, 100]], 'sentences': ['one']}


@pytest.mark.parametrize(
    ('entry', 'moments', 'index'),
    [
        (IN_FRAMES, [(2.0, 4.0)], [0]),
        (video(timestamps=[[-3, 5], [7, 99]]), [(0.0, 5.0), (7.0, 20.0)], [0, 1]),  # clamped
        (video(timestamps=[[5, 1], [1, 5]]), [(1.0, 5.0)], [1]),  # the first is dropped
        (video(timestamps=[[5, 1], [3, 3]]), [], []),
    ],
)
def test_moments_become_seconds_within_the_video(tmp_path, entry, moments, index):
    videos = read_annotations(write(tmp_path, {'a': entry, 'b': video()}))
    assert [v.video_id for v in videos] == (['a', 'b'] if moments else ['b'])
    found = parse_video('ann.json', 'a', entry)
    assert (found.duration, found.moments, found.sentence_index) == (20.0, moments, index)
    assert len(found.sentences) == len(moments)


@pytest.mark.parametrize(
    ('timestamp', 'windows', 'kinds'),
    [
        ([], [], []),
        ([[1, 5]], [(1.0, 5.0)], []),
        ([[7, 9], [1, 5], [4, 6], [1, 5]], [(7.0, 9.0), (1.0, 5.0), (4.0, 6.0), (1.0, 5.0)], []),
        (
            [[-2, 5], [8, 30]],
            [(0.0, 5.0), (8.0, 20.0)],
            ['start before the video: clamped to 0', 'end after the video: clamped to its end'],
        ),
        ([[5, 5], [1, 5]], [(1.0, 5.0)], ['start >= end: window dropped']),
        (
            [[5, 5], [9, 7]],
            None,
            ['start >= end: window dropped'] * 2 + ['no usable window: sentence dropped'],
        ),
        ([[1, 5], [20, 30]], [(1.0, 5.0)], ['moment outside its video']),
    ],
)
def test_a_sentence_has_none_one_or_several_windows(timestamp, windows, kinds):
    flaws = []
    found = parse_video('a.json', 'a', video(timestamps=[timestamp, [7.5, 9]]), flaws=flaws)
    assert [kind for _, kind, _ in flaws] == kinds
    assert all("sentence 0 ('one')" in message for *_, message in flaws)
    assert found.windows == ([[(7.5, 9.0)]] if windows is None else [windows, [(7.5, 9.0)]])


def test_whoever_needs_one_window_per_sentence_hears_which_sentence_has_not():
    for timestamp in ([], [[1, 5], [7, 9]]):
        found = parse_video('a.json', 'a', video(timestamps=[[1, 5], timestamp]))
        with pytest.raises(AnnotationError, match=r"'a', sentence 1 \('two'\) has [02] windows"):
            _ = found.moments


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.json does not exist'):
        read_annotations(tmp_path / 'absent.json')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"a": ', 'not a JSON file'),
        ('[]', 'holds no videos'),
        ('{}', 'holds no videos'),
        ({'a': [1]}, 'not an object'),
        ({'a': video(duration=None)}, 'needs either "duration"'),
        ({'a': video(fps=25, num_frames=10)}, 'needs either "duration"'),
        ({'a': video(duration=0)}, 'duration=0; it must be a number above 0'),
        ({'a': video(duration='20')}, "duration='20'"),
        ({'a': video(duration=10**400)}, 'duration=1000'),  # no float can hold it
        ({'a': video(duration=None, fps=0, num_frames=10)}, 'fps=0'),
        ({'a': video(sentences=None)}, 'needs the lists'),
        ({'a': video(sentences=['one'])}, '2 timestamps but 1 sentences'),
        ({'a': video(sentences=['one', 2])}, r'sentence 1 \(2\) is not a string'),
        ({'a': video(timestamps=[[1, 5], [1, 2, 3]])}, r"sentence 1 \('two'\) has the timestamp"),
        ({'a': video(timestamps=[[1, 5], [1, float('nan')]])}, 'expected'),
        ({'a': video(timestamps=[[1, 5], [[1, 2], 3]])}, r"sentence 1 \('two'\) has the timestamp"),
        ({'a': video(timestamps=[[1, 5], None])}, r'None; expected .* or \[\] for a sentence that'),
        ({'a': video(timestamps=[[1, 5], [[1, 2], [20, 30]]])}, r'sentence 1 .*lies outside the'),
        ({'a': video(timestamps=[[1, 5], [20, 30]])}, r"sentence 1 \('two'\).*lies outside the"),
        ({'a': video(timestamps=[[-9, 0], [1, 2]])}, r"sentence 0 \('one'\).*lies outside the"),
    ],
)
def test_bad_annotations_are_refused_by_name(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)
    if isinstance(content, dict) and content:
        assert "'a'" in str(caught.value)


@pytest.mark.parametrize('timestamps', [None, [[5, 1], [3, 3]], [[30, 40]], 'unknown'])
def test_sentences_alone_are_read_whatever_the_timestamps(tmp_path, timestamps):
    content = {'a': video(timestamps=timestamps), 'b': video(sentences=[])}
    [only] = read_annotations(write(tmp_path, content), timed=False)
    assert (only.video_id, only.duration, only.moments) == ('a', 20.0, None)
    assert (only.sentences, only.sentence_index) == (['one', 'two'], [0, 1])


@pytest.mark.parametrize('timed', [True, False])
@pytest.mark.parametrize(
    ('timestamps', 'index'),
    [([[], [1, 5]], [1]), ([[], []], []), ([[[1, 5], [7, 8]], [7.5, 9]], [0, 1])],
)
def test_sentences_that_do_not_occur_are_left_out_where_that_is_asked(timed, timestamps, index):
    entry, flaws = video(timestamps=timestamps), []
    found = parse_video('a.json', 'a', entry, timed, flaws, absent=False)
    assert found.sentence_index == index
    assert len(flaws) == 2 - len(index)
    assert all(kind == 'sentence that does not occur: left out' for _, kind, _ in flaws)
    assert parse_video('a.json', 'a', entry, timed).sentence_index == [0, 1]


def test_timestamps_of_other_sentences_leave_none_out():
    found = parse_video('a.json', 'a', video(timestamps=[[]]), timed=False, absent=False)
    assert found.sentence_index == [0, 1]


def test_a_file_without_sentences_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match='needs the list "sentences"'):
        read_annotations(write(tmp_path, {'a': video(sentences=None)}), timed=False)
