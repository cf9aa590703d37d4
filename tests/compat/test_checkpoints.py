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

load = CheckpointLoader.load_checkpoint


def checkpoint():
    """What an MMEngine checkpoint holds beside tensors."""
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    numbers = {code: np.arange(3).astype(code) for code in ('f4', 'f8', 'i4', 'i8', 'u4', '?')}
    return {'history': history, 'best': np.float64(0.5), 'numbers': numbers}


def test_stock_torch_refuses_mmengine_checkpoints(tmp_path):
    torch.save(checkpoint(), tmp_path / 'a.pth')
    kept = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
            torch.load(tmp_path / 'a.pth', weights_only=True)
    finally:
        torch.serialization.add_safe_globals(kept)


def test_mmengine_checkpoints_load_with_the_protection_on(tmp_path):
    expected = checkpoint()
    torch.save(expected, tmp_path / 'a.pth')
    torch.load(tmp_path / 'a.pth', weights_only=True)
    loaded = load(str(tmp_path / 'a.pth'))
    assert loaded['history'].mean() == 2.0
    assert loaded['history'].statistics('max') == 3.0
    assert loaded['best'] == 0.5
    for code, values in expected['numbers'].items():
        np.testing.assert_array_equal(loaded['numbers'][code], values)
        assert loaded['numbers'][code].dtype == values.dtype


class Foreign:
    ran = False

    def __setstate__(self, state):
        Foreign.ran = True


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (Calls(os.getcwd), 'posix.getcwd'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Calls(getattr, np.ndarray, 'tofile'), 'getattr'),
        (Calls(eval, '1'), 'eval'),
    ],
)
def test_pickles_that_call_are_refused(tmp_path, content, named):
    path = str(tmp_path / 'a.pth')
    torch.save({'state_dict': {}, 'extra': content}, path)
    with pytest.raises(pickle.UnpicklingError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert named in message
    assert len(message.splitlines()) == 1


class Altered(HistoryBuffer):
    """Pickles as a history that replaces a statistic, and an attribute."""

    def __reduce__(self):
        state = dict(self.__dict__, statistics_methods={'mean': bytearray}, current=bytearray)
        return HistoryBuffer, (), state


def test_a_history_cannot_replace_statistics_of_the_process(tmp_path):
    torch.save({'history': Altered([1.0, 3.0], [1, 1])}, tmp_path / 'a.pth')
    loaded = load(str(tmp_path / 'a.pth'))['history']
    assert type(loaded) is HistoryBuffer
    assert loaded.statistics('mean') == 2.0
    assert loaded.current() == 3.0
    assert HistoryBuffer([4.0], [1]).statistics('mean') == 4.0


@pytest.mark.parametrize('values', [[], None, np.zeros((2, 2)), np.array(['a'])])
def test_a_history_without_numbers_is_refused(tmp_path, values):
    history = HistoryBuffer([1.0], [1])
    history._log_history = values
    torch.save({'history': history}, tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match='damaged'):
        load(str(tmp_path / 'a.pth'))


def test_what_was_loaded_is_saved_as_numpys_own_again(tmp_path):
    torch.save(checkpoint(), tmp_path / 'a.pth')
    loaded = load(str(tmp_path / 'a.pth'))
    assert type(loaded['history'].data[0]) is np.ndarray
    assert type(loaded['numbers']['f4'] + np.ones(3)) is np.ndarray
    for protocol in (2, 5):
        names = pickletools.genops(pickle.dumps(loaded, protocol))
        assert not [arg for _, arg, _ in names if isinstance(arg, str) and 'mmn_plugin' in arg]


@pytest.mark.parametrize('values', [np.array([None, 'a']), np.zeros(2, [('a', 'O'), ('b', 'f4')])])
def test_arrays_of_objects_are_refused(tmp_path, values):
    torch.save({'state_dict': {}, 'extra': values}, tmp_path / 'a.pth')
    with pytest.raises(pickle.UnpicklingError, match=r'a\.pth was not loaded: it holds a numpy'):
        load(str(tmp_path / 'a.pth'))


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
            load(url)
        assert not Foreign.ran
        checkpoint_module.load_url.func(url)  # what mmengine calls without the cure
        assert Foreign.ran
        server.shutdown()


def test_running_out_of_memory_is_not_called_a_bad_checkpoint(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise RuntimeError('CUDA out of memory')

    torch.save({}, tmp_path / 'a.pth')
    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        load(str(tmp_path / 'a.pth'))
