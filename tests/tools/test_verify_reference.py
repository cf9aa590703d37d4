"""The tool that compares with published figures must find agreement, and any disagreement."""
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.run_tool import run_tool


def verify(*arguments):
    return run_tool('analysis_tools/verify_reference.py', *arguments)


def tampered(source: Path, target: Path, change) -> Path:
    arrays = dict(np.load(source, allow_pickle=False))
    change(arrays)
    np.savez(target, **arrays)
    return target


@pytest.mark.parametrize('name', ['charades_pool', 'charades_conv'])
def test_every_quantity_of_a_model_agrees(shared, name):
    code, output = verify(shared / 'golden' / f'{name}.npz')
    assert code == 0, output
    assert output.count(' ok ') == 25


@pytest.mark.parametrize('dataset', ['tacos', 'charades', 'activitynet'])
def test_ranking_and_recall_agree_on_real_annotations(shared, dataset):
    code, output = verify(shared / 'golden' / f'eval_{dataset}.npz')
    assert code == 0, output
    assert output.count(' ok ') == 2


def test_a_wrong_figure_in_any_group_fails_its_row_and_the_run(shared, tmp_path):
    wrong = {
        'train/loss_sent': 1.00001, 'grad/featpool.conv.weight': 1.00001, 'pooled_feats': 1.00001,
        'train_buffers/proposal_conv.bn.2.running_mean': 1.00001, 'eval/contrastive/1': 1.0001,
        'eval/map_iou': 1.0001, 'trajectory': 1.00001}

    def change(arrays):
        for key, factor in wrong.items():
            arrays[key] = (arrays[key] * factor).astype(arrays[key].dtype)
        arrays['input_ids/0'][0, 1] += 1
        arrays['eval/top5/0'][0, :2] = arrays['eval/top5/0'][0, 1::-1].copy()

    shutil.copy(shared / 'golden' / 'vocab_small.txt', tmp_path)
    code, output = verify(
        tampered(shared / 'golden' / 'charades_pool.npz', tmp_path / 'x.npz', change))
    assert code == 1
    failed = [line.split('│')[1].split()[0] for line in output.splitlines() if 'FAILED' in line
              and '│' in line]
    assert set(failed) == {
        'train/loss_sent', 'grad', 'pooled_feats', 'train_buffers', 'eval/contrastive',
        'eval/map_iou', 'input_ids', 'eval/top5', 'trajectory/loss_vid', 'trajectory/loss_sent',
        'trajectory/loss_iou', 'trajectory/total', 'trajectory/grad_norm'}


def test_other_files_end_in_one_message(shared, tmp_path):
    shutil.copy(shared / 'golden' / 'charades_pool.npz', tmp_path / 'alone.npz')
    np.savez(tmp_path / 'other.npz', a=np.zeros(3))
    (tmp_path / 'text.npz').write_text('no archive')
    for name, message in (('alone.npz', '--vocab FILE'), ('other.npz', 'layout of a golden file'),
                          ('text.npz', 'not an .npz file'), ('absent.npz', 'does not exist')):
        code, output = verify(tmp_path / name)
        assert code == 1
        assert message in ' '.join(output.split())


def test_the_spatio_temporal_files_are_named_as_not_covered(shared):
    code, output = verify(shared / 'golden' / 'hcstvg_pool.npz')
    assert code == 1
    assert 'HC-STVG' in output
