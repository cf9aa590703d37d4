import json

import numpy as np
import pytest

from mmn_plugin.structures.annotations import AnnotationError, parse_video, read_annotations

SIZES = {
    'tacos/train': (75, 9790),
    'tacos/val': (27, 4436),
    'tacos/test': (25, 4001),
    'charades_sta/train': (5336, 12404),
    'charades_sta/test': (1334, 3720),
    'activitynet/train': (10009, 37417),
    'activitynet/val': (4917, 17505),
    'activitynet/test': (4885, 17031),
}


def write(folder, content):
    path = folder / 'ann.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def video(**changes):
    entry = {'duration': 20.0, 'timestamps': [[1, 5], [7.5, 9]], 'sentences': ['one', 'two']}
    return {key: value for key, value in (entry | changes).items() if value is not None}


@pytest.mark.parametrize('name', SIZES)
def test_real_annotations_have_the_published_sizes(shared, name):
    videos = read_annotations(shared / 'data' / 'annotations' / f'{name}.json')
    assert (len(videos), sum(len(v.sentences) for v in videos)) == SIZES[name]
    assert all(0 <= s < e <= v.duration for v in videos for s, e in v.moments)


def test_real_sentences_are_all_read_where_times_are_not(shared):
    path = shared / 'data' / 'annotations' / 'activitynet' / 'train.json'
    kept = sum(len(v.sentences) for v in read_annotations(path, timed=False))
    assert kept == SIZES['activitynet/train'][1] + 4  # those whose end is before their start


@pytest.mark.parametrize('name', ['tacos_pool', 'charades_pool', 'activitynet_pool'])
def test_moments_and_durations_equal_the_published_codes_bit_for_bit(golden, tmp_path, name):
    figures = golden(name)
    path = write(tmp_path, str(figures['annotation_json']))
    videos = {v.video_id: v for v in read_annotations(path)}
    for i, video_id in enumerate(figures['video_order']):
        assert np.array_equal(np.float32(videos[video_id].moments), figures[f'moments/{i}'])
        assert videos[video_id].duration == figures['durations'][i]


def test_frames_become_seconds(tmp_path):
    entry = {'fps': 25.0, 'num_frames': 500, 'timestamps': [[50, 100]], 'sentences': ['one']}
    [only] = read_annotations(write(tmp_path, {'a': entry}))
    assert (only.duration, only.moments) == (20.0, [(2.0, 4.0)])


def test_reversed_and_empty_moments_are_dropped_and_the_others_keep_their_index(tmp_path):
    entry = video(timestamps=[[5, 1], [3, 3], [1, 5]], sentences=['x', 'y', 'z'])
    [only] = read_annotations(write(tmp_path, {'a': entry}))
    assert (only.sentences, only.sentence_index, only.moments) == (['z'], [2], [(1.0, 5.0)])


def test_moments_are_clamped_to_the_video(tmp_path):
    [only] = read_annotations(write(tmp_path, {'a': video(timestamps=[[-3, 5], [7, 99]])}))
    assert only.moments == [(0.0, 5.0), (7.0, 20.0)]


def test_a_video_left_without_a_sentence_is_dropped(tmp_path):
    content = {'a': video(timestamps=[[5, 1], [3, 3]]), 'b': video()}
    assert [v.video_id for v in read_annotations(write(tmp_path, content))] == ['b']
    assert parse_video('ann.json', 'a', content['a']).sentences == []


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
        ({'a': video(duration=None, fps=0, num_frames=10)}, 'fps=0'),
        ({'a': video(sentences=None)}, 'needs the lists'),
        ({'a': video(sentences=['one'])}, '2 timestamps but 1 sentences'),
        ({'a': video(sentences=['one', 2])}, r'sentence 1 \(2\) is not a string'),
        ({'a': video(timestamps=[[1, 5], [1, 2, 3]])}, r"sentence 1 \('two'\) has the timestamp"),
        ({'a': video(timestamps=[[1, 5], [1, float('nan')]])}, 'expected'),
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


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'a': [1]}, 'not an object'),
        ({'a': video(duration=None)}, 'needs either "duration"'),
        ({'a': video(sentences=None)}, 'needs the list "sentences"'),
        ({'a': video(sentences=['one', 2])}, r'sentence 1 \(2\) is not a string'),
    ],
)
def test_a_file_without_usable_sentences_is_refused(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=message):
        read_annotations(write(tmp_path, content), timed=False)
