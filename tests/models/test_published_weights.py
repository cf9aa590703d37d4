"""Converting checkpoints of the published code."""

from pathlib import Path

import pytest
import torch
from helpers.run_tool import output_of, run_tool
from reference.golden_file import GoldenFile

from mmn_plugin.models.published_weights import from_published, published_name, to_published

TOOL = 'model_converters/mmn_to_mmengine.py'


@pytest.fixture
def published(shared):
    return GoldenFile(shared / 'golden/charades_conv.npz').weights('state')


def test_weights_come_back_the_same_and_needless_names_may_be_there_or_not(published):
    back = to_published(from_published(published))
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], value) for name, value in published.items())
    wrapped = {f'module.{name}': value for name, value in published.items()}
    wrapped['module.text_encoder.bert.embeddings.position_ids'] = torch.arange(4)[None]
    assert from_published(wrapped).keys() == from_published(published).keys()
    drop('num_batches_tracked')(published)
    assert to_published(from_published(published)).keys() == published.keys()


def drop(*parts):
    """Take away every name that holds one of the parts."""

    def change(state):
        for name in [name for name in state if any(part in name for part in parts)]:
            del state[name]

    return change


def add(name):
    return lambda state: state.update({name: torch.zeros(1)})


BERT = 'text_encoder.bert.transformer.layer.0'


@pytest.mark.parametrize(
    ('change', 'kind', 'named'),
    [
        (drop(f'{BERT}.ffn.lin1.bias'), 'missing', [f'{BERT}.ffn.lin1.bias']),
        (drop(f'{BERT}.'), 'missing', [f'{BERT}.sa_layer_norm.weight']),
        (
            drop('embeddings.LayerNorm', 'position_embeddings'),
            'missing',
            [
                'text_encoder.bert.embeddings.LayerNorm.bias',
                'text_encoder.bert.embeddings.position_embeddings.weight',
            ],
        ),
        (add('text_encoder.bert.foo'), 'unknown', ['text_encoder.bert.foo']),
        (add('proposal_conv.convs.0.gamma'), 'unknown', ['proposal_conv.convs.0.gamma']),
        (add('proposal_conv.convs.00.weight'), 'unknown', ['proposal_conv.convs.00.weight']),
        (add('featpool.conv.num_batches_tracked'), 'unknown', ['num_batches_tracked']),
        (
            drop('proposal_conv.bn.7.'),
            'missing',
            [f'proposal_conv.bn.7.{kind}' for kind in ('weight', 'bias', 'running_mean')],
        ),
        (drop('feat2d.convs.0.'), 'missing', ['feat2d.convs.0.weight', 'feat2d.convs.0.bias']),
        (drop('text_encoder.'), 'missing', ['text_encoder.bert.embeddings.L', ' more']),
    ],
)
def test_every_name_is_checked_to_its_end(published, change, kind, named):
    change(published)
    with pytest.raises(KeyError) as error:
        from_published(published)
    message = error.value.args[0]
    assert message.startswith(f'this is no published MMN checkpoint: {kind} ')
    assert not [name for name in named if name not in message]
    assert ('unknown' in message) != ('missing' in message)


def test_the_way_back_is_checked_as_well(published):
    ours = from_published(published)
    del ours['neck.encoder.bn.7.bias']
    ours['text_encoder.bert.foo'] = torch.zeros(1)
    with pytest.raises(KeyError, match=r'unknown .*bert\.foo; missing .*encoder\.bn\.7'):
        to_published(ours)
    with pytest.raises(KeyError, match=r'no MMN weight: .*bert\.foo'):
        published_name('text_encoder.bert.foo')


def test_the_tool_converts_a_file_both_ways_round(published, tmp_path):
    source, ours, back = (tmp_path / name for name in ('published.pth', 'ours.pth', 'back.pth'))
    torch.save(dict(model={f'module.{k}': v for k, v in published.items()}, iteration=7), source)
    assert run_tool(TOOL, source, ours)[0] == 0
    assert run_tool(TOOL, '--reverse', ours, back)[0] == 0
    result = torch.load(back, weights_only=True)['model']
    assert all(torch.equal(result[name], value) for name, value in published.items())
    for out, problem in ((tmp_path, 'is a folder'), (source / 'out.pth', 'cannot be written')):
        output = output_of(TOOL, source, out, code=2)
        assert f'error: argument out: {out} {problem}' in output.splitlines()[-1]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'published.pth does not exist'),
        (dict(epoch=3), 'published.pth holds no weights'),
        (dict(model=[torch.zeros(1)]), 'published.pth holds no weights'),
        (dict(model={3: torch.zeros(1)}), 'published.pth holds no weights'),
        (dict(model=dict(other=torch.zeros(1))), 'unknown other'),
        (
            dict(model=dict(a=torch.zeros(1)), hook=Path('x')),
            'published.pth was not loaded: it holds a pathlib.PosixPath, and loading',
        ),
        (b'PK no checkpoint', 'published.pth is damaged or no PyTorch checkpoint'),
    ],
)
def test_the_tool_says_in_one_line_what_is_wrong_with_a_file(content, message, tmp_path):
    source = tmp_path / 'published.pth'
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    output = output_of(TOOL, source, tmp_path / 'out.pth', code=1)
    assert message in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / 'out.pth').exists()
