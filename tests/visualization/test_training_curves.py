"""Logs of runs, and their curves."""

import json

import pytest

from mmn_plugin.visualization.curves import TrainingLog, choose_figures, draw_training_curves


def write_log(folder, losses, score, first=1):
    (folder / 'vis_data').mkdir(parents=True)
    lines = [
        dict(loss=loss, loss_iou=loss / 2, lr=0.1, epoch=1, iter=i, step=i)
        for i, loss in enumerate(losses, first)
    ]
    lines.append({'grounding/R1@0.5': score, 'grounding/0-10s/R1@0.5': score, 'step': 1})
    path = folder / 'vis_data/scalars.json'
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return path


def test_a_resumed_run_is_one_curve_and_later_figures_count(tmp_path):
    write_log(tmp_path / 'run' / '20260101_000000', [5.0, 4.0, 3.0, 2.0], 10.0)
    write_log(tmp_path / 'run' / '20260102_000000', [2.9, 1.9], 20.0, first=3)
    log = TrainingLog(tmp_path / 'run')
    assert log.name == 'run'
    assert log.by_epoch
    assert log.curves['loss'] == {1: 5.0, 2: 4.0, 3: 2.9, 4: 1.9}
    assert log.curves['grounding/R1@0.5'] == {1: 20.0}
    assert 'iter' not in log.curves


def test_figures_after_the_checkpoint_that_a_resume_went_on_from_are_dropped(tmp_path):
    write_log(tmp_path / 'run' / '20260101_000000', [5.0, 4.0, 3.0, 2.0], 10.0)
    write_log(tmp_path / 'run' / '20260102_000000', [3.5], 20.0, first=2)
    assert TrainingLog(tmp_path / 'run').curves['loss'] == {1: 5.0, 2: 3.5}


def test_one_start_and_one_file_can_be_named(tmp_path):
    file = write_log(tmp_path / 'run' / '20260101_000000', [5.0], 10.0)
    for path in (file, file.parent, file.parent.parent):
        log = TrainingLog(path)
        assert (log.name, log.curves['loss']) == ('run', {1: 5.0})


def test_missing_damaged_and_empty_logs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='scalars'):
        TrainingLog(tmp_path)
    file = write_log(tmp_path / 'run', [5.0], 10.0)
    file.write_text(file.read_text() + '{"loss": 1.')
    with pytest.raises(ValueError, match='line 3'):
        TrainingLog(tmp_path / 'run')
    file.write_text('')
    with pytest.raises(ValueError, match='no figures'):
        TrainingLog(tmp_path / 'run')


def test_panels_are_chosen_by_pattern(tmp_path):
    write_log(tmp_path / 'run', [5.0, 4.0], 10.0)
    log = TrainingLog(tmp_path / 'run')
    assert choose_figures([log]) == ['loss', 'loss_iou', 'grounding/R1@0.5']
    assert choose_figures([log], ['lr', 'loss*']) == ['lr', 'loss', 'loss_iou']
    assert choose_figures([log], ['*/*/R1*']) == ['grounding/0-10s/R1@0.5']
    with pytest.raises(ValueError, match=r"'accuracy'.*loss_iou"):
        choose_figures([log], ['accuracy'])


def test_every_run_has_a_color_in_every_panel(tmp_path):
    logs = [
        TrainingLog(write_log(tmp_path / name, [start, start / 2], 10.0 * start))
        for name, start in (('a', 4.0), ('b', 6.0))
    ]
    image = draw_training_curves(logs, ['loss'])
    for color in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):
        assert (image == color).all(-1).sum() > 150
    assert draw_training_curves(logs, ['loss', 'lr', 'loss_iou', '*/R1@0.5']).shape > image.shape
