import os

import pytest


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """The order of writes stays; a test that loses power would need the waiting."""
    monkeypatch.setattr(os, 'fsync', lambda handle: None)
    monkeypatch.setattr('mmn_plugin.library.database._SYNCHRONOUS', 'OFF')
