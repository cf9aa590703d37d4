"""tools/deployment/export_onnx.py: both sides in onnxruntime, and a sentence grounded with them."""

import json
import sys

import numpy as np
import pytest
from helpers.run_tool import run_tool
from helpers.tiny_grounder import GRID_SIZE, write_grounder

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.export import check_onnx, export_onnx
from mmn_plugin.datasets import PoolClipFeatures


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    return write_grounder(tmp_path_factory.mktemp('onnx'))


def export(grounder, out):
    line = 'deployment/export_onnx.py {} --config {} --out {}'
    return run_tool(line, grounder.checkpoint, grounder.config, out)


@pytest.fixture(scope='module')
def exported(grounder):
    """Folder with the files, and what the tool printed."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package, reason='the extra [onnx] is not installed')
    out = grounder.folder / 'exported'
    code, output = export(grounder, out)
    assert code == 0, output
    return out, output


def test_both_sides_agree_with_pytorch(grounder, exported):
    folder, output = exported
    assert output.count('differs from PyTorch by') == 4
    found = check_onnx(GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu'), folder)
    assert sorted(found) == ['text/contrastive', 'text/iou', 'video/contrastive', 'video/iou']
    assert max(found.values()) < 1e-4


def test_what_is_written_is_enough_to_ground_a_sentence(grounder, exported):
    """With numpy, onnxruntime and tokenizers alone."""
    import onnxruntime
    from tokenizers import Tokenizer

    folder, _ = exported
    constants = json.loads((folder / 'model.json').read_text())
    video, text = (
        onnxruntime.InferenceSession(folder / f'{name}.onnx') for name in ('video', 'text')
    )
    features = np.random.default_rng(0).random((40, GRID_SIZE), dtype=np.float32)
    pooled = PoolClipFeatures.pool(features, constants['num_segments'])
    ids = np.array([Tokenizer.from_file(str(folder / 'tokenizer.json')).encode('red box').ids])
    moments = video.run(['contrastive', 'iou'], dict(features=pooled[None]))
    sentence = text.run(
        ['contrastive', 'iou'], dict(input_ids=ids, attention_mask=np.ones_like(ids))
    )
    contrastive, iou = (
        part[0] @ of_sentence[0] for part, of_sentence in zip(moments, sentence, strict=True)
    )
    scores = (0.5 * contrastive + 0.5) ** constants['score_power'] / (
        1 + np.exp(-constants['iou_scale'] * iou)
    )
    best = 30.0 * np.array(constants['moments'][scores.argmax()])
    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu')
    (answer,) = inferencer(features, 'red box', 30.0)
    assert answer['moments'][0] == pytest.approx(best)
    assert answer['scores'][0] == pytest.approx(scores.max(), abs=1e-5)


def test_a_difference_beyond_the_tolerance_is_an_error(grounder, exported, monkeypatch, tmp_path):
    monkeypatch.setattr('mmn_plugin.apis.export.export_onnx', lambda *_: [])
    monkeypatch.setattr('mmn_plugin.apis.export.check_onnx', lambda *_: dict(video=2e-4))
    code, output = export(grounder, tmp_path)
    assert code == 1
    assert 'differs from PyTorch by 2.0e-04, more than 0.0001' in output


def test_a_file_of_someone_else_is_not_replaced(grounder, monkeypatch, tmp_path):
    # it is said before the extra is of use
    monkeypatch.setattr(sys.modules[export_onnx.__module__], '_require', lambda *_: None)
    (tmp_path / 'tokenizer.json').write_text('mine')
    code, output = export(grounder, tmp_path)
    assert code == 1
    assert f'{tmp_path / "tokenizer.json"} is there and was not written by' in output
    assert [path.name for path in tmp_path.iterdir()] == ['tokenizer.json']


def test_without_the_extra_the_message_names_it(grounder, monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys.modules[export_onnx.__module__], 'find_spec', lambda name: name != 'onnxscript' or None
    )
    code, output = export(grounder, tmp_path)
    assert code == 1
    assert (
        'onnxscript cannot be imported: install the extra, pip install "mmn_plugin[onnx]"' in output
    )
