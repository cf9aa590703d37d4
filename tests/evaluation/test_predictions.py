import json
from pathlib import Path

import pytest
import torch
from helpers.made_up_results import sample_of

from mmn_plugin.evaluation import (
    DumpPredictions,
    GroundingResult,
    match_predictions,
    read_predictions,
    write_predictions,
)
from mmn_plugin.evaluation.predictions import PredictionsError
from mmn_plugin.structures.annotations import VideoAnnotation, read_annotations

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'tests/data/predictions'
VIDEOS = [
    VideoAnnotation('b', 100 / 3, [(0.0, 50 / 3), (0.1, 0.7)], ['first', 'second'], [0, 3]),
    VideoAnnotation('a', 20.0, [(10.0, 14.0)], ['third'], [1]),
]


@pytest.fixture
def results():
    return [GroundingResult.from_data_sample(sample_of(video).to_dict()) for video in VIDEOS]


def sample_file():
    return json.loads((DATA / 'predictions.json').read_text())


def equal(one, other):
    return torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_a_file_gives_back_the_same_float32(tmp_path, results):
    path = tmp_path / 'new' / 'pred.json'
    results[0].moments[1, 2:], results[0].scores[1, 2:] = torch.nan, torch.nan
    write_predictions(path, results)
    found = match_predictions(read_predictions(path), VIDEOS, top_n=5)
    for one, other in zip(results, found, strict=True):
        for name in ('video_id', 'duration', 'sentence_index', 'sentences'):
            assert getattr(one, name) == getattr(other, name)
        assert list(map(torch.equal, one.windows, other.windows)) == [True] * len(one.windows)
        assert equal(one.moments, other.moments)
        assert equal(one.scores, other.scores)
    shorter, longer = (match_predictions(read_predictions(path), VIDEOS, n)[0] for n in (2, 7))
    assert shorter.moments.shape == (2, 2, 2)
    assert longer.moments[:, 5:].isnan().all()


def test_scores_may_be_left_out(tmp_path):
    content = sample_file()
    del content['videos']['garden_02']['sentences'][0]['scores']
    (tmp_path / 'pred.json').write_text(json.dumps(content))
    annotations = read_annotations(DATA / 'annotations.json')
    found = match_predictions(read_predictions(tmp_path / 'pred.json'), annotations, top_n=1)
    assert found[1].moments[0, 0].tolist() == [6.0, 14.0]
    assert found[1].scores.isnan().all()


def test_the_dump_metric_writes_the_file(tmp_path, results):
    metric = DumpPredictions(str(tmp_path / 'pred.json'))
    metric.process(None, [sample_of(video).to_dict() for video in [*VIDEOS, VIDEOS[0]]])
    assert metric.evaluate(2) == {}
    content = json.loads((tmp_path / 'pred.json').read_text())
    assert list(content['videos']) == ['a', 'b']
    assert [s['index'] for s in content['videos']['b']['sentences']] == [0, 3]
    assert [path.name for path in tmp_path.iterdir()] == ['pred.json']
    with pytest.raises(ValueError, match=r'pred\.pkl must end in \.json'):
        DumpPredictions('pred.pkl')


