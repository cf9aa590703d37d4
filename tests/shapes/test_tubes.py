"""Candidate tubes on Shapes: hard enough, and made of nothing but boxes and pixels."""

import json
import shutil

import h5py
import numpy as np
import pytest
from helpers.run_tool import run_tool

from mmn_plugin.datasets import TubeFile
from mmn_plugin.evaluation import tube_bounds
from mmn_plugin.features import VideoReader
from mmn_plugin.shapes import CorpusError, SceneSampler, ShapesCorpus
from mmn_plugin.shapes.features import TubeFeatureExtractor
from mmn_plugin.shapes.tubes import CandidateTubes, ShapesTracker, ShapesTubes
from mmn_plugin.structures import MomentGrid, tube_iou

SIZE, FRAMES = 96, 192


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes') / 'corpus'
    ShapesCorpus(folder, 10, seed=1, size=64).write(workers=0)
    return folder


@pytest.fixture(scope='module')
def written(corpus):
    """Train split of three videos."""
    out = corpus.parent / 'tubes'
    code, output = run_tool(
        'data/make_shapes_tubes.py {} --out {} --splits train --videos 3 --workers 0', corpus, out
    )
    assert (code, 'holds 3 train videos' in output) == (0, True), output
    return TubeFile(out / 'train.h5')


def scenes(count):
    """Objects' tubes, the index of each sentence's object, and each sentence's span."""
    sampler = SceneSampler(seed=5)
    for i in range(count):
        scene = sampler.sample(i, f'v{i}', training=True)
        objects = [item.tube(SIZE).astype(np.float32) for item in scene.objects]
        for tube in objects:
            tube[:, 3:] -= 1
        spans = [(round(e.start * scene.fps), round(e.end * scene.fps)) for e in scene.events]
        yield scene, objects, scene.event_objects(), spans


def test_candidates_are_hard_have_distractors_and_chance_is_low():
    """At least four tubes; the best possible is at most 0.9, a random answer at most 0.2."""
    rng, maker, grid = np.random.default_rng(0), CandidateTubes(SIZE, FRAMES), MomentGrid(16, [15])
    figures = []
    for scene, objects, owners, spans in scenes(40):
        looks = [(item.color, item.shape) for item in scene.objects]
        for owner in owners:  # each has a distractor that shares color or shape
            shared = [(np.array(look) == looks[owner]).sum() for look in looks]
            assert sorted(shared)[-2] == 1
        tubes = maker.make(rng, objects)
        assert len(tubes) >= 4
        for item in objects:  # those that are not meant as well
            assert max(tube_iou(tube, item)[1] for tube in tubes) > 0.3
        for owner, (first, last) in zip(owners, spans, strict=True):
            truth = objects[owner]
            truth = truth[(truth[:, 0] >= first) & (truth[:, 0] < last)]
            assert len(truth) == last - first
            figures.append(tube_bounds(grid, tubes, truth))
    mean = {name: np.mean([figure[name] for figure in figures]) for name in figures[0]}
    assert 0.6 < mean['oracle_m_vIoU'] <= 0.9
    assert mean['oracle_vIoU@0.5'] > 0.8
    assert mean['chance_m_vIoU'] <= 0.2


def test_candidates_and_features_do_not_follow_from_the_sentences(corpus, tmp_path):
    """Other sentences, all about one object, at other times: only the truth changes."""
    other = shutil.copytree(corpus, tmp_path / 'other')
    annotations = json.loads((corpus / 'annotations/train.json').read_text())
    video_id, entry = max(annotations.items(), key=lambda item: len(item[1]['sentences']))
    with h5py.File(other / 'tubes.h5', 'r+') as file:
        owners = file[video_id].attrs['event_objects']
        file[video_id].attrs['event_objects'] = np.full_like(owners, len(file[video_id]) - 1)
    changed = dict(
        entry,
        sentences=entry['sentences'][::-1],
        timestamps=[[0.0, end / 2] for _, end in entry['timestamps']],
    )
    first = ShapesTubes(corpus).video((video_id, entry))
    again = ShapesTubes(other).video((video_id, changed))
    for one, two in zip(first.ground_truth, again.ground_truth, strict=True):
        assert not np.array_equal(one, two)
    assert first.sentences != again.sentences
    for one, two in (
        (first.tubes, again.tubes),
        *((first.features[stream], again.features[stream]) for stream in first.features),
    ):
        for left, right in zip(one, two, strict=True):
            np.testing.assert_array_equal(left, right)


def test_the_order_of_the_objects_plays_no_role():
    """No candidate's place says which object it follows, and every object is treated alike."""
    _, objects, _, _ = next(scenes(1))
    exact = CandidateTubes(SIZE, FRAMES, break_share=0, drop_share=0, shift=0, scale=0, noise=0)

    def place(tubes, item):  # it is there
        same = (len(tube) == len(item) and np.allclose(tube, item, atol=1e-4) for tube in tubes)
        return list(same).index(True)

    made = [
        exact.make(np.random.default_rng(seed), order)
        for order in (objects, objects[::-1])
        for seed in range(60)
    ]
    count = max(exact.min_tubes, len(objects) + 1)
    for item in objects:
        share = np.bincount([place(tubes, item) for tubes in made], minlength=count) / len(made)
        assert len(share) == count
        assert 0.5 / count < share.min() < share.max() < 2 / count


