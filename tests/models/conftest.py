"""What several tests of models watch."""

import pytest

from mmn_plugin.models.necks import moment_encoder


@pytest.fixture
def said(monkeypatch):
    """What the moment encoder logs."""
    texts = []
    monkeypatch.setattr(moment_encoder, 'print_log', lambda text, *_: texts.append(text))
    return texts
