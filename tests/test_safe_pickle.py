"""Pickles of foreign origin give plain data or an error, whatever is in them."""

import io
import multiprocessing
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from helpers import pickle_fuzz

from mmn_plugin.safe_pickle import RestrictedUnpickler


def read(content):
    return RestrictedUnpickler(io.BytesIO(content)).load()


def fuzz(folder, *arguments):
    """What became of pickles in a process that they may end, and of its memory."""

    def report():
        os.chdir(folder)
        sender.send(pickle_fuzz.report(*arguments))

    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=report)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(300) else pytest.fail('it takes for ever')
    except EOFError:
        process.join()
        pytest.fail(f'ended with {process.exitcode}; the output tells by which pickle')
    finally:
        process.kill()
        process.join()


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    return fuzz(tmp_path_factory.mktemp('fuzz'), 0, 1500)


def test_mutated_pickles_give_plain_data_or_an_error_in_little_memory(found):
    assert found['other'] == []
    assert found['plain'] > 60
    assert sum(found['errors'].values()) > 900
    assert 'MemoryError' not in found['errors']
    assert found['grown'] < 200e6


def test_pickles_made_to_do_harm_are_refused(found):
    harmless = {'a number of a memo entry', 'the same as text'}  # which cost nothing here
    assert set(found['attacks']) == set(pickle_fuzz.ATTACKS) - harmless
    for name in (
        'objects over bytes',
        'objects in a list',
        'a field of objects',
        'objects from a buffer',
        'a type of objects by dict',
    ):
        assert 'it asks for numpy.dtype(' in found['attacks'][name], name
    assert 'takes 8,796,093,022,208 bytes, but 64' in found['attacks']['a shape beyond its content']


def test_checkpoints_made_to_do_harm_crash_nothing(tmp_path):
    found = fuzz(tmp_path, 1, 500, True)
    assert set(found['attacks']) == set(pickle_fuzz.CALLED)
    assert set(found['errors']) == {'CheckpointRefusedError'}, 'one message, whatever was wrong'
    assert found['plain'] > 10
    assert found['grown'] < 200e6
    assert found['other'] == []  # but functions and types that PyTorch lets a file name


@pytest.mark.parametrize('protocol', range(6))
def test_arrays_keep_order_bytes_and_type(protocol):
    square = np.arange(6, dtype=np.float32).reshape(2, 3)
    arrays = [
        square,
        np.asfortranarray(square),
        square.astype('>f8'),
        np.zeros((0, 4)),
        np.array(['s', 'tt']),
        np.array([b'x']),
        np.array([True]),
        np.array(2j),
    ]
    for ours, given in zip(read(pickle.dumps(arrays, protocol)), arrays, strict=True):
        np.testing.assert_array_equal(ours, given)
        assert type(ours) is np.ndarray
        assert ours.dtype.newbyteorder('=') == given.dtype.newbyteorder('=')
        assert ours.flags.f_contiguous == given.flags.f_contiguous


@pytest.mark.parametrize('protocol', range(6))
def test_shared_containers_and_flat_keys_pass(protocol):
    boxes = [[1, 2.0, -3]] * 4
    content = {
        ('a', 1): boxes,
        'b': boxes,
        np.int64(3): OrderedDict(x=(1, None)),
        'e': 2**70,
        'f': b'',
        'g': b'abc',
    }
    found = read(pickle.dumps(content, protocol))
    assert found == content
    assert found['b'] is found['a', 1]
    assert type(found[3]) is OrderedDict


@pytest.mark.parametrize('value', [{1}, frozenset({1}), 1j, range(3)])
@pytest.mark.parametrize('protocol', [2, 4])
def test_other_classes_are_refused(protocol, value):
    with pytest.raises(pickle.UnpicklingError, match='it asks for '):
        read(pickle.dumps([value], protocol))
