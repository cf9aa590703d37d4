"""Figures of spatio-temporal grounding, in the loop, over processes, and from a submission."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.made_up_tubes import random_tube, write_tubes
from helpers.run_tool import run_tool

from mmn_plugin.datasets.tubes import TubeVideo, write_tube_file
from mmn_plugin.evaluation import TubeGroundingMetric, write_submission
from mmn_plugin.evaluation.functional import tube_bounds, tube_figures
from mmn_plugin.structures import MomentGrid, cell_bounds, tube_iou

sys.path.insert(0, str(Path(__file__).parent))
import tube_worker

WORKER = Path(tube_worker.__file__)


def figures_of(samples):
    metric = TubeGroundingMetric()
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_figures_are_means_over_sentences_in_percent():
    samples = tube_worker.samples()
    found = figures_of(samples)
    pairs = [tube_iou(answer, truth) for s in samples for answer, truth in zip(
        s['pred_instances']['tubes'], s['gt_instances']['tubes'], strict=True)]
    assert found['tubes/num_sentences'] == len(pairs) == 10
    assert found['tubes/m_vIoU'] == pytest.approx(100 * np.mean([v for v, _ in pairs]))
    assert found['tubes/m_tIoU'] == pytest.approx(100 * np.mean([t for _, t in pairs]))
    assert found['tubes/vIoU@0.5'] == pytest.approx(100 * np.mean([v > .5 for v, _ in pairs]))
    assert 0 < found['tubes/vIoU@0.5'] < found['tubes/m_tIoU']


def test_an_overlap_equal_to_the_threshold_is_not_above_it():
    assert tube_figures([0.5, 0.6], [1, 1], [0.5]) == {'m_vIoU': 0.55, 'm_tIoU': 1, 'vIoU@0.5': 0.5}


def test_a_repeated_video_counts_once_and_no_answer_as_nothing():
    samples = tube_worker.samples()
    reference = figures_of(samples)
    assert figures_of([*samples, samples[0]]) == reference
    samples[0]['pred_instances']['tubes'] = [np.zeros((0, 5), np.float32)]
    assert figures_of(samples)['tubes/m_vIoU'] < reference['tubes/m_vIoU']


def test_without_ground_truth_there_are_no_figures_where_that_is_allowed():
    samples = tube_worker.samples()
    for sample in samples:
        del sample['gt_instances']
    with pytest.raises(ValueError, match="'v0' has no ground truth"):
        figures_of(samples)
    metric = TubeGroundingMetric(bounds=dict(num_clips=4, pooling_counts=[3]), require_truth=False)
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == {}
    metric.process(None, [*samples[1:], tube_worker.samples()[0]])
    with pytest.raises(ValueError, match=r"\d of \d videos have no ground truth, such as 'v1'"):
        metric.evaluate(len(samples))


def test_oracle_and_chance_are_those_of_all_cells():
    rng = np.random.default_rng(0)
    grid = MomentGrid(8, [7])
    truth = random_tube(rng, 30, 5)
    tubes = [truth + np.float32([0, 2, 0, 2, 0]), random_tube(rng, 3), random_tube(rng, 50)]
    found = tube_bounds(grid, tubes, truth, [0.3])
    overlaps = [[tube_iou(tube[a:b], truth)[0] for a, b in bounds if a < b]
                for tube, bounds in zip(tubes, cell_bounds(grid, list(map(len, tubes))),
                                        strict=True)]
    assert found['oracle_m_vIoU'] == pytest.approx(max(map(max, overlaps)))
    assert found['chance_m_vIoU'] == pytest.approx(np.mean([np.mean(row) for row in overlaps]))
    assert found['oracle_vIoU@0.3'] == 1
    assert set(tube_bounds(grid, [], truth, [0.3]).values()) == {0}


def evaluate(zygote, folder, world_size):
    folder.mkdir()
    codes, output = zygote.run(ranks=world_size, tool=WORKER, launcher=False, cwd=folder,
                               output=folder / 'output.txt')
    assert codes == [0] * world_size, output[-6000:]
    figures = [json.loads((folder / f'figures_{rank}.json').read_text())
               for rank in range(world_size)]
    assert all(other == figures[0] for other in figures)
    return figures[0], json.loads((folder / 'answers.json').read_text())


def test_several_processes_find_the_same_and_the_scorer_too(tmp_path, zygote, monkeypatch):
    figures, answers = evaluate(zygote, tmp_path / 'two', 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'single').mkdir()
    monkeypatch.chdir(tmp_path / 'single')
    tube_worker.main(1, 0)
    assert json.loads(Path('figures_0.json').read_text()) == figures
    assert json.loads(Path('answers.json').read_text()) == answers
    assert len(answers) == figures['tubes/num_sentences'] == 10
    assert figures['tubes/oracle_m_vIoU'] > figures['tubes/chance_m_vIoU'] > 0
    assert {'v0', 'v1#0', 'v1#1'} <= answers.keys()
    write_tube_file('truth.h5', [TubeVideo(
        s['video_id'], s['sentences'], s['gt_instances']['tubes']) for s in tube_worker.samples()])
    code, output = run_tool('analysis_tools/eval_tubes.py', 'answers.json', 'truth.h5',
                            '--json', 'scores.json')
    assert code == 0, output
    for name, value in json.loads(Path('scores.json').read_text()).items():
        assert value == pytest.approx(figures[name], rel=1e-12), name


def test_submissions_that_cannot_be_scored_name_the_video(tmp_path):
    corpus = write_tubes(tmp_path)
    truth = corpus / 'test.h5'
    tube = random_tube(np.random.default_rng(0), 4)
    path = tmp_path / 'x.json'
    for content, message in (
            ({'test_0': dict(st_frame=1, ed_frame=2)}, "'test_0' is not"),
            ({'test_0': dict(st_frame=1, ed_frame=2, bbox={'9': [0, 0, 1, 1]})}, 'outside 1 to 2'),
            ({'test_0': dict(st_frame=1, ed_frame=1, bbox={'1': [0, 0, 1]})}, "'test_0' is not"),
            ([], 'not a JSON object')):
        path.write_text(json.dumps(content))
        code, output = run_tool('analysis_tools/eval_tubes.py', path, truth)
        assert code == 1
        assert message in output
    write_submission(path, {'elsewhere': tube})
    code, output = run_tool('analysis_tools/eval_tubes.py', path, truth)
    assert (code, 'is it another split' in output) == (1, True)
    write_submission(path, {'test_0': tube})
    code, output = run_tool('analysis_tools/eval_tubes.py', path, truth)
    assert code == 0
    assert '5 true tubes, 1 answers' in output
    assert run_tool('analysis_tools/eval_tubes.py', tmp_path / 'absent', truth)[0] == 1


@pytest.mark.parametrize('thr', [-0.1, 1.])
def test_thresholds_out_of_range_are_refused(thr):
    with pytest.raises(ValueError, match='iou_thrs'):
        TubeGroundingMetric(iou_thrs=[thr])
