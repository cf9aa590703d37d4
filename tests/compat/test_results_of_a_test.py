"""The results of a distributed test are written by one process."""

import json
from types import SimpleNamespace

import pytest
from mmengine.hooks import LoggerHook

import mmn_plugin  # noqa: F401  (cures the stack)

RESULTS = {'grounding/R1@0.5': 50.0}


def end_test(method, folder):
    """Call the hook's method as the Runner does at the end of a test that logs into `folder`."""
    hook = LoggerHook()
    hook.json_log_path = 'results.json'
    runner = SimpleNamespace(
        log_processor=SimpleNamespace(get_log_after_epoch=lambda *_, **__: (RESULTS, 'text')),
        test_dataloader=[None], logger=SimpleNamespace(info=lambda text: None),
        log_dir=str(folder),
    )  # fmt: skip
    method(hook, runner)
    return folder / 'results.json'


@pytest.mark.parametrize('rank', [0, 1])
def test_only_the_first_process_writes_them(rank, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: rank)
    path = end_test(LoggerHook.after_test_epoch, tmp_path)
    assert path.exists() == (rank == 0)
    if rank == 0:
        assert json.loads(path.read_text()) == RESULTS


def test_stock_mmengine_writes_them_from_every_process(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    assert end_test(LoggerHook.after_test_epoch.__wrapped__, tmp_path).exists()
