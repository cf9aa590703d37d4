"""How experiments count and choose; their results are tests/test_readme.py's."""

import json
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_extractors import write_vision_model
from helpers.tiny_grounder import GRID_SIZE, save_checkpoint, write_grounder, write_scene
from helpers.tiny_models import sample_of
from helpers.tiny_towers import tiny_dual_model, write_dual_tower, write_text_tower
from helpers.tiny_weak import write_weak_config
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.features import EXTRACTORS
from mmn_plugin.features.text_tower import TextTower
from mmn_plugin.shapes import GridFeatureExtractor


@pytest.fixture(scope='module')
def experiments():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return lambda name: sys.modules[f'reproduction.{name}']


@pytest.fixture
def weak(experiments):
    return experiments('weak')


class InTurn:
    """A pool that has no processes."""

    map = staticmethod(map)


def test_setting_epoch_and_thresholds_are_the_best_mean_of_all_seeds(weak, monkeypatch):
    figures = {  # of two epochs and two thresholds, for each seed
        (('a=1',), 0): [[10.0, 60.0], [90.0, 20.0]],
        (('a=1',), 1): [[10.0, 60.0], [20.0, 20.0]],
        (('a=2',), 0): [[50.0, 50.0], [61.0, 50.0]],
        (('a=2',), 1): [[50.0, 50.0], [61.0, 50.0]],
        ((), 0): [[1.0, 2.0], [3.0, 4.0]],
        ((), 1): [[1.0, 2.0], [3.0, 4.0]],
    }
    monkeypatch.setattr(weak, 'validated', lambda options, seed: figures[options, seed])
    chosen = weak.choose(InTurn, {'row': (('a=1',), ('a=2',)), 'other': ((),)}, [0, 1])
    row = chosen['row']
    assert (row['options'], row['epoch'], row['R1@0.5']) == (['a=2'], 2, 61.0)
    assert row['run_thresholds'] == list(weak.THRESHOLDS[0])
    assert [[epoch['R1@0.5'] for epoch in trial['epochs']] for trial in row['tried']] == [
        [60.0, 55.0],
        [50.0, 61.0],
    ]
    assert chosen['other']['run_thresholds'] == list(weak.THRESHOLDS[1])


def test_a_weak_checkpoint_is_tested_with_each_set_of_thresholds(weak, monkeypatch, tmp_path):
    config = write_weak_config(tmp_path / 'weak.py', write_corpus(tmp_path / 'corpus'))
    save_checkpoint(config, tmp_path / 'epoch_1.pth')
    monkeypatch.setattr(weak, 'WEAK', str(config))
    monkeypatch.setattr(weak, 'run_of', lambda *_: (tmp_path, dict(train_seconds=2)))
    (epoch,) = weak.validated(('model.head.top_n=3',), 0)
    assert len(epoch) == len(weak.THRESHOLDS)
    _, head, found = weak.compared((), tmp_path / 'epoch_1.pth', 'test')
    low, high = (
        [sample.pred_instances.moments[:, 0].diff() for sample in weak.ranked(head, found, [share])]
        for share in (0.05, 0.95)
    )
    assert (torch.cat(low) > torch.cat(high)).any()
    assert (torch.cat(low) >= torch.cat(high)).all()  # lengths of the first answers
    metrics = weak.tested(dict(options=(), epoch=1, run_thresholds=[0.5]), 0)
    assert metrics['train_seconds'] == 2
    assert 0 <= metrics['R1@0.5'] <= 100


def test_a_sentence_is_timed_apart_from_its_video(experiments, tmp_path):
    made, inference = write_grounder(tmp_path), experiments('inference')
    model = GroundingInferencer(made.config, made.checkpoint, 'cpu')
    found = inference.sentence_cost(model, np.zeros((40, GRID_SIZE)), 30.0, 'a person', repeats=1)
    assert found['windows'] == 1
    assert found['moments'] == len(model.model.grid.spans(30.0))
    assert found['encode_ms'] > 0
    assert found['text_ms'] > 0
    table = inference.render_inference_cost(dict(figures=[dict(video='tiny', **found)]))
    assert table.splitlines()[-1].startswith(f'| tiny | {found["moments"]} | ')