def test_a_failed_write_leaves_the_old_file(tmp_path, results, monkeypatch):
    path = tmp_path / 'pred.json'
    path.write_text('old')
    monkeypatch.setattr('os.replace', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        write_predictions(path, results)
    assert path.read_text() == 'old'
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_read_again_is_not_written(tmp_path, results):
    with pytest.raises(PredictionsError, match="video 'b' has sentence 0 twice"):
        write_predictions(tmp_path / 'pred.json', [results[0], results[0]])
    results[0].scores[0, 0] = torch.inf
    with pytest.raises(PredictionsError, match='NaN or infinite'):
        write_predictions(tmp_path / 'pred.json', results)
    assert not list(tmp_path.iterdir())


def put(*path):
    """A change of the sample file: ``put(key, ..., value)``; a value of None deletes the key."""
    *path, last, value = path

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value
        if value is None:
            del content[last]

    return change


FIRST = ('videos', 'kitchen_01', 'sentences', 0)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (put('format', 'something'), 'is not a file of predictions'),
        (put('version', 2), 'has version 2'),
        (put('videos', {}), 'has no "videos"'),
        (put('videos', 'kitchen_01', []), "video 'kitchen_01' needs"),
        (put('videos', 'kitchen_01', 'duration', 0), "video 'kitchen_01' has duration=0"),
        (put(*FIRST, 'text'), "video 'kitchen_01', entry 0 .* not an object"),
        (put(*FIRST, 'index', -1), "video 'kitchen_01', entry 0 .* index=-1"),
        (put(*FIRST, 'index', 2), "video 'kitchen_01' has sentence 2 twice"),
        (put(*FIRST, 'sentence', None), "video 'kitchen_01', sentence 0 needs its text"),
        (put(*FIRST, 'moments', None), 'sentence 0 needs "moments"'),
        (put(*FIRST, 'moments', 1, [10.0]), r'sentence 0 has the moment \[10.0\]'),
        (put(*FIRST, 'moments', 1, [float('nan'), 20.0]), r'sentence 0 has the moment \[nan'),
        (put(*FIRST, 'moments', 1, [20.0, 20.0]), 'which is empty or ends before'),
        (put(*FIRST, 'scores', [0.1]), 'has 3 moments and the scores'),
        (put(*FIRST, 'scores', 0, float('inf')), 'as many finite numbers'),
        (put(*FIRST, 'scores', [0.1, 0.2, 0.3]), 'sentence 0: scores rise'),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, change, message):
    content, path = sample_file(), tmp_path / 'pred.json'
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(PredictionsError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (put('videos', 'garden_02', None), "lack 1 of the 2 annotated .* first 'garden_02'"),
        (put('videos', 'kitchen_01', 'sentences', 1, None), "'kitchen_01'.* lack sentence 2"),
        (put(*FIRST, 'index', 1), "'kitchen_01'.* lack sentence 0"),
        (put(*FIRST, 'sentence', 'else'), "sentence 0 is 'else' in the predictions"),
        (put('videos', 'garden_02', 'duration', 500), "'garden_02' lasts 500 s"),
    ],
)
def test_predictions_that_do_not_fit_the_annotations_are_refused(tmp_path, change, message):
    content, path = sample_file(), tmp_path / 'pred.json'
    change(content)
    path.write_text(json.dumps(content))
    annotations = read_annotations(DATA / 'annotations.json')
    with pytest.raises(PredictionsError, match=message):
        match_predictions(read_predictions(path), annotations, top_n=5)


def test_files_that_are_absent_or_no_json_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.json'):
        read_predictions(tmp_path / 'absent.json')
    for content in (b'\x80\x04', 200000 * b'['):
        (tmp_path / 'pred.json').write_bytes(content)
        with pytest.raises(PredictionsError, match=r'pred\.json is not a JSON file'):
            read_predictions(tmp_path / 'pred.json')


def test_written_files_have_what_the_schema_asks_for(tmp_path, results):
    schema = json.loads((ROOT / 'docs/predictions.schema.json').read_text())
    write_predictions(tmp_path / 'pred.json', results)
    for content in (json.loads((tmp_path / 'pred.json').read_text()), sample_file()):
        assert content.keys() == set(schema['required'])
        for name in ('format', 'version'):
            assert content[name] == schema['properties'][name]['const']
        for video in content['videos'].values():
            assert video.keys() == set(schema['$defs']['video']['required'])
            for sentence in video['sentences']:
                known = schema['$defs']['sentence']
                others = {'clips', 'reading', 'presence'}  # which these do not have
                assert sentence.keys() == known['properties'].keys() - others
                assert sentence.keys() >= set(known['required'])
