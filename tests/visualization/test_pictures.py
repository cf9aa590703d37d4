"""What the pictures show, measured in their pixels."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_models import sample_of as tiny_sample
from matplotlib.text import Text
from mmengine.structures import InstanceData

from mmn_plugin.features.video_writing import VideoWriter
from mmn_plugin.structures import MomentGrid, true_windows
from mmn_plugin.visualization import GroundingVisualizer, canvas
from mmn_plugin.visualization import hits as hits_module
from mmn_plugin.visualization.canvas import format_time, text_width, time_ticks, wrap
from mmn_plugin.visualization.curves import draw_score_curves
from mmn_plugin.visualization.timeline import Timeline, TimelineRow

NAN, DASH = float('nan'), '\N{EN DASH}'
LONG = (
    'The person takes out a cutting board from the drawer below the counter, places it on the '
    'counter, then cuts $5 worth of carrots $in$ thin slices before washing everything.'
)


def sample_of(truth=None, moments=None, duration=24.0, sentences=('a dog runs',)):
    sample = tiny_sample('garden', sentences, duration)
    del sample.gt_instances
    if truth is not None:
        sample.gt_instances = InstanceData(moments=torch.tensor(truth))
    if moments is not None:
        moments = torch.tensor(moments)
        scores = torch.linspace(0.9, 0.1, moments.shape[1]).repeat(len(moments), 1)
        sample.pred_instances = InstanceData(moments=moments, scores=scores)
    return sample


def pixels(image, color):
    """Rows and columns of the pixels of exactly this color."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((image == wanted).all(-1))


def span(image, color):
    columns = pixels(image, color)[1]
    return columns.min(), columns.max() + 1


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.fixture(scope='module')
def visualizer():
    return GroundingVisualizer()


@pytest.mark.parametrize(
    ('kind', 'color'), [('truth', canvas.TRUTH), ('moments', canvas.PREDICTION)]
)
def test_a_bar_covers_its_part_of_the_time_axis(visualizer, kind, color):
    def bar(start, end):
        moment = [[start, end]] if kind == 'truth' else [[[start, end]]]
        return span(visualizer.draw_timeline(sample_of(**{kind: moment})), color)

    left, right = bar(0.0, 24.0)
    width = right - left
    assert width > 600
    assert bar(6.0, 12.0) == pytest.approx((left + width / 4, left + width / 2), abs=1.5)


def windows_of(windows, moments):
    sample = sample_of(moments=moments, sentences=['x'] * len(windows))
    sample.gt_instances = true_windows(windows)
    return sample


def test_all_windows_of_a_sentence_are_drawn_apart_and_one_that_does_not_occur_says_so(visualizer):
    apart = [[(2.0, 4.0), (12.0, 18.0)]]
    columns = np.unique(
        pixels(visualizer.draw_timeline(windows_of(apart, [[[2.0, 4.0]]])), canvas.TRUTH)[1]
    )
    first, second = np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1)
    assert len(second) == pytest.approx(3 * len(first), abs=2)
    shown = [[(2.0, 4.0), (3.0, 6.0), (8.0, 9.0), (4.0, 5.0)], [], [(1.0, 2.0)]]
    moments = [[[7.5, 9.0]], [[1.0, 2.0]], [[NAN, NAN]]]
    rows = TimelineRow.from_sample(windows_of(shown, moments), top_n=1)
    assert [None if row.iou() is None else row.iou().tolist() for row in rows] == [
        [pytest.approx(2 / 3)],
        None,
        [],
    ]
    timeline = Timeline(rows, 24.0, 'garden')
    timeline.draw()
    lanes = [text.get_text() for text in timeline.axes.get_yticklabels()]
    assert lanes == ['truth', '', '', 'rank 1', 'truth', 'rank 1', 'truth', '']  # 3 that touch
    texts = texts_of(timeline.figure)
    assert texts.count('does not occur') == texts.count('probably not in this video') == 1
    assert {f'3.0 {DASH} 6.0', f'8.0 {DASH} 9.0', '0.67'} <= set(texts)


def test_what_is_unknown_or_left_out_is_not_drawn(visualizer):
    known, unknown = sample_of([[1.0, 5.0]], [[[2.0, 6.0]]]), sample_of([[NAN] * 2], [[[1.0, 2.0]]])
    for sample, settings, drawn in (
        (unknown, {}, [False, True]),
        (known, dict(draw_pred=False), [True, False]),
        (known, dict(draw_gt=False), [False, True]),
    ):
        image = visualizer.draw_timeline(sample, **settings)
        colors = canvas.TRUTH, canvas.PREDICTION
        assert [len(pixels(image, color)[0]) > 0 for color in colors] == drawn