def test_an_epochs_first_batch_is_told_apart_and_the_workers_start_does_not_count(experiments):
    waits = [[9.0, 9.0], [0.05, 0.0, 0.0, 0.0]]
    row = dict(config='tiny', videos=2, megabytes=1.0, cpu_seconds=0.03, workers=2, waits=waits)
    table = experiments('training').render_loader(dict(step_seconds=0.05, load=0, rows=[row]))
    assert '| tiny, 2 videos | 1.0 MB | 30 ms | 15 ms | 20.0% | 0.0% |' in table


def test_a_tower_is_timed_and_compared_with_transformers_own(experiments, monkeypatch):
    towers = experiments('tower_speed')

    def write(folder):
        write_dual_tower(folder, 'clip')
        return tiny_dual_model('clip')

    monkeypatch.setattr(towers, 'TOWERS', dict(tiny=('clip_vit_b32', write, 3)))
    found = towers.figures_of('tiny', repeats=1)
    assert found['rows_per_second'] > 0
    assert found['row_difference'] < 1e-6
    assert found['sentence_difference'] < 1e-6
    failed = dict(tower='large', error='Traceback\nstopped after 9 s')
    text = towers.render_towers(dict(figures=[dict(tower='tiny', **found), failed]))
    assert text.splitlines()[2].startswith('| tiny | 0 M | ')
    assert '| large | stopped after 9 s |' in text


def test_extraction_beside_a_simulated_device_is_compared_with_its_parts(experiments, tmp_path):
    extraction, video = experiments('extraction'), write_scene(tmp_path)
    frames_of = EXTRACTORS.build(write_vision_model(tmp_path / 'model'))
    found = extraction.simulated(frames_of, [video])
    assert found['batches'] == 2  # of 64 rows
    assert all(run['seconds'] >= found['device'] for run in found['speeds'].values())
    towers = dict(tower=extraction.in_turns(GridFeatureExtractor(), [video], 1))
    modes = extraction.THREADED.values()
    made_up = dict(
        decode=1.0,
        device=2.0,
        speeds={mode: dict(seconds=time) for mode, time in zip(modes, (3, 2.5, 2), strict=True)},
    )
    text = extraction.render_extraction(dict(simulated=[made_up] * 3, towers=towers))
    assert '| a thread ahead | 2.50 s | 1.25x | 0.83x |' in text
    assert '| tower | one step after the other | ' in text


def test_a_batch_in_pieces_is_timed_beside_smaller_ones_at_once(experiments, monkeypatch, tmp_path):
    pieces = experiments('pieces')
    frozen = "model['text_encoder']['frozen'] = True\n"
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus'), extra=frozen)
    monkeypatch.setattr(pieces, 'CONFIG', str(config))
    ways = {'2 at once': (2, None), '4 in pieces of 2': (4, 2), '4 at once': (4, None)}
    monkeypatch.setattr(pieces, 'WAYS', ways)
    found = pieces.seconds_per_video(repeats=1)
    assert all(seconds > 0 for (seconds,) in found.values())
    figures = zip(ways, ([0.2, 0.5], [0.3, 0.6], [0.3, 0.8]), strict=True)
    rows = [dict(name=name, seconds_per_video=times, peak_mb=5.0) for name, times in figures]
    text = pieces.render_pieces(dict(rows=rows, load=0))
    assert '| 4 in pieces of 2 | 450.0 ms | 1.35x | 0.88x | 5 MB |' in text


