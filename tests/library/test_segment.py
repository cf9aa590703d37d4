import numpy as np
import pytest
import torch

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.library.packing import write_segment
from mmn_plugin.library.segment import Axes, Segment, SegmentWriter

WIDTHS = {'contrastive': 40, 'iou': 200, 'tower': 9}


def moments(rows, widths=WIDTHS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    embeddings = {
        space: torch.randn(rows, width, generator=draw) * 0.8 ** torch.arange(width)
        for space, width in widths.items()
    }
    starts = torch.rand(rows, generator=draw) * 100
    spans = torch.stack((starts, starts + 5), 1)
    return embeddings, spans, torch.rand(rows, generator=draw), torch.rand(rows, generator=draw)


def stored(segment, space):
    return segment.vectors(space, slice(None)).astype(np.float64)


@pytest.mark.parametrize(('dtype', 'error'), [('float16', 2e-3), ('float32', 2e-6)])
def test_a_segment_gives_back_what_was_written(tmp_path, dtype, error):
    embeddings, spans, lengths, trust = moments(70)
    segment = write_segment(tmp_path / 'a', embeddings, spans, lengths, trust, dtype)
    assert (segment.rows, segment.spaces, segment.widths) == (70, tuple(WIDTHS), WIDTHS)
    assert np.array_equal(segment.spans, spans)
    assert np.array_equal(segment.lengths, lengths)
    assert np.array_equal(segment.trust, trust)
    for space, vectors in embeddings.items():
        back = stored(segment, space) @ segment.rotation[space]
        assert np.abs(back - vectors.numpy()).max() < error
        assert segment.vectors(space, np.array([3, 1]))[1] == pytest.approx(
            segment.vectors(space, slice(1, 2))[0], abs=0
        )


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('scale', [1e-4, 1, 300])
def test_the_rest_bounds_the_stored_coordinates_after_each_level(tmp_path, dtype, scale):
    embeddings, spans, lengths, _ = moments(500)
    embeddings = {space: vectors * scale for space, vectors in embeddings.items()}
    write_segment(tmp_path / 'a', embeddings, spans, lengths, dtype=dtype)
    segment = Segment(tmp_path / 'a')
    assert segment.levels == {'contrastive': (16,), 'iou': (16, 48, 144), 'tower': (9,)}
    for space, levels in segment.levels.items():
        assert segment.rest[space].shape == (500, len(levels))
        for column, level in enumerate(levels):
            exact = np.linalg.norm(stored(segment, space)[:, level:].astype(np.longdouble), axis=1)
            rest = segment.rest[space][:, column]
            assert (rest >= exact).all()
            assert np.allclose(rest, exact, rtol=1e-6)


def test_first_and_others_are_the_rounded_coordinates(tmp_path):
    embeddings, spans, lengths, _ = moments(50)
    write_segment(tmp_path / 'a', embeddings, spans, lengths)
    segment = Segment(tmp_path / 'a')
    for space, width in WIDTHS.items():
        first, others = segment.first[space], segment.others[space]
        assert first.dtype == np.float32
        assert all(part.dtype == np.float16 for part in others)
        ends = np.cumsum([first.shape[1], *(part.shape[1] for part in others)])
        assert ends.tolist() == [*segment.levels[space], width][: len(ends)]
        assert ends[-1] == width
        assert np.array_equal(first, first.astype(np.float16))


def test_the_rotation_puts_the_largest_coordinates_first_and_the_spectrum_tells(tmp_path):
    embeddings, spans, lengths, _ = moments(3000)
    segment = write_segment(tmp_path / 'a', embeddings, spans, lengths, dtype='float32')
    energy = (stored(segment, 'iou') ** 2).mean(0)
    assert (np.diff(energy[:40]) < 0).all()
    shares = [energy[:level].sum() / energy.sum() for level in (16, 48, 144)]
    assert np.allclose(segment.spectrum['iou'], shares, atol=1e-6)
    assert segment.spectrum['tower'] == (1,)


@pytest.mark.parametrize(
    ('decay', 'levels'), [(0.9, (16, 48, 144)), (0.985, (64, 192)), (1, (16, 48, 144))]
)
def test_the_first_level_holds_three_quarters_of_the_norms_if_one_does(tmp_path, decay, levels):
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(2000, 200, generator=draw) * decay ** torch.arange(200)
    columns = torch.zeros(2000, 2), torch.ones(2000)
    write_segment(tmp_path / 'a', dict(iou=vectors), *columns, dtype='float32')
    segment = Segment(tmp_path / 'a')
    assert segment.levels == dict(iou=levels)
    assert (segment.spectrum['iou'][0] >= 0.75) == (decay < 1)
    write_segment(
        tmp_path / 'b', dict(iou=vectors[:20]), *(c[:20] for c in columns), axes=segment.axes
    )
    assert Segment(tmp_path / 'b').levels == segment.levels


def test_a_given_rotation_is_kept(tmp_path):
    embeddings, spans, lengths, _ = moments(300)
    write_segment(tmp_path / 'a', embeddings, spans, lengths)
    first = Segment(tmp_path / 'a')
    other = moments(20, seed=1)
    write_segment(tmp_path / 'b', *other, axes=first.axes)
    second = Segment(tmp_path / 'b')
    assert first.own_rotation
    assert not second.own_rotation
    assert all(np.array_equal(first.rotation[s], second.rotation[s]) for s in WIDTHS)
    back = stored(second, 'iou') @ second.rotation['iou']
    assert np.abs(back - other[0]['iou'].numpy()).max() < 2e-3


def test_moments_are_copied_exactly_with_the_same_rotation_and_turned_with_another(tmp_path):
    write_segment(tmp_path / 'a', *moments(300))
    write_segment(tmp_path / 'b', *moments(200, seed=1))
    segments = Segment(tmp_path / 'a'), Segment(tmp_path / 'b')
    rows = np.arange(0, 200, 3)
    with SegmentWriter(tmp_path / 'c', 2 * len(rows), segments[0].axes, trust=True) as writer:
        for segment in segments:
            writer.copy(segment, rows)
        writer.close()
    merged, half = Segment(tmp_path / 'c'), len(rows)
    for space in WIDTHS:
        assert np.array_equal(stored(merged, space)[:half], stored(segments[0], space)[rows])
        back = [stored(s, space) @ s.rotation[space] for s in (merged, segments[1])]
        assert np.abs(back[0][half:] - back[1][rows]).max() < 3e-3
    assert np.array_equal(merged.spans[half:], segments[1].spans[rows])
    assert np.array_equal(merged.trust[:half], segments[0].trust[rows])
    assert merged.verify() == []


def test_moments_written_in_parts_are_the_same_file(tmp_path):
    embeddings, spans, lengths, trust = moments(90)
    write_segment(tmp_path / 'a', embeddings, spans, lengths, trust)
    axes = Segment(tmp_path / 'a').axes
    with SegmentWriter(tmp_path / 'b', 90, axes, trust=True) as writer:
        for part in (slice(0, 1), slice(1, 60), slice(60, 90)):
            vectors = {space: values[part].numpy() for space, values in embeddings.items()}
            writer.append(vectors, *(x[part].numpy() for x in (spans, lengths, trust)))
        writer.close()
    whole, parts = Segment(tmp_path / 'a'), Segment(tmp_path / 'b')
    for space in WIDTHS:  # a product of fewer rows may differ in the last bit before rounding
        assert np.abs(stored(whole, space) - stored(parts, space)).max() < 1e-3
    assert np.array_equal(whole.trust, parts.trust)
    assert parts.verify() == []


def test_a_segment_of_no_moments_can_be_read(tmp_path):
    write_segment(tmp_path / 'a', *moments(0))
    segment = Segment(tmp_path / 'a')
    assert segment.rows == 0
    assert segment.rest['iou'].shape == (0, 3)
    assert segment.verify() == []


def test_the_arrays_cannot_be_written_to(tmp_path):
    write_segment(tmp_path / 'a', *moments(5))
    segment = Segment(tmp_path / 'a')
    for values in (
        segment.spans,
        segment.first['iou'],
        segment.rest['iou'],
        *segment.others['iou'],
    ):
        with pytest.raises(ValueError, match='read-only'):
            values[0] = 1


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('where', ['iou', 'spans', 'lengths', 'trust'])
def test_numbers_that_are_not_finite_are_refused(tmp_path, where, value):
    embeddings, *columns = moments(9)
    fields = dict(zip(('spans', 'lengths', 'trust'), columns, strict=True), **embeddings)
    fields[where][4] = value
    with pytest.raises(InputError, match=rf'{where} hold NaN or Inf, first in moment 4'):
        write_segment(tmp_path / 'a', embeddings, *columns)
    assert not (tmp_path / 'a').exists()


def test_vectors_beyond_float16_are_refused_and_float32_takes_them(tmp_path):
    embeddings, *columns = moments(9)
    embeddings['iou'][7] = 6e3  # no coordinate, but the norm
    with pytest.raises(InputError, match=r'moment 7 has a vector of length 8.49e\+04 in iou'):
        write_segment(tmp_path / 'a', embeddings, *columns)
    write_segment(tmp_path / 'a', embeddings, *columns, dtype='float32')
    assert Segment(tmp_path / 'a').first['iou'].max() > 8e4


def test_shapes_that_disagree_are_refused(tmp_path):
    embeddings, spans, lengths, trust = moments(9)
    for columns in ((spans, lengths[:8], trust), (spans[:, 0], lengths, trust)):
        with pytest.raises(InputError, match='does not fit 9 moments'):
            write_segment(tmp_path / 'a', embeddings, *columns)
    with pytest.raises(InputError, match=r'iou are \(9,\)'):
        write_segment(tmp_path / 'a', dict(iou=lengths), spans, lengths)
    with pytest.raises(InputError, match="not as 'int8'"):
        write_segment(tmp_path / 'a', embeddings, spans, lengths, dtype='int8')


def test_verify_names_the_block_of_any_flipped_byte(tmp_path):
    path = tmp_path / 'a'
    write_segment(path, *moments(40))
    good, blocks = path.read_bytes(), Segment(path)._blocks
    ends = [*(block['offset'] for block in blocks.values()), len(good)][1:]
    for block, end in zip(blocks.values(), ends, strict=True):
        for place in {block['offset'], end - 1} if block['offset'] < end else ():
            path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
            assert Segment(path).verify() == [
                f'{path}: the block {block["name"]!r} is damaged (its checksum differs)'
            ]
    header = min(block['offset'] for block in blocks.values())
    for place in range(0, header, 37):  # the first bytes say what it is and how long the header is
        path.write_bytes(good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :])
        with pytest.raises(InputError, match=r'header is damaged|no file of moments'):
            Segment(path)