def test_each_rank_has_a_lane_of_its_own(visualizer):
    sample = sample_of(moments=[[[1.0, 5.0], [6.0, 9.0], [NAN, NAN]]])
    one, two, three = (len(visualizer.draw_timeline(sample, top_n=n)) for n in (1, 2, 3))
    assert one < two == three  # the third is padding


def test_thumbnails_follow_the_time_axis(visualizer):
    frames = np.zeros((16, 90, 160, 3), np.uint8)
    frames[:8], frames[8:] = (200, 0, 0), (0, 0, 200)
    image = visualizer.draw_timeline(sample_of([[0.0, 24.0]]), frames)
    left, right = span(image, canvas.TRUTH)
    middle = (left + right) / 2
    assert span(image, '#C80000')[1] <= middle <= span(image, '#0000C8')[0]
    assert span(image, '#C80000')[0] - left < 10
    assert right - span(image, '#0000C8')[1] < 10


def test_sentences_beyond_the_limit_are_counted(visualizer):
    sample = sample_of([[1.0, 2.0]] * 9, sentences=['a dog runs'] * 9)
    heights = [len(visualizer.draw_timeline(sample, max_sentences=n)) for n in (1, 2)]
    assert len(visualizer.draw_timeline(sample, max_sentences=9)) > heights[1] > heights[0]
    timeline = Timeline([TimelineRow('x')], 24.0, 'garden', note='8 more')
    timeline.draw()
    assert '8 more' in texts_of(timeline.figure)


@pytest.mark.parametrize('duration', [7.0, 9000.0])
def test_no_text_overlaps_another_or_leaves_the_timeline(duration):
    shares = np.array([[0, 1e-3], [0, 1], [0.99, 1], [0.4, 0.4], [0.1, 0.9]])
    scores, curve = np.full(5, 0.5), np.linspace(0, 1, 16)
    rows = [
        TimelineRow(sentence, np.array([[0.2, 0.7]]) * duration, shares * duration, scores, curve)
        for sentence in (LONG, 'x', 'pneumono' * 40)
    ]
    timeline = Timeline(rows, duration, 'a_long_name_' * 20, np.zeros((9, 90, 160, 3), np.uint8))
    timeline.draw()
    boxes = [
        text.get_window_extent()
        for text in timeline.figure.findobj(Text)
        if text.get_visible() and text.get_text()
    ]
    assert len(boxes) > 60
    assert all(box.x0 >= 0 and box.x1 <= 960 for box in boxes)
    for one, other in combinations(boxes, 2):
        # line boxes of stacked lines touch; letters do not
        assert not one.shrunk(0.96, 0.7).overlaps(other.shrunk(0.96, 0.7))


def test_wrapped_lines_fit_and_keep_the_words():
    lines = wrap(LONG, 300, 10, max_lines=9)
    assert ' '.join(lines) == LONG
    assert all(text_width(line, 10) <= 300 for line in lines)
    pieces = wrap('pneumono' * 20, 300, 10, max_lines=9)
    assert ''.join(pieces) == 'pneumono' * 20
    assert all(text_width(line, 10) <= 300 for line in pieces)
    assert wrap(LONG, 300, 10, max_lines=2)[1].endswith('…')


def test_times_and_ticks_suit_the_length_of_the_video():
    times = [(7.25, 24, '7.2'), (245.4, 600, '4:05'), (3765, 7200, '1:02:45'), (59.9, 600, '1:00')]
    for seconds, duration, text in times:
        assert format_time(seconds, duration) == text
    for duration in (0.5, 3.0, 24.0, 600.0, 7200.0, 90000.0):
        ticks = time_ticks(duration)
        assert ticks[0] == 0
        assert 2 <= len(ticks) <= 10
        assert ticks[-1] <= duration + 1e-6


@pytest.fixture
def figures(monkeypatch):
    """Figures of moment maps, whose artists can be asked."""
    made = []

    def to_array(figure):
        made.append(figure)
        return canvas.to_array(figure)

    monkeypatch.setattr('mmn_plugin.visualization.moment_map.to_array', to_array)
    return made