def test_labels_are_counted_by_text_and_with_vectors(experiments, monkeypatch, tmp_path):
    module, folder = experiments('labels'), tmp_path / 'annotations' / 'tiny'
    folder.mkdir(parents=True)
    sentences = ['a man opens the door', 'A man opens the door!', 'the dog runs again', 'red ball']
    entry = dict(duration=9.0, timestamps=[[0, 1], [3, 5], [5, 10], [0, 9]], sentences=sentences)
    (folder / 'val.json').write_text(json.dumps(dict(v=entry)))
    monkeypatch.setattr(module, 'shared_folder', lambda name: tmp_path)
    tiny = ('Tiny', 'tiny', 'TemporalGroundingDataset', module.PUBLISHED)
    monkeypatch.setattr(module, 'DATASETS', [tiny])
    tower = dict(type='TextTower', model=write_text_tower(tmp_path / 'tower'))
    monkeypatch.setattr(module, 'TOWER', tower)
    found = module.labels()
    (row,) = found['rows']
    counts = dict(sentences=4, same_meaning=2, several_moments=1, whole_video=1, past_end=1)
    assert row['text']['splits'] == dict(val=counts)
    assert 'and vectors of' in row['vectors']['compared_by']
    assert row['vectors']['splits']['val']['same_meaning'] >= 2
    row['vectors']['splits']['val']['same_meaning'] = 3
    line = '| Tiny, val | 4 | 2 (50.00%) | 3 (75.00%) | 1 (25.00%) | 1 (25.00%) | 1 (25.00%) |'
    assert line in module.render_labels(found)


def test_the_encoder_is_counted_as_committed(experiments):
    module = experiments('encoder_counts')
    result = json.loads((ROOT / 'docs' / 'results' / 'encoder_counts.json').read_text())
    config = Config.fromfile('mmn_plugin::mmn_charades.py')
    ways = result['counts']['Charades-STA']['ways']
    for way in ('dense', 'strips of 4 rows'):
        assert (
            module.count(config, *module.WAYS[way])['multiply_adds'] == ways[way]['multiply_adds']
        )
    for name in result['counts']:  # what the default height is chosen by
        found = result['counts'][name]['ways']
        least = min(found[f'strips of {rows} rows']['multiply_adds'] for rows in module.STRIP_ROWS)
        assert found['strips of 4 rows']['multiply_adds'] == least


def test_the_nearest_sentences_spans_are_ranked_by_the_tower(experiments, tmp_path, monkeypatch):
    captions = experiments('captions')
    tower = TextTower(write_text_tower(tmp_path / 'tower'), device='cpu')
    folder = tmp_path / captions.CORPUS / 'annotations'
    folder.mkdir(parents=True)
    sentences = ['the dog runs', '', 'a man opens the door']
    entry = dict(duration=9.0, timestamps=[[0, 3], [3, 5], [5, 9]], sentences=sentences)
    (folder / 'described.json').write_text(json.dumps(dict(v=entry)))
    monkeypatch.setattr(captions, 'ROOT', tmp_path)
    sample = sample_of('v', ['a man opens the door', 'the dog runs'])
    captions.nearest_sentences(tower, [sample])
    found = sample.pred_instances
    assert found.moments[:, 0].tolist() == [[5, 9], [0, 3]]
    assert found.moments[:, 1].tolist() == [[0, 3], [5, 9]]
    assert found.moments[:, 2:].isnan().all()
    torch.testing.assert_close(found.scores[:, 0], torch.ones(2))


