"""MMEngine's checkpoints load with PyTorch's protection on, and nothing else does."""

import http.server
import os
import pickle
import pickletools
import threading
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as checkpoint_module
from mmengine.runner.checkpoint import CheckpointLoader


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'a.pth')


def reloaded(path, **content):
    """Content as MMEngine loads it."""
    torch.save(content, path)
    return CheckpointLoader.load_checkpoint(path)


class Calls:
    """Pickles as a call of a function, and a state for what it gives."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def test_mmengine_checkpoints_load_with_the_protection_on_and_in_stock_torch_do_not(path):
    numbers = {code: np.arange(3).astype(code) for code in ('f4', 'f8', 'i4', 'i8', 'u4', '?')}
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    loaded = reloaded(path, history=history, best=np.float64(0.5), numbers=numbers, pair=([],))
    assert type(loaded['history']) is HistoryBuffer
    assert loaded['history'].mean() == 2.0
    assert loaded['history'].statistics('max') == 3.0
    assert loaded['best'] == 0.5
    for code, values in loaded['numbers'].items():
        np.testing.assert_array_equal(values, numbers[code])
        assert values.dtype == numbers[code].dtype
        assert type(values) is type(values + np.ones(3)) is np.ndarray
    for protocol in (2, 5):  # it is saved as numpy's own again
        names = pickletools.genops(pickle.dumps(loaded, protocol))
        assert not [arg for _, arg, _ in names if isinstance(arg, str) and 'mmn_plugin' in arg]
    torch.load(path, weights_only=True)
    kept = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
            torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(kept)


def test_shared_arrays_and_containers_stay_shared(path):
    values = np.zeros(2)
    shared = [values]
    shared.append(shared)
    loaded = reloaded(path, a=values, b=(shared, values), c=shared)
    assert type(loaded['a']) is np.ndarray
    assert loaded['a'] is loaded['b'][1] is loaded['c'][0]
    assert loaded['c'] is loaded['b'][0] is loaded['c'][1]


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (Calls(os.getcwd), 'posix.getcwd'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Calls(getattr, np.ndarray, 'tofile'), 'getattr'),
        (Calls(eval, '1'), 'eval'),
        (np.array([None, 'a']), 'numpy.dtype'),
        (np.zeros(2, [('a', 'O'), ('b', 'f4')]), 'numpy.dtype'),
    ],
)
def test_pickles_that_call_or_hold_objects_are_refused_by_name(path, content, named):
    with pytest.raises(pickle.UnpicklingError) as caught:
        reloaded(path, state_dict={}, extra=content)
    message = str(caught.value)
    assert message.startswith(f'{path} was not loaded: it holds a {named}')
    assert len(message.splitlines()) == 1


def test_a_history_cannot_replace_statistics_of_the_process(path):
    state = dict(
        HistoryBuffer([1.0, 3.0], [1, 1]).__dict__,
        statistics_methods={'mean': bytearray},
        current=bytearray,
    )
    loaded = reloaded(path, history=Calls(HistoryBuffer, state=state))['history']
    assert type(loaded) is HistoryBuffer
    assert loaded.statistics('mean') == 2.0
    assert loaded.current() == 3.0
    assert HistoryBuffer([4.0], [1]).statistics('mean') == 4.0


@pytest.mark.parametrize('values', [[], None, np.zeros((2, 2)), np.array(['a'])])
def test_a_history_without_numbers_is_refused(path, values):
    history = HistoryBuffer([1.0], [1])
    history._log_history = values
    with pytest.raises(pickle.UnpicklingError, match='damaged'):
        reloaded(path, history=history)


class Foreign:
    ran = False

    def __setstate__(self, state):
        Foreign.ran = True


def test_downloaded_checkpoints_are_protected_too(tmp_path, monkeypatch):
    foreign = Foreign()
    foreign.value = 1
    torch.save({'state_dict': {}, 'extra': foreign}, tmp_path / 'foreign.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/foreign.pth'
        with pytest.raises(pickle.UnpicklingError, match='Foreign'):
            CheckpointLoader.load_checkpoint(url)
        assert not Foreign.ran
        checkpoint_module.load_url.func(url)  # what mmengine calls without the cure
        assert Foreign.ran
        server.shutdown()


def test_running_out_of_memory_is_not_called_a_bad_checkpoint(monkeypatch, path):
    def fail(*args, **kwargs):
        raise RuntimeError('CUDA out of memory')

    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        reloaded(path)