def test_the_map_frames_the_cell_that_is_nearest_to_the_truth(visualizer, figures):
    grid = MomentGrid(8, [7])
    values = torch.zeros(grid.num_moments)
    marked = visualizer.draw_moment_map(grid, values, [6.2, 15.1], duration=24.0)
    rows, columns = pixels(marked, canvas.TRUTH)
    in_legend = rows > 400
    # the cell (2, 4) is that of 6 to 15 s
    x, y = figures[0].axes[0].transData.transform((15.0, 6.0))
    rows, columns = rows[~in_legend], columns[~in_legend]
    assert (rows.min() + rows.max()) / 2 == pytest.approx(len(marked) - y, abs=2)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(x, abs=2)


def test_the_map_frames_a_cell_for_each_window_or_says_that_there_is_none(visualizer, figures):
    grid = MomentGrid(8, [7])
    for truth in ([[0, 3], [6, 15]], torch.zeros(0, 2), [NAN, NAN], None):
        visualizer.draw_moment_map(grid, torch.zeros(36), truth, duration=24.0)
    frames = [
        [line.get_xydata()[0].tolist() for line in figure.axes[0].lines if line.get_marker() == 's']
        for figure in figures
    ]
    assert frames == [[[3, 0], [15, 6]] * 2, [], [], []]  # a white line behind the other
    said = ['does not occur (truth)' in texts_of(figure) for figure in figures]
    assert said == [False, True, False, False]


def test_cells_that_do_not_exist_are_grey_and_large_values_dark(visualizer, figures):
    grid = MomentGrid(16, [4, 2])
    values = torch.zeros(grid.num_moments)
    low = visualizer.draw_moment_map(grid, values, duration=24.0)
    values[0] = 1.0
    high = visualizer.draw_moment_map(grid, values, duration=24.0)
    absent = len(pixels(high, canvas.ABSENT)[0])
    box = figures[-1].axes[0].bbox
    expected = 1 - grid.num_moments / 256
    assert absent / (box.width * box.height) == pytest.approx(expected, abs=0.08)  # legend
    first = len(high) - int(box.y1) + 5, int(box.x0) + 5
    assert high[first].sum() < low[first].sum()


def test_ticks_of_a_map_are_times_or_count_its_unit(visualizer, figures):
    grid = MomentGrid(8, [7])
    for unit in (None, 'boxes'):
        visualizer.draw_moment_map(grid, torch.zeros(36), duration=480.0, unit=unit)
    times, boxes = map(texts_of, figures)
    assert {'8:00', 'end of the moment (min:s)'} <= set(times)
    assert {'480', 'end of the moment (boxes)'} <= set(boxes)


def test_numbers_of_close_peaks_do_not_cover_each_other(visualizer, figures):
    grid = MomentGrid(64, [15, 8, 8])
    peaks = np.array([[10.0 + i, 14.0 + i] for i in range(5)])
    visualizer.draw_moment_map(
        grid, torch.zeros(grid.num_moments), [10.0, 14.0], peaks, duration=600.0
    )
    texts = figures[0].axes[0].texts
    assert [text.get_text() for text in texts] == list('12345')
    places = [text.get_transform().transform(text.get_position()) for text in texts]
    assert min(np.linalg.norm(a - b) for a, b in combinations(places, 2)) >= 18


def test_a_curve_is_high_where_its_score_is(visualizer):
    plain = visualizer.draw_timeline(sample_of([[0.0, 24.0]]))
    left, right = span(plain, canvas.TRUTH)
    image = visualizer.draw_timeline(
        sample_of([[0.0, 24.0]]), curves=torch.tensor([[1.0, 0, 0, 0]])
    )
    assert len(image) > len(plain)
    blue = image[..., 2].astype(int) - image[..., 0] > 100  # the line, softened at its edges
    rows, columns = np.nonzero(blue)
    high = columns[rows < rows.min() + 2]
    assert high.min() == pytest.approx(left, abs=4)
    assert high.max() == pytest.approx(left + (right - left) / 4, abs=4)


def test_curves_of_a_picture_share_one_scale(visualizer):
    timeline = Timeline(
        [TimelineRow('x', curve=np.full(4, 0.2)), TimelineRow('y', curve=np.full(4, 0.8))],
        24.0,
        'garden',
    )
    timeline.draw()
    texts = texts_of(timeline.figure)
    assert texts.count('0.80') == 2
    assert '0.20' not in texts