def test_a_truncated_or_missing_segment_is_one_clear_error(tmp_path):
    path = tmp_path / 'a'
    write_segment(path, *moments(40))
    good = path.read_bytes()
    for size, message in [
        (len(good) - 1, 'is truncated: it has'),
        (len(good) // 2, 'is truncated: it has'),
        (300, 'header is damaged'),
        (9, 'header is damaged'),
        (0, 'is no file of moments'),
    ]:
        path.write_bytes(good[:size])
        with pytest.raises(InputError, match=message):
            Segment(path)
    path.unlink()
    with pytest.raises(MissingFileError, match='is gone'):
        Segment(path)


@pytest.mark.parametrize(
    ('version', 'todo'), [(1, 'make the library anew'), (3, 'update mmn_plugin')]
)
def test_a_segment_of_another_format_is_refused(tmp_path, monkeypatch, version, todo):
    monkeypatch.setattr('mmn_plugin.library.segment._VERSION', version)
    write_segment(tmp_path / 'a', *moments(3))
    monkeypatch.undo()
    with pytest.raises(InputError, match=rf'has format {version}, and .* reads 2: {todo}'):
        Segment(tmp_path / 'a')


def test_fewer_moments_than_announced_are_an_error(tmp_path):
    embeddings, *columns = moments(9)
    axes = {space: Axes(np.eye(width)) for space, width in WIDTHS.items()}
    vectors = {space: values.numpy() for space, values in embeddings.items()}
    with SegmentWriter(tmp_path / 'a', 10, axes) as writer:
        writer.append(vectors, *(column.numpy() for column in columns))
        with pytest.raises(ValueError, match='9 of 10'):
            writer.close()
