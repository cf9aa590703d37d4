"""The tool that compares with published figures must find agreement, and any disagreement."""

import json
import shutil
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers.away_device import AWAY, AwayDevice
from helpers.run_tool import output_of
from reference import model as reference_model
from reference.golden_file import GoldenFile, Report
from reference.model import check_model, inference_figures
from reference.ranking import check_evaluation
from reference.tubes import check_tubes


def verify(*arguments, code=0):
    return output_of('analysis_tools/verify_reference.py', *arguments, code=code)


def failed_rows(output):
    rows = [line for line in output.splitlines() if 'FAILED' in line and '│' in line]
    return {line.split('│')[1].split()[0] for line in rows}


@pytest.fixture
def tampered(shared, tmp_path):
    """A copy of a golden file with other arrays, beside its vocabulary."""
    shutil.copy(shared / 'golden' / 'vocab_small.txt', tmp_path)

    def write(name, change):
        arrays = dict(np.load(shared / 'golden' / f'{name}.npz', allow_pickle=False))
        change(arrays)
        np.savez(tmp_path / 'x.npz', **arrays)
        return tmp_path / 'x.npz'

    return write


def remove(arrays, *prefixes):
    for key in [key for key in arrays if key.startswith(prefixes)]:
        del arrays[key]


@pytest.mark.parametrize(
    ('name', 'mode', 'quantities'),
    [('charades_pool', 'dense', 26), ('charades_conv', 'sparse', 26), ('hcstvg_pool', 'dense', 16)],
)
def test_every_quantity_of_a_model_agrees(shared, name, mode, quantities):
    output = verify(shared / 'golden' / f'{name}.npz', '--conv-mode', mode)
    assert output.count(' ok ') == quantities
    assert 'skipped' not in output


def test_ranking_and_recall_agree_on_real_annotations(shared):
    names = ('tacos', 'charades', 'activitynet')
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    files = [shared / 'golden' / f'eval_{name}.npz' for name in names]
    output = verify(*files, '--device', 'cpu')
    assert output.count(' ok ') == 6
    assert not torch.backends.cudnn.allow_tf32


def test_float32_of_fewer_bits_fails(shared, tampered, monkeypatch):
    def rounded(model, features, samples):
        """Features of ten bits, as TF32 would multiply them."""
        if features.dtype == torch.float32:
            features = features.half().float()
        return inference_figures(model, features, samples)

    monkeypatch.setattr(reference_model, 'inference_figures', rounded)
    path = tampered('charades_pool', lambda arrays: arrays.pop('trajectory'))
    report = check_model(GoldenFile(path), path.with_name('vocab_small.txt'))
    assert [row.quantity for row in report.rows if not row.passed] == ['eval in float32 (25)']


def test_a_wrong_figure_in_any_group_fails_its_row_and_the_run(tampered):
    wrong = {
        'train/loss_sent': 1.00001,
        'grad/featpool.conv.weight': 1.00001,
        'pooled_feats': 1.00001,
        'train_buffers/proposal_conv.bn.2.running_mean': 1.00001,
        'eval/contrastive/1': 1.0001,
        'eval/map_iou': 1.0001,
        'trajectory': 1.00001,
    }

    def change(arrays):
        arrays['trajectory'] = arrays['trajectory'][:2]  # the whole of it takes long
        for key, factor in wrong.items():
            arrays[key] = (arrays[key] * factor).astype(arrays[key].dtype)
        arrays['input_ids/0'][0, 1] += 1
        arrays['eval/top5/0'][0, :2] = arrays['eval/top5/0'][0, 1::-1].copy()

    output = verify(tampered('charades_pool', change), code=1)
    assert ' '.join(sorted(failed_rows(output))) == (
        'eval/contrastive eval/map_iou eval/top5 grad input_ids pooled_feats train/loss_sent '
        'train_buffers trajectory/grad_norm trajectory/loss_iou trajectory/loss_sent '
        'trajectory/loss_vid trajectory/total'
    )


def test_a_wrong_figure_of_the_spatio_temporal_variant_fails_its_row(tampered):
    def change(arrays):
        arrays['pooled_feats'][0, 0, 0] += 1e-3
        arrays['stiou'][3, 5] += 1e-4
        arrays['train/single/2(vid,sent,iou)'][1] += 1e-3
        arrays['train/all_published(vid,sent,iou)'][:] += (1e-3, 9, 0)  # 9: has the fault
        arrays['train_buffers_single_1/proposal_conv.bn.0.running_var'] *= 1.001
        result = json.loads(str(arrays['evalset/result_json']))
        result['m_tIoU'] += 1e-4
        arrays['evalset/result_json'] = np.array(json.dumps(result))
        remove(arrays, 'grad_single_1/', 'eval/contrastive/0')

    output = verify(tampered('hcstvg_pool', change), code=1)
    wrong = 'pooled_feats stiou train/single/loss_sent train/all/loss_vid eval/contrastive evalset'
    assert failed_rows(output) >= {*wrong.split(), 'train_buffers_single_1'}
    assert 'train/all/loss_sent' not in output


