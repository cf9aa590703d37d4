"""The scripts that prepare TACoS, Charades-STA and ActivityNet Captions."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmn_plugin.datasets import TemporalGroundingDataset, write_random_features

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'data'
FEATURES = dict(
    tacos=('tall_c3d_features.hdf5', 4096, None),
    charades_sta=('vgg_rgb_features.hdf5', 4096, None),
    activitynet=('sub_activitynet_v1-3.c3d.hdf5', 500, 'c3d_features'),
)


def load(name):
    path = TOOLS / name / f'convert_{name}.py'
    spec = importlib.util.spec_from_file_location(f'convert_{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_of(folder, features, out):
    paths = dict(annotations=folder, features=features, out=out)
    return [*(f'--{name}={path}' for name, path in paths.items()), '--quick']


def read(path):
    return json.loads(Path(path).read_text(encoding='utf-8'))


@pytest.fixture
def downloads(shared, tmp_path):
    """Annotations as downloaded, and a stand-in for the features."""

    def make(name):
        source = shared / 'data' / 'annotations' / name
        file, size, key = FEATURES[name]
        ids = [video_id for path in source.glob('*.json') for video_id in read(path)]
        folder = tmp_path / 'downloads'
        shutil.copytree(source, folder)
        for path in folder.iterdir():
            path.chmod(0o644)
        write_random_features(folder / file, ids, size, 3, key)
        return folder, folder / file

    return make


@pytest.mark.parametrize('name', FEATURES)
def test_published_files_are_gathered_and_verified(downloads, tmp_path, name, capsys):
    folder, features = downloads(name)
    module, out = load(name), tmp_path / 'out' / name
    options = options_of(folder, features, out)
    for _ in range(2):  # it can be run again
        assert module.main(options) == 0
        assert 'PASSED' in capsys.readouterr().out
    file, size, key = FEATURES[name]
    assert (out / file).is_symlink()
    for split, (videos, _) in module.EXPECTED.items():
        dataset = TemporalGroundingDataset(
            ann_file=f'{split}.json',
            data_root=str(out),
            data_prefix=dict(features=file),
            feature_key=key,
        )
        assert len(dataset) == videos
        assert dataset.feature_size == size


def test_features_in_place_need_not_be_given(downloads, tmp_path):
    folder, features = downloads('tacos')
    out = tmp_path / 'out'
    out.mkdir()
    shutil.copy(features, out)
    assert load('tacos').main(['--annotations', str(folder), '--out', str(out), '--quick']) == 0


def test_features_can_be_copied_over_a_link(downloads, tmp_path):
    folder, features = downloads('tacos')
    options = options_of(folder, features, tmp_path / 'out')
    assert load('tacos').main(options) == 0
    (tmp_path / 'out' / features.name).unlink()
    assert load('tacos').main([*options, '--copy']) == 0
    assert not (tmp_path / 'out' / features.name).is_symlink()


def test_missing_features_fail(downloads, tmp_path, capsys):
    folder, _ = downloads('tacos')
    out = tmp_path / 'out'
    assert load('tacos').main(['--annotations', str(folder), '--out', str(out)]) == 1
    assert 'unusable feature file' in capsys.readouterr().out


def test_other_annotations_and_damaged_features_fail(downloads, tmp_path, capsys):
    folder, features = downloads('tacos')
    content = read(folder / 'val.json')
    content.popitem()
    (folder / 'val.json').write_text(json.dumps(content))
    with h5py.File(features, 'a') as file:
        video_id = next(iter(content))
        del file[video_id]
        file[video_id] = np.full((3, 4096), np.nan, np.float32)
    options = options_of(folder, features, tmp_path / 'out')
    assert load('tacos').main(options[:-1]) == 1
    text = ' '.join(capsys.readouterr().out.split())
    assert 'error │ val │ not the published annotations' in text
    assert 'val │ 26 │' in text
    assert 'NaN or Inf in features' in text


def test_a_path_that_does_not_exist_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit):
        load('tacos').main(['--annotations', str(tmp_path), '--out', str(tmp_path / 'out')])
    assert 'train.json does not exist' in capsys.readouterr().err


def test_activitynet_takes_the_original_names(downloads, tmp_path):
    folder, _ = downloads('activitynet')
    (folder / 'val.json').rename(folder / 'val_1.json')
    (folder / 'test.json').rename(folder / 'val_2.json')
    files = load('activitynet').annotation_files(folder)
    assert {split: path.name for split, path in files.items()} == dict(
        train='train.json', val='val_1.json', test='val_2.json'
    )


@pytest.fixture
def original_charades(downloads, tmp_path):
    """Charades-STA's text files and Charades' tables, made from the published JSON."""
    folder, features = downloads('charades_sta')
    for split in ('train', 'test'):
        content = read(folder / f'{split}.json')
        with open(folder / f'charades_sta_{split}.txt', 'w', encoding='utf-8') as file:
            for video_id, video in content.items():
                for (start, end), sentence in zip(
                    video['timestamps'], video['sentences'], strict=True
                ):
                    late = 3.0 if end == video['duration'] else 0.0  # the original does not clamp
                    file.write(f'{video_id} {start} {end + late}##{sentence}\n')
        with open(folder / f'Charades_v1_{split}.csv', 'w', newline='') as file:
            table = csv.writer(file)
            table.writerow(['id', 'subject', 'scene', 'length'])
            table.writerows(
                [video_id, 'S1', 'Kitchen, upstairs', video['duration']]
                for video_id, video in content.items()
            )
    return folder, features


def charades_options(folder, features, out):
    texts, tables = (
        [str(folder / name.format(split)) for split in ('train', 'test')]
        for name in ('charades_sta_{}.txt', 'Charades_v1_{}.csv')
    )
    more = [f'--features={features}', f'--out={out}', '--quick']
    return ['--sta', *texts, '--durations', *tables, *more]


def test_charades_text_becomes_the_published_json(original_charades, tmp_path):
    folder, features = original_charades
    with open(folder / 'charades_sta_train.txt', 'a') as file:
        file.write('AO8RW 5.0 5.0##a person stands there.\n\n')  # no length: left out
    out = tmp_path / 'out'
    content = read(folder / 'train.json')
    content.setdefault('AO8RW', None)
    if content['AO8RW'] is None:
        with open(folder / 'Charades_v1_train.csv', 'a') as file:
            file.write('AO8RW,S1,Kitchen,33.67\n')
    assert load('charades_sta').main(charades_options(folder, features, out)) == 0
    for split in ('train', 'test'):
        assert read(out / f'{split}.json') == read(folder / f'{split}.json')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('3MSZA 24.3##no end', r'line 1: .* is not "<video> <start> <end>##<sentence>"'),
        ('3MSZA 24.3 30 no separator', 'line 1'),
        ('ZZZZZ 1 2##unknown video', "video 'ZZZZZ' is in none of the files"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / 'charades_sta_test.txt'
    path.write_text(line)
    with pytest.raises(ValueError, match=message):
        load('charades_sta').convert(path, {'3MSZA': 31.0})


def test_a_table_without_lengths_is_named(tmp_path):
    (tmp_path / 'x.csv').write_text('id,subject\nA,B\n')
    with pytest.raises(ValueError, match=r'x\.csv has no columns'):
        load('charades_sta').read_durations([tmp_path / 'x.csv'])


def test_charades_needs_one_source_of_annotations(tmp_path, capsys):
    with pytest.raises(SystemExit):
        load('charades_sta').main([])
    assert 'either --sta and --durations, or --annotations' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        load('charades_sta').main(['--sta', 'a.txt', 'b.txt', '--durations', 'c.csv'])
    assert 'a.txt does not exist' in capsys.readouterr().err