def test_there_is_a_curve_per_sentence_and_a_value_per_moment(visualizer):
    with pytest.raises(ValueError, match='garden need as many score curves, not 2'):
        visualizer.draw_timeline(sample_of([[0.0, 24.0]]), curves=torch.ones(2, 4))
    with pytest.raises(ValueError, match='36 moments'):
        visualizer.draw_moment_map(MomentGrid(8, [7]), torch.zeros(64), duration=24.0)
    with pytest.raises(ValueError, match='are 1 for 2 sentences'):
        draw_score_curves(sample_of(sentences='ab'), dict(one=torch.rand(1, 8)))


def test_score_curves_have_a_panel_per_sentence_a_color_per_curve_and_truth_behind():
    curves = dict(before=torch.zeros(1, 8), after=torch.ones(1, 8))
    image = draw_score_curves(sample_of([[12.0, 24.0]]), curves)
    assert image.shape[1:] == (720, 3)
    assert (pixels(image, canvas.fade(canvas.TRUTH, 0.6))[1] > 360).mean() > 0.8
    for color in canvas.RUNS[:2]:
        assert len(pixels(image, color)[0]) > 200
    shaded = pixels(
        draw_score_curves(
            windows_of([[], [(0.0, 3.0), (12.0, 24.0)]], [[[1.0, 2.0]]] * 2),
            dict(one=torch.ones(2, 8)),
        ),
        canvas.fade(canvas.TRUTH, 0.6),
    )
    in_panels = shaded[0] > 40  # below the legend
    assert (shaded[1][in_panels] > 360).mean() == pytest.approx(0.8, abs=0.02)
    two = draw_score_curves(sample_of(sentences=('x', 'it $sleeps$')), dict(one=torch.rand(2, 16)))
    assert len(two) > len(draw_score_curves(sample_of(), dict(one=torch.rand(1, 1))))


def hit(start, end, path='', presence=0.5):
    fields = dict(start=start, end=end, path=str(path), duration=8.0, score=0.5)
    return SimpleNamespace(video_id='garden', presence=presence, **fields)


def test_the_bar_of_a_hit_covers_its_part_of_the_video(visualizer):
    def bar(*moment):
        image = visualizer.draw_hits(['a dog runs'], [[hit(*moment)]])
        return span(image, canvas.PREDICTION)

    left, right = bar(0.0, 8.0)
    width = right - left
    assert width > 600
    assert bar(2.0, 4.0) == pytest.approx((left + width / 4, left + width / 2), abs=1.5)


def test_the_film_strip_of_a_hit_shows_its_moment_alone(visualizer, tmp_path):
    with VideoWriter(tmp_path / 'v.mp4', 4) as writer:
        for color in ((250, 0, 0), (0, 250, 0)):
            for _ in range(16):
                writer.add(np.full((64, 96, 3), color, np.uint8))

    def shown(*moment):
        image = visualizer.draw_hits(['a dog'], [[hit(*moment, tmp_path / 'v.mp4')]]).astype(int)
        light = [image[..., channel] - image.min(-1) > 150 for channel in (0, 1)]
        return [int(np.count_nonzero(part) / 72 / 108 + 0.5) for part in light]  # pictures

    assert shown(0.0, 3.5) == [6, 0]
    assert shown(4.5, 8.0) == [0, 6]
    assert shown(0.0, 8.0) == [3, 3]


def test_hits_follow_their_sentences_with_a_note(visualizer, monkeypatch):
    said = []
    draw = hits_module.to_array
    monkeypatch.setattr(hits_module, 'to_array', lambda f: said.extend(texts_of(f)) or draw(f))
    answers = [[hit(1.0, 2.0), hit(3.0, 4.0, presence=None)], []]
    image = visualizer.draw_hits(['a dog runs', 'it sleeps'], answers, ['nowhere', ''])
    assert [text for text in said if text] == [
        *('“a dog runs”', 'nowhere', '1 garden', f'1.0 {DASH} 2.0 of 8.0 s', 'score 0.500'),
        *('presence 0.500', '2 garden', f'3.0 {DASH} 4.0 of 8.0 s', 'score 0.500'),
        *('“it sleeps”', 'no moments'),
    ]
    assert image.shape[0] > visualizer.draw_hits(['a dog runs'], answers[:1]).shape[0]
