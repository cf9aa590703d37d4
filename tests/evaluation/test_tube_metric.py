"""Figures of spatio-temporal grounding, in the loop, over processes, and from a submission."""

import json
import re

import numpy as np
import pytest
from helpers.made_up_results import tube_sample_of, tube_samples
from helpers.made_up_tubes import random_tube, random_video, write_tubes
from helpers.run_tool import output_of, run_tool

from mmn_plugin.datasets import TubeError, read_hcstvg_annotations, write_tube_file
from mmn_plugin.evaluation import (
    DumpTubeSubmission,
    TubeGroundingMetric,
    read_submission,
    score_submission,
    tube_bounds,
    tube_figures,
    write_submission,
)
from mmn_plugin.evaluation.predictions import PredictionsError
from mmn_plugin.structures import MomentGrid, cell_bounds, tube_iou


def figures_of(samples):
    metric = TubeGroundingMetric()
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_figures_are_means_over_sentences_in_percent():
    samples = tube_samples()
    found = figures_of(samples)
    pairs = [
        tube_iou(answer, truth)
        for s in samples
        for answer, truth in zip(
            s['pred_instances']['tubes'], s['gt_instances']['tubes'], strict=True
        )
    ]
    assert found['tubes/num_sentences'] == len(pairs) == 10
    assert found['tubes/m_vIoU'] == pytest.approx(100 * np.mean([v for v, _ in pairs]))
    assert found['tubes/m_tIoU'] == pytest.approx(100 * np.mean([t for _, t in pairs]))
    assert found['tubes/vIoU@0.5'] == pytest.approx(100 * np.mean([v > 0.5 for v, _ in pairs]))
    assert 0 < found['tubes/vIoU@0.5'] < found['tubes/m_tIoU']


def test_an_overlap_equal_to_the_threshold_is_not_above_it():
    assert tube_figures([0.5, 0.6], [1, 1], [0.5]) == {'m_vIoU': 0.55, 'm_tIoU': 1, 'vIoU@0.5': 0.5}
    for thr in (-0.1, 1.0):
        with pytest.raises(ValueError, match='iou_thrs'):
            TubeGroundingMetric(iou_thrs=[thr])


def test_a_repeated_video_counts_once_and_no_answer_as_nothing():
    samples = tube_samples()
    reference = figures_of(samples)
    assert figures_of([*samples, samples[0]]) == reference
    samples[0]['pred_instances']['tubes'] = [np.zeros((0, 5), np.float32)]
    assert figures_of(samples)['tubes/m_vIoU'] < reference['tubes/m_vIoU']


def test_without_ground_truth_there_are_no_figures_where_that_is_allowed():
    samples = tube_samples()
    for sample in samples:
        del sample['gt_instances']
    with pytest.raises(ValueError, match="'v0' has no ground truth"):
        figures_of(samples)
    metric = TubeGroundingMetric(bounds=dict(num_clips=4, pooling_counts=[3]), require_truth=False)
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == {}
    metric.process(None, [*samples[1:], tube_samples()[0]])
    with pytest.raises(ValueError, match=r"\d of \d videos have no ground truth, such as 'v1'"):
        metric.evaluate(len(samples))


def test_oracle_and_chance_are_those_of_all_cells():
    rng = np.random.default_rng(0)
    grid = MomentGrid(8, [7])
    truth = random_tube(rng, 30, 5)
    tubes = [truth + np.float32([0, 2, 0, 2, 0]), random_tube(rng, 3), random_tube(rng, 50)]
    found = tube_bounds(grid, tubes, truth, [0.3])
    overlaps = [
        [tube_iou(tube[a:b], truth)[0] for a, b in bounds if a < b]
        for tube, bounds in zip(tubes, cell_bounds(grid, list(map(len, tubes))), strict=True)
    ]
    assert found['oracle_m_vIoU'] == pytest.approx(max(map(max, overlaps)))
    assert found['chance_m_vIoU'] == pytest.approx(np.mean([np.mean(row) for row in overlaps]))
    assert found['oracle_vIoU@0.3'] == 1
    assert set(tube_bounds(grid, [], truth, [0.3]).values()) == {0}