def test_groups_that_a_file_does_not_hold_are_said_to_be_skipped(tampered, tmp_path):
    groups = ('trajectory', 'grad/', 'eval/', 'word_lens/', 'train/')
    path = tampered('charades_pool', lambda arrays: remove(arrays, *groups))
    output = verify(path, '--json', tmp_path / 'rows.json')
    rows = json.loads((tmp_path / 'rows.json').read_text())['x.npz']
    assert ' '.join(sorted(row['quantity'] for row in rows if row['skipped'])) == (
        'eval grad train/loss_iou train/loss_sent train/loss_vid train/total trajectory word_lens'
    )
    assert all(row['max_abs'] is None for row in rows if row['skipped'])
    assert output.count('skipped') == output.count('not in this file') + 1
    assert '1 files: all agree (8 quantities skipped)' in output


def test_a_file_without_anything_to_compare_does_not_pass():
    report = Report()
    report.skip('all')
    assert not report.passed
    report.compare('one', dict(a=1.0), dict(a=1.0), 0.0)
    assert report.passed


def without_setting(arrays):
    config = json.loads(str(arrays['config_json']))
    del config['tau_sent']
    arrays['config_json'] = np.array(json.dumps(config))


def narrower(arrays):
    arrays['state/featpool.conv.bias'] = np.zeros(3, np.float32)


UNUSABLE = [  # what is done to the arrays, or which is absent; message
    ('train/total', 'has no array train/total'),
    ('feat/KPNJ5', 'has no array feat/KPNJ5'),
    ('state/featpool.conv.bias', 'missing featpool.conv.bias'),
    ('eval_buffers/', 'has no array eval_buffers/…'),
    (without_setting, "config_json has no setting 'tau_sent'"),
    (narrower, 'size mismatch for backbone.conv.bias'),
]


@pytest.mark.parametrize(('change', 'message'), UNUSABLE, ids=[text for _, text in UNUSABLE])
def test_what_cannot_be_used_is_named_and_the_next_file_is_checked(
    shared, tampered, change, message
):
    def changed(arrays):
        remove(arrays, 'trajectory')  # takes long
        change(arrays) if callable(change) else remove(arrays, change)

    path = tampered('charades_pool', changed)
    output = verify(path, shared / 'golden' / 'eval_charades.npz', code=1)
    [line] = [line for line in output.splitlines() if message in line]
    assert str(path) in line
    assert output.count(' ok ') == 2  # of the second file
    assert f'FAILED: {path}' in output


def test_damaged_and_other_files_are_named_and_the_next_is_checked(shared, tmp_path):
    golden = shared / 'golden' / 'eval_charades.npz'
    content = golden.read_bytes()
    # one array's bytes are overwritten, the archive's directory is whole
    with zipfile.ZipFile(golden) as archive:
        place = archive.getinfo('contrastive/0.npy').header_offset + 200
    (tmp_path / 'bits.npz').write_bytes(content[:place] + b'\xff' * 50 + content[place + 50 :])
    (tmp_path / 'cut.npz').write_bytes(content[: len(content) // 2])
    (tmp_path / 'empty.npz').write_bytes(b'')
    np.save(tmp_path / 'single.npy', np.zeros(3))
    np.savez(tmp_path / 'other.npz', a=np.zeros(3))
    shutil.copy(shared / 'golden' / 'charades_pool.npz', tmp_path / 'alone.npz')
    messages = {
        'bits.npz': 'contrastive/0 is damaged',
        'cut.npz': 'not an .npz file',
        'empty.npz': 'not an .npz file',
        'single.npy': 'not an .npz file',
        'other.npz': 'layout of a golden file',
        'alone.npz': '--vocab FILE',
        'absent.npz': 'does not exist',
    }
    output = verify(*(tmp_path / name for name in messages), golden, code=1)
    for line, (name, message) in zip(output.splitlines(), messages.items(), strict=False):
        assert str(tmp_path / name) in line
        assert message in line
    assert output.count(' ok ') == 2


ON_DEVICE = {  # of what is computed there, zero in a stand-in
    'charades_pool': 'train/total grad train_buffers trajectory/total trajectory/grad_norm '
    'eval/map_iou eval/contrastive eval/top5',
    'hcstvg_pool': 'train/single/total grad_single_1 train_buffers_single_1 train/all/loss_vid '
    'eval/iou_score',
    'eval_charades': 'top5',
}


@pytest.mark.parametrize(
    ('name', 'check', 'vocabulary', 'shortened'),
    [
        ('charades_pool', check_model, ['vocab_small.txt'], ['trajectory']),
        ('hcstvg_pool', check_tubes, ['vocab_small.txt'], []),
        ('eval_charades', check_evaluation, [], ['durations']),
    ],
)
def test_all_is_computed_on_the_named_device_and_compared_on_the_host(
    shared, monkeypatch, name, check, vocabulary, shortened
):
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # knows no meta
    golden = GoldenFile(shared / 'golden' / f'{name}.npz')
    for key in shortened:
        golden[key] = golden[key][:2]
    with AwayDevice() as device:
        report = check(
            golden, *(golden.path.with_name(file) for file in vocabulary), device=str(AWAY)
        )
    assert device.waits
    failed = {row.quantity.split(' ')[0] for row in report.rows if not row.passed}
    assert failed >= set(ON_DEVICE[name].split())


@pytest.mark.parametrize('device', ['cuda:99', 'nonsense'])
def test_a_device_that_is_not_there_is_named(shared, device):
    output = verify(shared / 'golden' / 'eval_charades.npz', '--device', device, code=1)
    assert f"the device '{device}' cannot be used here" in output
    assert len(output.splitlines()) == 1
