"""The model, wrapped or not."""

from types import SimpleNamespace

from torch import nn

from mmn_plugin.engine.dist import bare_model


def test_it_is_the_model_with_and_without_a_wrapper():
    model = nn.Linear(2, 2)
    for given in (model, nn.DataParallel(model)):
        assert bare_model(SimpleNamespace(model=given)) is model
