"""Converting checkpoints of the published code."""
from pathlib import Path

import pytest
import torch
from helpers.run_tool import run_tool

from mmn_plugin.models.published_weights import from_published, to_published

TOOL = 'model_converters/mmn_to_mmengine.py'


@pytest.fixture
def published(golden):
    file = golden('charades_conv')
    return {key.removeprefix('state/'): torch.from_numpy(file[key])
            for key in file.files if key.startswith('state/')}


def test_there_and_back_gives_the_same_weights(published):
    back = to_published(from_published(published))
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], value) for name, value in published.items())


def test_the_wrapper_prefix_and_old_constants_are_dropped(published):
    wrapped = {f'module.{name}': value for name, value in published.items()}
    wrapped['module.text_encoder.bert.embeddings.position_ids'] = torch.arange(4)[None]
    assert from_published(wrapped).keys() == from_published(published).keys()


def test_unknown_and_missing_names_are_all_named(published):
    del published['proposal_conv.bn.3.running_var'], published['text_encoder.fc_out2.bias']
    published['visual.weight'] = torch.zeros(1)
    with pytest.raises(KeyError) as error:
        from_published(published)
    assert 'unknown visual.weight' in str(error.value)
    assert 'proposal_conv.bn.3.running_var, text_encoder.fc_out2.bias' in str(error.value)


def test_the_tool_converts_a_file_both_ways_round(published, tmp_path):
    source, ours, back = (tmp_path / name for name in ('published.pth', 'ours.pth', 'back.pth'))
    torch.save(dict(model={f'module.{k}': v for k, v in published.items()}, iteration=7), source)
    assert run_tool(TOOL, source, ours)[0] == 0
    assert run_tool(TOOL, '--reverse', ours, back)[0] == 0
    result = torch.load(back, weights_only=True)['model']
    assert all(torch.equal(result[name], value) for name, value in published.items())


@pytest.mark.parametrize(('content', 'message'), [
    (None, 'does not exist'),
    (dict(epoch=3), 'holds no weights'),
    (dict(model=dict(other=torch.zeros(1))), 'unknown other'),
    (dict(model=dict(a=torch.zeros(1)), hook=Path('x')), 'more than tensors'),
    (b'PK no checkpoint', 'was not loaded|damaged or not')])
def test_the_tool_says_in_one_line_what_is_wrong_with_a_file(content, message, tmp_path):
    source = tmp_path / 'published.pth'
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    code, output = run_tool(TOOL, source, tmp_path / 'out.pth')
    assert code == 1
    assert any(part in output for part in message.split('|'))
    assert not (tmp_path / 'out.pth').exists()