def test_settings_of_a_library_are_the_best_mean_of_the_seeds(experiments, monkeypatch):
    library = experiments('library')
    pairs = ((8.0, 0.0), (8.0, 4.0), (32.0, 0.0))
    figures = {  # of each training, for three settings
        (library.MMN, 0): [3.0, 9.0, 4.0],
        (library.MMN, 1): [3.0, 5.0, 1.0],
        (library.MSCL, 0): [1.0, 2.0, 3.0],
        (library.ZERO_SHOT, 0): [5.0, 4.0, 3.0],
    }

    class Pool:
        def submit(self, function, config, run):
            trials = [
                dict(head={}, library=dict(score_power=power, tower_weight=weight), quality=value)
                for (power, weight), value in zip(pairs, figures[config, run], strict=True)
            ]
            return SimpleNamespace(result=lambda: trials)

    chosen = library.choose(Pool(), {job: job[1] for job in figures})
    best = {row: (*found['library'].values(), found['quality']) for row, found in chosen.items()}
    assert best == {
        library.ZERO: (8.0, 0.0, 5.0),
        library.WEAK: (32.0, 0.0, 3.0),
        library.ALONE: (8.0, 0.0, 3.0),  # without the tower's space
        library.BOTH: (8.0, 4.0, 7.0),
    }


def test_a_median_rank_beyond_the_hits_is_told_as_such(experiments):
    library = experiments('library')
    seeds = [{'MedR@0.5': rank, 'VR1': 12.0, 'moments': 5000} for rank in (3.0, 5000.0, 40.5)]
    columns = {'median rank': 'MedR@0.5', 'video R@1': 'VR1'}
    assert library.cells(seeds, columns) == ['40', '12.0 ± 0.0']
    assert library.cells(seeds[1:2], columns) == ['> 1,000', '12.0']


def test_the_threshold_of_a_library_is_the_best_mean_over_its_sizes(experiments):
    module = experiments('library_presence')
    small = np.array([0.2, 0.6, 0.8, 0.9]), np.array([0.1, 0.3, 0.5, 0.7])
    large = np.array([0.7, 0.9]), np.array([0.1, 0.1, 0.65])
    assert module.chosen([small]) == 0.6
    assert module.chosen([small, large]) == 0.7
    row = dict(auroc=90, default_answered=80, default_refused=70)
    seeds = [dict(row, unrelated_answered=99.96, unrelated_refused=spread) for spread in (1, 3)]
    per_seed = [dict(chosen=0.7, sizes={20: seed}) for seed in seeds]
    text = module.render_library_presence(
        dict(per_seed=per_seed, settings=dict(presence_threshold=0.7))
    )
    assert '| answered at 0.7, of what occurs, % | refused, of what does not, % |' in text
    assert text.splitlines()[2] == (
        '| 20 videos | 90.0 ± 0.0 | 80.0 ± 0.0 | 70.0 ± 0.0 | 100.0 ± 0.0 | 2.0 ± 1.4 |'
    )


def test_a_fault_that_a_library_does_not_stand_is_told_and_ends_with_an_error(
    experiments, monkeypatch, tmp_path
):
    module = experiments('library_faults')

    def trials(_ground, times):
        yield from [lambda: 'found 3', lambda: 'found 4', lambda: 1 / 0][:times]
        if times > 3:
            raise OSError('no trial\nat all')

    from helpers import fault_table

    some = {
        name: fault_table.Fault(trials, 1, times) for name, times in dict(a=2, b=3, c=4).items()
    }
    monkeypatch.setattr(fault_table, 'FAULTS', some)
    monkeypatch.setattr(fault_table, 'Ground', lambda place: place)
    reproduce = runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))['main']
    monkeypatch.setitem(reproduce.__globals__, 'RESULTS', tmp_path)
    monkeypatch.setitem(reproduce.__globals__, 'PAGES', [])
    monkeypatch.setattr(sys, 'argv', ['reproduce.py', 'library_faults'])
    with pytest.raises(SystemExit, match='failed: b, c'):
        reproduce()
    found = json.loads((tmp_path / 'library_faults.json').read_text())
    error = 'FAILED: ZeroDivisionError: division by zero'
    assert module.render_library_faults(found).splitlines()[2:] == [
        '| a | 2 of 2 | found 3 |',
        f'| b | 2 of 3 | {error} (1); found 3 (2) |',
        f'| c | 2 of 4 | {error} (1); FAILED: OSError: no trial (1); found 3 (2) |',
    ]
