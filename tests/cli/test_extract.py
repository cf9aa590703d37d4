"""`mmn extract`: options, what is written, and what is refused."""

import json
import os
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from helpers.run_tool import ROOT, output_of
from helpers.tiny_extractors import write_recognizer, write_vision_model
from helpers.zygote import Zygote, _rank

from mmn_plugin.shapes.corpus import write_video


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / 'good.mp4', np.full((24, 48, 32), 90, np.uint8), fps=8)
    return tmp_path / 'good.mp4'


def test_features_are_written_and_unreadable_videos_are_named_at_the_end(video, tmp_path):
    out = tmp_path / 'new' / 'f.h5'
    output = output_of('mmn extract', video, '--out', out, '--stride', 4)
    assert '174 numbers per clip of 0.5 s' in output
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 100)
    output = output_of('mmn extract', tmp_path, '--out', out, '--stride', 4, code=1)
    assert '1 videos could not be read' in output
    assert str(tmp_path / 'bad.mp4') in output
    with h5py.File(out) as file:
        assert list(file) == ['good']
        assert file['good'].shape == (6, 174)
        assert file['good'].attrs['stride'] == 4


def write_extractor(folder, settings):
    settings = {key: value for key, value in settings.items() if key != 'device'}
    (folder / 'mine.py').write_text(f'extractor = {settings!r}\n')
    return folder / 'mine.py'


def test_a_config_names_the_extractor_and_the_file_keeps_it(video, tmp_path):
    config = write_extractor(tmp_path, write_vision_model(tmp_path / 'model'))
    line = 'mmn extract {} --config {} --out {}/f.h5 --device cpu --cfg-options'
    given = (line, video, config, tmp_path)
    output_of(*given, 'extractor.batch_size=2', '--fps', 2)
    with h5py.File(tmp_path / 'f.h5') as file:
        assert file['good'].shape == (3, 16)  # 3 s
        attributes = dict(file['good'].attrs)
    assert (attributes['fps'], attributes['stride']) == (2, 2)
    assert json.loads(attributes['extractor'])['weights'].startswith('sha256:')
    assert json.loads(attributes['config'])['batch_size'] == 2
    output = output_of(*given, 'extractor.fps=1', code=1)
    assert 'delete it or name another file' in output


def test_mixed_precision_is_kept_with_the_features(video, tmp_path):
    config = write_extractor(tmp_path, write_vision_model(tmp_path / 'model'))
    given = (video, '--config', config, '--device', 'cpu', '--out', tmp_path / 'f.h5')
    output_of('mmn extract --amp', *given)  # what it means here, rather than 'auto'
    with h5py.File(tmp_path / 'f.h5') as file:
        assert json.loads(file.attrs['extractor'])['amp'] == 'bf16'
        assert json.loads(file.attrs['config'])['amp'] == 'bf16'
    output_of('mmn extract', *given, '--amp', 'bf16')
    assert 'f.h5 holds features made with' in output_of('mmn extract', *given, code=1)
    assert 'fp16 needs a GPU' in output_of('mmn extract', *given, '--amp', 'fp16', code=1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--workers', '-1'), "argument --workers: '-1' is not a whole number"),
        (('--fps', 0), 'fps must be > 0'),
        (('--stride', 0), 'stride >= 1'),
        (('--amp',), '--amp: GridFeatureExtractor has no network'),
        (('--config', 'none.py'), 'none.py'),
        (('--config', 'clip_vit_b32', '--device', 'cuda:77'), 'the device'),
        (('--cfg-options', 'extractor.layer=fc6'), "unexpected keyword argument 'layer'"),
        (('--cfg-options', 'extractor.type=None'), 'no `extractor`'),
        (('--cfg-options', 'extractor.type=Guess'), 'there is no extractor'),
    ],
)
def test_impossible_settings_are_one_clear_message(video, tmp_path, arguments, message):
    code = 2 if message.startswith('argument') else 1
    assert message in output_of(
        'mmn extract', video, '--out', tmp_path / 'f.h5', *arguments, code=code
    )


def test_processes_of_torchrun_share_videos_under_one_bar(video, tmp_path, capfd):
    folder = tmp_path / 'videos'
    folder.mkdir()
    for name in 'abcd':
        (folder / f'{name}.mp4').write_bytes(video.read_bytes())
    (folder / 'bad.mp4').write_bytes(b'x' * 99)
    config = write_extractor(tmp_path, write_recognizer(tmp_path / 'model'))
    options = dict(
        config=config, out=tmp_path / 'f.h5', device='cpu', json=tmp_path / 'report.json'
    )
    request = dict(
        tool=str(ROOT / 'mmn.py'),
        ranks=2,
        output=os.devnull,
        environment=dict(os.environ),
        arguments=[
            'extract',
            str(folder),
            *(f'--{name}={value}' for name, value in options.items()),
        ],
    )
    port, context = Zygote.free_port(), get_context('fork')
    ranks = [context.Process(target=_rank, args=(request, rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(600)
    said = capfd.readouterr().err  # of all processes, since they are forked
    assert said.count('features: 0 of 5') == 1, said[-3000:]
    assert said.count('features: 5 of 5') == 1
    assert '1 videos could not be read' in said
    assert [process.exitcode for process in ranks] == [1, 0]  # for that one
    assert list(json.loads((tmp_path / 'report.json').read_text())['failures']) == ['bad']
    with h5py.File(tmp_path / 'f.h5') as file:
        assert sorted(file) == list('abcd')
        assert file['a'].shape == (6, 32)