def test_candidates_break_lose_frames_and_are_off():
    _, objects, _, _ = next(scenes(1))
    maker = CandidateTubes(SIZE, FRAMES, break_share=1.0)
    tubes = maker.make(np.random.default_rng(0), objects[:1])
    assert len(tubes) == maker.min_tubes
    overlap = [tube_iou(tube, objects[0]) for tube in tubes]
    pieces = [
        t for t, (whole, shared) in zip(tubes, overlap, strict=True) if shared and whole > 0.15
    ]
    assert len(pieces) >= 2
    assert any((np.diff(piece[:, 0]) > 1).any() for piece in pieces)
    assert all(tube_iou(piece, objects[0])[0] < 0.9 for piece in pieces)


def test_the_file_holds_truth_candidates_and_features(corpus, written):
    annotations = json.loads((corpus / 'annotations/train.json').read_text())
    for video_id in written.video_ids():
        video = written.read(video_id, list(TubeFeatureExtractor.sizes))
        assert video.sentences == annotations[video_id]['sentences']
        with h5py.File(corpus / 'tubes.h5') as file:
            owners = file[video_id].attrs['event_objects']
            for owner, truth, (start, end) in zip(
                owners, video.ground_truth, annotations[video_id]['timestamps'], strict=True
            ):
                assert truth[0, 0] == round(start * 8)
                assert truth[-1, 0] == round(end * 8) - 1
                boxes = {row[0]: row for row in file[video_id][str(owner)][()]}
                row = boxes[truth[3, 0]]
                np.testing.assert_array_equal(truth[3], row - [0, 0, 0, 1, 1])
        for stream, size in TubeFeatureExtractor.sizes.items():
            for tube, part in zip(video.tubes, video.features[stream], strict=True):
                assert part.shape == (-(-len(tube) // 4), size)


def test_features_are_of_the_pixels_inside_the_boxes():
    rng = np.random.default_rng(0)
    frames = rng.integers(40, 210, (8, 3, 64, 64), dtype=np.uint8)
    tube = np.array([[t, 20, 20, 30, 30] for t in range(8)], np.float32)
    extract = TubeFeatureExtractor()
    inside = extract(frames, [tube])
    changed = np.full_like(frames, 30)
    changed[:, :, 20:31, 20:31] = frames[:, :, 20:31, 20:31]
    for stream, (part,) in extract(changed, [tube]).items():
        np.testing.assert_array_equal(part, inside[stream][0])
    changed[:, :, 22:28, 22:28] = 30
    for stream, (part,) in extract(changed, [tube]).items():
        assert (part != inside[stream][0]).any()


def test_features_tell_directions_and_colors_apart():
    extract = TubeFeatureExtractor()

    def moving(step, u, v):
        frames = np.full((9, 3, 64, 64), 128, np.uint8)
        for t in range(9):
            frames[t, 1, 24:40, 20 + step * t : 36 + step * t] = u
            frames[t, 2, 24:40, 20 + step * t : 36 + step * t] = v
        tube = [[t, 20 + step * t, 24, 35 + step * t, 39] for t in range(9)]
        found = extract(frames, [np.array(tube, np.float32)])
        return found['appearance'][0], found['flow'][0][1]

    red, right = moving(1, 90, 240)
    blue, left = moving(-1, 240, 110)
    assert (red[0][:6].argmax(), blue[0][:6].argmax()) == (0, 4)
    assert np.sign(right[5]) == -np.sign(left[5]) != 0
    assert abs(right[5]) > 10 * abs(right[6])


def test_a_box_outside_the_picture_and_a_single_box_have_features():
    frames = np.full((3, 3, 32, 32), 90, np.uint8)
    tubes = [
        np.array([[2, -90, -50, -40, -20]], np.float32),
        np.array([[0, -5, -5, 900, 900], [2, 0, 0, 0, 0]], np.float32),
    ]
    for parts in TubeFeatureExtractor()(frames, tubes).values():
        assert all(len(part) == 1 and np.isfinite(part).all() for part in parts)


def test_the_tracker_finds_the_objects_of_a_rendered_video(corpus):
    annotations = json.loads((corpus / 'annotations/train.json').read_text())
    video_id = sorted(annotations)[0]
    with h5py.File(corpus / 'tubes.h5') as file:
        truth = [file[video_id][name][()].astype(np.float32) for name in file[video_id]]
    frames = np.stack(list(VideoReader(corpus / 'videos' / f'{video_id}.mp4', 8, 64)))
    tracker = ShapesTracker(min_area=15)
    found = tracker(frames)
    assert found
    best = [max(tube_iou(tube, true)[0] for tube in found) for true in truth]
    assert np.mean(best) > 0.5
    written = ShapesTubes(corpus, tracker=tracker).video((video_id, annotations[video_id]))
    for tube, same in zip(written.tubes, found, strict=True):
        np.testing.assert_array_equal(tube, same)


def test_a_folder_without_a_corpus_is_refused(tmp_path):
    with pytest.raises(CorpusError, match='make_shapes'):
        ShapesTubes(tmp_path)
    code, output = run_tool('data/make_shapes_tubes.py', tmp_path)
    assert (code, 'no complete Shapes corpus' in output) == (1, True)