def answer(start=1, end=2, **boxes):
    """An answer, its boxes under their frames with an underscore before."""
    return dict(st_frame=start, ed_frame=end, bbox={frame[1:]: box for frame, box in boxes.items()})


BOX = [0, 0, 5, 5]
IMPOSSIBLE = {
    "'test_0' is not {": [
        dict(st_frame=1, ed_frame=2),
        dict(st_frame=1, bbox={}),
        [],
        answer('1', 2),
        answer(1.5, 2, _2=BOX),
        answer(True, 2, _2=BOX),
        answer(10**400, 2),
        dict(st_frame=1, ed_frame=2, bbox=[BOX, BOX]),
    ],
    "'test_0', frame '01' occurs twice, also as '1'": [answer(_1=BOX, _01=BOX)],
    "'test_0', frame '2.0' is not the number": [answer(_1=BOX, **{'_2.0': BOX})],
    "'test_0', frame '1_0' is not the number": [answer(1, 10, _1_0=BOX)],
    "'test_0', frame '16777217' is not the number": [
        answer(1, 16777217, _16777217=BOX, _16777216=BOX)
    ],
    "'test_0', frame '9' is outside 1 to 2": [answer(_9=BOX)],
    "'test_0' has the impossible frames 2 to 1": [answer(2, 1, _1=BOX)],
    "'test_0' has the impossible frames -1 to 3": [answer(-1, 3, _1=BOX)],
    "'test_0' has no box in its frames 1 to 2": [answer()],
    "'test_0', frame '2': the box [9, 0, 4, 5] ends before": [answer(_1=BOX, _2=[9, 0, 4, 5])],
    "'test_0', frame '2': the box [0, 9, 5, 4] ends before": [answer(_1=BOX, _2=[0, 9, 5, 4])],
    'is not a box of four finite numbers': [
        answer(_1=box)
        for box in (
            [0, 0, 1],
            [0, 0, 5, 5, 0.9],
            '0055',
            ['0', 0, 5, 5],
            [True, 0, 5, 5],
            [0, 0, float('nan'), 5],
            [0, 0, 5, 1e39],
            [0, 0, 5, 10**400],
        )
    ],
}


@pytest.mark.parametrize('message', IMPOSSIBLE)
def test_impossible_answers_are_refused_by_name(tmp_path, message):
    for entry in IMPOSSIBLE[message]:
        (tmp_path / 'x.json').write_text(json.dumps({'a': answer(_1=BOX), 'test_0': entry}))
        with pytest.raises(PredictionsError, match=re.escape(message)) as error:
            read_submission(tmp_path / 'x.json')
        assert "x.json: answer 'test_0'" in str(error.value)


def test_what_is_possible_is_read_as_it_stands(tmp_path):
    (tmp_path / 'x.json').write_text(
        json.dumps(
            {
                'a': answer(0, 12.0, _007=[1, 2, 1, 2], _12=[-3, 0.5, 4, 5], _3=BOX)
                | dict(score=2),
                'b#1': answer(-1, -1),
            }
        )
    )
    found = read_submission(tmp_path / 'x.json')
    np.testing.assert_array_equal(
        found['a'], np.array([[3, *BOX], [7, 1, 2, 1, 2], [12, -3, 0.5, 4, 5]], np.float32)
    )
    assert found['b#1'].shape == (0, 5)


