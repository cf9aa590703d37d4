import os

import pytest
from helpers.tiny_library import memory_folder


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """The order of writes stays; a test that loses power would need the waiting."""
    monkeypatch.setattr(os, 'fsync', lambda handle: None)
    monkeypatch.setattr('mmn_plugin.library.database._SYNCHRONOUS', 'OFF')


@pytest.fixture
def tmp_path():
    """In memory: thousands of small files are written and removed."""
    with memory_folder() as folder:
        yield folder
