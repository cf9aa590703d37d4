"""Training that never learns when: no timestamp reaches it, and none changes a bit of it."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import write_corpus
from helpers.tiny_weak import write_weak_config
from matplotlib.image import imread
from mmaction.registry import DATASETS, MODELS
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.export import export_onnx
from mmn_plugin.visualization import canvas


def spoil(videos):
    """Times of one video deleted, of one exchanged and ending before they begin, of one absurd."""
    first, second, *others = videos.values()
    del first['timestamps']
    second['timestamps'] = second['timestamps'][::-1]
    second['timestamps'][0] = [9.0, 1.0]  # such a sentence would be dropped, were times looked at
    for entry in others:
        entry['timestamps'] = 'unknown'


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('weak') / 'corpus')


def train(corpus, folder, change=lambda videos: None):
    """Train on the corpus, its training timestamps changed; returns the last checkpoint."""
    shutil.copytree(corpus, folder / 'corpus')
    path = folder / 'corpus' / 'train.json'
    videos = json.loads(path.read_text())
    change(videos)
    path.write_text(json.dumps(videos))
    config = write_weak_config(folder / 'weak.py', folder / 'corpus')
    output_of('train.py', config, '--work-dir', folder / 'work')
    return folder / 'work' / 'epoch_2.pth'


@pytest.fixture(scope='module')
def trained(corpus, tmp_path_factory):
    return train(corpus, tmp_path_factory.mktemp('plain'))


def test_timestamps_of_the_training_file_change_no_bit_of_the_weights(corpus, trained, tmp_path):
    first, second = (
        torch.load(path, weights_only=True)['state_dict']
        for path in (trained, train(corpus, tmp_path, spoil))
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    config = Config.fromfile(trained.parents[1] / 'weak.py')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert not any('gt_instances' in sample['data_samples'] for sample in dataset)


def test_training_moves_every_stage(corpus, trained):
    config = Config.fromfile(trained.parents[1] / 'weak.py')
    torch.manual_seed(0)
    before = MODELS.build(config.model).state_dict()
    after = torch.load(trained, weights_only=True)['state_dict']
    assert before.keys() == after.keys()
    assert not [
        name
        for name in before
        if name.startswith('neck.stages') and torch.equal(before[name], after[name])
    ]


def test_a_checkpoint_is_tested_and_used_like_any_other(corpus, trained, tmp_path):
    folder = trained.parents[1]
    dump, pictures = tmp_path / 'predictions.json', tmp_path / 'pictures'
    line = 'test.py {} {} --work-dir {} --dump {} --show-dir {} --interval 4'
    output_of(line, folder / 'weak.py', trained, tmp_path, dump, pictures)
    drawn = sorted(path.name for path in pictures.glob('[!.]*'))
    assert drawn == ['test_0_timeline.png', 'test_4_timeline.png']  # and no map
    written = json.loads(dump.read_text())['videos']
    inferencer = GroundingInferencer(folder / 'weak.py', trained, 'cpu')
    video = json.loads((corpus / 'test.json').read_text())['test_0']
    with h5py.File(corpus / 'features.h5') as file:
        answers = inferencer(file['test_0'][:], video['sentences'], video['duration'])
    for answer, expected in zip(answers, written['test_0']['sentences'], strict=True):
        assert answer['moments'] == pytest.approx(np.array(expected['moments']))
        assert answer['scores'] == pytest.approx(expected['scores'])


@pytest.fixture
def draw(trained, tmp_path):
    """Runs the tool that draws score curves; exit code, output and the picture's path."""

    def run(*arguments):
        config, out = trained.parents[1] / 'weak.py', tmp_path / 'curves.png'
        code, output = run_tool(
            'analysis_tools/draw_score_curves.py', config, trained, '--out', out, *arguments
        )
        return code, output, out

    return run


def test_a_picture_of_someone_else_is_not_replaced_by_curves(draw, tmp_path):
    (tmp_path / 'curves.png').write_text('mine')
    code, output, out = draw('--cfg-options', 'test_dataloader=None')  # it is said before the work
    assert code == 1
    assert f'{out} is there and was not written by this program' in output
    assert out.read_text() == 'mine'


def test_score_curves_are_drawn_before_and_after_refinement(corpus, draw):
    code, output, out = draw('--video', 'test_1')
    assert code == 0, output
    image = (imread(out)[..., :3] * 255).round().astype(int)
    for color in canvas.RUNS[:2]:
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (image == wanted).all(-1).sum() > 50
    code, output, _ = draw('--video', 'none')
    assert code == 1
    assert "has no video 'none'" in output


def test_the_command_line_answers_and_draws_no_map(corpus, trained, tmp_path):
    line = 'mmn ground {}::test_0 {} --checkpoint {} --duration 20 --device cpu --out {}'
    given = (corpus / 'features.h5', 'the red box', trained, tmp_path)
    output_of(line, *given)
    assert sorted(path.name for path in tmp_path.glob('[!.]*')) == [
        'test_0.json',
        'test_0.vtt',
        'test_0_timeline.png',
    ]


def test_an_encoded_video_has_the_score_curves_of_a_prediction(corpus, trained):
    config = Config.fromfile(trained.parents[1] / 'weak.py')
    inferencer = GroundingInferencer(config, trained, 'cpu')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    packed = dataset[0]
    sample = packed['data_samples']
    inferencer.model.test_step(dict(inputs=[packed['inputs']], data_samples=[sample]))
    _, expected = inferencer.model.score_sample(packed['inputs'], sample)
    encoded = inferencer.video_encoder.encode_pooled(packed['inputs'], sample)
    again = inferencer.predict(encoded, sample.sentences, 5, whole=True).pred_instances
    torch.testing.assert_close(again.curves, expected)
    torch.testing.assert_close(again.moments, sample.pred_instances.moments, equal_nan=True)


def test_a_folder_of_it_gives_the_same_answers_and_an_export_is_refused(corpus, trained, tmp_path):
    inferencer = GroundingInferencer(trained.parents[1] / 'weak.py', trained, 'cpu')
    inferencer.save_pretrained(tmp_path / 'folder')
    again = GroundingInferencer.from_pretrained(tmp_path / 'folder', device='cpu')
    video = f'{corpus}/features.h5::test_0'
    assert again(video, 'the red box', 20.0) == inferencer(video, 'the red box', 20.0)
    with pytest.raises(ValueError, match='only MMN can be exported, not MSCL'):
        export_onnx(inferencer, tmp_path / 'onnx')