def test_no_submission_scores_above_its_share(tmp_path):
    """Random answers, read as a file, have IoUs in [0, 1] and the figures of the arrays."""
    rng = np.random.default_rng(0)
    for i in range(50):
        truth, tube = (
            random_tube(rng, int(rng.integers(1, 20)), int(rng.integers(0, 9))) for _ in range(2)
        )
        write_submission(tmp_path / 'x.json', {'v': tube})
        figures = score_submission(read_submission(tmp_path / 'x.json'), {'v': truth})
        assert (figures['m_vIoU'], figures['m_tIoU']) == tube_iou(tube, truth), i
        assert 0 <= figures['m_vIoU'] <= figures['m_tIoU'] <= 1


def test_sentences_of_one_name_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    videos = [random_video(rng, 'a', 1, 2), random_video(rng, 'a#0', 1)]
    write_tube_file(tmp_path / 'truth.h5', videos)
    write_submission(tmp_path / 'x.json', {'a#1': videos[0].ground_truth[1]})
    code, output = run_tool('mmn', 'eval', tmp_path / 'x.json', tmp_path / 'truth.h5')
    assert (code, "two sentences are 'a#0'" in output) == (1, True), output
    metric = DumpTubeSubmission(str(tmp_path / 'y.json'))
    metric.process(None, [tube_sample_of(video, video.ground_truth) for video in videos])
    with pytest.raises(ValueError, match="two sentences are 'a#0'"):
        metric.evaluate(2)


def test_the_scorer_says_in_one_line_what_it_cannot_score(tmp_path):
    truth = write_tubes(tmp_path) / 'test.h5'
    tube, path = random_tube(np.random.default_rng(0), 4), tmp_path / 'x.json'

    def score(*options):
        code, output = run_tool('mmn', 'eval', path, truth, *options)
        assert 'Traceback' not in output
        assert code == 0 or len(output.strip().splitlines()) == 1
        return code, output

    assert score()[0] == 1
    path.write_text('{"test_0": {}}')
    assert "answer 'test_0' is not" in score()[1]
    path.write_text('[]')
    assert 'not a JSON object' in score()[1]
    write_submission(path, {'elsewhere': tube})
    assert 'is it another split' in score()[1]
    write_submission(path, {'test_0': tube})
    code, output = score()
    assert code == 0
    assert '5 true tubes, 1 answers' in output
    assert '4 without an answer count as 0: test_1, test_2, test_3, ...' in output
    assert 'every R of vIoU@R lies in [0, 1)' in score('--iou', '30')[1]
    assert score('--iou', 'nan')[0] == 1
    # before anything is scored
    output = output_of('mmn', 'eval', path, truth, '--json', path / 'below', code=2)
    assert 'x.json' in output.splitlines()[-1]


@pytest.mark.parametrize('last', ['st_frame', 'bbox'])
def test_answers_whose_frames_come_late_in_the_file_are_tubes(tmp_path, last):
    entry = dict(st_frame=1, ed_frame=1, bbox=[[0, 0, 2, 2]], English='a man')
    answer = dict(remark='x' * 5000, bbox={'1': [0, 0, 2, 2]}, st_frame=1, ed_frame=1)
    if last == 'st_frame':
        answer = dict(bbox=answer.pop('bbox')) | answer
    for name, content in (('truth', entry), ('answers', answer)):
        (tmp_path / f'{name}.json').write_text(json.dumps({'v1': content}))
    code, output = run_tool('mmn', 'eval', tmp_path / 'answers.json', tmp_path / 'truth.json')
    assert (code, '1 true tubes, 1 answers' in output) == (0, True), output


def test_a_truth_that_is_no_number_is_named(tmp_path):
    for name, value in (('st_frame', float('inf')), ('bbox', [[10**400, 1, 2, 2]])):
        entry = dict(st_frame=1, ed_frame=1, bbox=[[0, 0, 2, 2]], English='a man') | {name: value}
        (tmp_path / 'truth.json').write_text(json.dumps({'v1': entry}))
        with pytest.raises(TubeError, match="video 'v1'"):
            read_hcstvg_annotations(tmp_path / 'truth.json')
