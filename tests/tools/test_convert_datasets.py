"""The scripts that prepare TACoS, Charades-STA and ActivityNet Captions."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest
from helpers.random_features import write_random_features
from helpers.run_tool import output_of

from mmn_plugin.datasets import TemporalGroundingDataset

FEATURES = dict(
    tacos=('tall_c3d_features.hdf5', 4096, None),
    charades_sta=('vgg_rgb_features.hdf5', 4096, None),
    activitynet=('sub_activitynet_v1-3.c3d.hdf5', 500, 'c3d_features'),
)
VIDEOS = dict(tacos=[75, 27, 25], charades_sta=[5336, 1334], activitynet=[10009, 4917, 4885])


def convert(name, *arguments, code=0):
    return output_of(f'data/{name}/convert_{name}.py', *arguments, code=code)


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


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


def options_of(folder, features, out):
    paths = dict(annotations=folder, features=features, out=out)
    return [f'--{name}={path}' for name, path in paths.items()]


@pytest.mark.parametrize('name', FEATURES)
def test_published_files_are_gathered_and_verified(downloads, tmp_path, name):
    folder, features = downloads(name)
    if name == 'activitynet':  # names of the original release
        (folder / 'val.json').rename(folder / 'val_1.json')
        (folder / 'test.json').rename(folder / 'val_2.json')
    out = tmp_path / 'out' / name
    for _ in range(2 if name == 'tacos' else 1):  # it can be run again
        output = convert(name, *options_of(folder, features, out), '--quick')
        assert 'PASSED' in output
    file, size, key = FEATURES[name]
    assert (out / file).is_symlink()
    splits = ('train', 'test') if name == 'charades_sta' else ('train', 'val', 'test')
    for split, videos in zip(splits, VIDEOS[name], strict=True):
        dataset = TemporalGroundingDataset(
            ann_file=f'{split}.json',
            data_root=str(out),
            data_prefix=dict(features=file),
            feature_key=key,
        )
        assert len(dataset) == videos
        assert dataset.feature_size == size


def test_annotations_are_prepared_and_verified_without_features(downloads, tmp_path):
    folder, _ = downloads('tacos')
    out = tmp_path / 'out'
    options = [f'--annotations={folder}', f'--out={out}', '--no-features']
    assert 'is ready' in convert('tacos', *options)
    assert {path.name for path in out.iterdir()} == {'train.json', 'val.json', 'test.json'}
    (folder / 'val.json').write_text('{}')
    assert 'not the published annotations' in convert('tacos', *options, code=1)


def test_features_are_copied_over_a_link_and_then_need_not_be_given(downloads, tmp_path):
    folder, features = downloads('tacos')
    options = [*options_of(folder, features, tmp_path / 'out'), '--quick']
    convert('tacos', *options)
    (tmp_path / 'out' / features.name).unlink()
    convert('tacos', *options, '--copy')
    assert not (tmp_path / 'out' / features.name).is_symlink()
    del options[1]
    convert('tacos', *options)


def test_other_annotations_and_damaged_or_missing_features_fail(downloads, tmp_path):
    folder, features = downloads('tacos')
    output = convert('tacos', '--annotations', folder, '--out', tmp_path / 'a', code=1)
    assert 'unusable feature file' in output
    content = read(folder / 'val.json')
    content.popitem()
    (folder / 'val.json').write_text(json.dumps(content))
    with h5py.File(features, 'a') as file:
        video_id = next(iter(content))
        del file[video_id]
        file[video_id] = np.full((3, 4096), np.nan, np.float32)
    output = convert('tacos', *options_of(folder, features, tmp_path / 'out'), code=1)
    text = ' '.join(output.split())
    assert 'error │ val │ not the published annotations' in text
    assert 'val │ 26 │' in text
    assert 'NaN or Inf in features' in text


@pytest.fixture
def original_charades(downloads):
    """Charades-STA's text files and Charades' tables, made from the published JSON."""
    folder, features = downloads('charades_sta')
    for split in ('train', 'test'):
        content = read(folder / f'{split}.json')
        with open(folder / f'charades_sta_{split}.txt', 'w', encoding='utf-8') as file:
            for video_id, video in content.items():
                moments = zip(video['timestamps'], video['sentences'], strict=True)
                for (start, end), sentence in moments:
                    late = 3.0 if end == video['duration'] else 0.0  # the original does not clamp
                    file.write(f'{video_id} {start} {end + late}##{sentence}\n')
        with open(folder / f'Charades_v1_{split}.csv', 'w', newline='') as file:
            rows = [(name, 'Kitchen, upstairs', content[name]['duration']) for name in content]
            csv.writer(file).writerows([('id', 'scene', 'length'), *rows])
    return folder, features


def charades_options(folder):
    texts, tables = (
        [folder / name.format(split) for split in ('train', 'test')]
        for name in ('charades_sta_{}.txt', 'Charades_v1_{}.csv')
    )
    return ['--sta', *texts, '--durations', *tables]


def test_charades_text_becomes_the_published_json(original_charades, tmp_path):
    folder, features = original_charades
    with open(folder / 'charades_sta_train.txt', 'a') as file:
        file.write('AO8RW 5.0 5.0##a person stands there.\n\n')  # no length: left out
    with open(folder / 'Charades_v1_train.csv', 'a') as file:
        file.write('AO8RW,Kitchen,33.67\n')
    out = tmp_path / 'out'
    options = (f'--features={features}', f'--out={out}', '--quick')
    convert('charades_sta', *charades_options(folder), *options)
    for split in ('train', 'test'):
        assert read(out / f'{split}.json') == read(folder / f'{split}.json')


@pytest.mark.parametrize(
    ('line', 'table', 'message'),
    [
        ('3MSZA 24.3##no end', 'id,length\n', 'line 1:'),
        ('3MSZA 24.3 30 no separator', 'id,length\n', 'is not "<video> <start> <end>##<sentence>"'),
        ('ZZZZZ 1 2##unknown', 'id,length\n3MSZA,31\n', "video 'ZZZZZ' is in none of the files"),
        ('', 'id,subject\nA,B\n', 'Charades_v1_train.csv has no columns'),
    ],
)
def test_a_bad_line_or_table_is_named(tmp_path, line, table, message):
    for split in ('train', 'test'):
        (tmp_path / f'charades_sta_{split}.txt').write_text(line)
        (tmp_path / f'Charades_v1_{split}.csv').write_text(table)
    output = convert('charades_sta', *charades_options(tmp_path), '--out', tmp_path / 'out', code=1)
    assert message in output


def test_an_absent_source_is_one_message(tmp_path):
    for name, arguments, code, message in (
        ('charades_sta', '', 2, 'either --sta and --durations, or --annotations'),
        ('charades_sta', '--sta a.txt b.txt --durations c.csv', 2, 'a.txt does not exist'),
        ('tacos', f'--annotations {tmp_path}', 1, 'train.json does not exist'),
    ):
        out = ('--out', tmp_path / 'out')
        assert message in convert(name, *arguments.split(), *out, code=code)
