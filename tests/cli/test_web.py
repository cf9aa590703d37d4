"""`mmn web`: from the command line to a page that is served."""

import json
import os
import signal
import tempfile
import urllib.request
from importlib.util import find_spec
from multiprocessing import get_context
from unittest import mock

import pytest
import torch
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import write_config
from helpers.tiny_grounder import write_grounder, write_scene
from helpers.zero_shot_config import write_zero_shot
from mmengine.config import Config

from mmn_plugin.errors import MissingFileError
from mmn_plugin.webui.answers import ExampleVideo

needs_gradio = pytest.mark.skipif(
    find_spec('gradio') is None, reason='Gradio is not installed (requirements/web.txt)'
)


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    """A checkpoint that carries its config, as training leaves it."""
    grounder = write_grounder(tmp_path_factory.mktemp('webui'))
    loaded = torch.load(grounder.checkpoint, weights_only=True)
    loaded['meta']['settings'] = Config.fromfile(grounder.config).to_dict()
    torch.save(loaded, grounder.checkpoint)
    return grounder


@pytest.fixture
def webui(grounder, tmp_path, monkeypatch):
    """Run the tool until it would serve; `ask` may look at the page then."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    monkeypatch.setenv('GRADIO_ANALYTICS_ENABLED', '')
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments, ask=lambda blocks: None, code=0):
        with mock.patch('gradio.Blocks.block_thread', ask):
            return output_of('mmn web', *arguments, '--device', 'cpu', code=code)

    yield run
    signal.signal(signal.SIGTERM, handler)
    assert not [path for path in tmp_path.rglob('*') if path.is_file()]


@pytest.fixture
def examples(tmp_path_factory):
    """A folder of two videos, of which the model knows the words of one."""
    folder = tmp_path_factory.mktemp('examples')
    (folder / 'videos').mkdir()
    for name in 'ab':
        write_scene(folder).rename(folder / 'videos' / f'{name}.mp4')
    entries = {
        name: dict(duration=24.0, timestamps=[[1.0, 2.0]], sentences=[sentence])
        for name, sentence in (('a', 'a red box'), ('b', 'zzz'), ('absent', 'a red box'))
    }
    (folder / 'annotations.json').write_text(json.dumps(entries))
    return folder


@needs_gradio
def test_the_page_is_served_to_this_machine_with_the_examples_that_the_model_knows(
    grounder, webui, examples
):
    seen = {}

    def ask(blocks):
        (radio,) = [b for b in blocks.blocks.values() if b.get_block_name() == 'radio']
        seen.update(
            host=blocks.server_name,
            share=blocks.share,
            status=urllib.request.urlopen(blocks.local_url).status,
            examples=radio.choices,
        )

    output = webui(grounder.checkpoint, '--examples', examples, ask=ask)
    assert seen == dict(host='127.0.0.1', share=False, status=200, examples=[('a', 'a')])
    assert 'http://127.0.0.1:' in output
    assert 'b is left out: the model does not know its words' in output


def test_examples_are_the_annotated_videos_of_a_folder(examples, tmp_path):
    found = ExampleVideo.read_folder(examples)
    assert [one.name for one in found] == ['a', 'b']
    assert found[0].path == examples / 'videos' / 'a.mp4'
    assert found[0].truth == {'a red box': [(1.0, 2.0)]}
    assert ExampleVideo.read_folder(examples, count=1) == found[:1]
    corpus = tmp_path / 'annotations'
    corpus.mkdir()
    with pytest.raises(MissingFileError, match='has neither'):
        ExampleVideo.read_folder(tmp_path)
    (examples / 'annotations.json').rename(corpus / 'test.json')
    with pytest.raises(MissingFileError, match='no video is named as one in'):
        ExampleVideo.read_folder(tmp_path)
    (examples / 'videos').rename(tmp_path / 'videos')
    assert [one.truth for one in ExampleVideo.read_folder(tmp_path)] == [o.truth for o in found]


@needs_gradio
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.pth'], 'no checkpoint none.pth'),
        (['CKPT', '--top-n', '0'], "--top-n: '0' is not a whole number of 1"),
        (['CKPT', '--max-mb', '0'], 'the limit megabytes=0.0 must be above 0'),
        (['BARE'], 'bare.pth carries no config: give the one'),
        (['CKPT', '--config', 'FEATURES'], 'the config has no `extractor`'),
    ],
)
def test_mistakes_end_in_one_message(grounder, webui, arguments, message):
    bare, features = grounder.folder / 'bare.pth', grounder.folder / 'features.py'
    torch.save(torch.load(grounder.checkpoint, weights_only=True)['state_dict'], bare)
    size = Config.fromfile(grounder.config).model.backbone.in_channels
    write_config(features, grounder.corpus, extra=f"model['backbone']['in_channels'] = {size}\n")
    names = dict(CKPT=grounder.checkpoint, BARE=bare, FEATURES=features)
    code = 2 if '--top-n' in message else 1
    assert message in webui(*(names.get(argument, argument) for argument in arguments), code=code)


@needs_gradio
def test_a_model_without_training_is_served_without_a_checkpoint(
    webui, tmp_path_factory, monkeypatch
):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    folder = tmp_path_factory.mktemp('zero_shot')
    model = ('--model', write_zero_shot(folder))
    assert 'http://127' in webui(*model, '--model-root', folder / 'models')
    missing = webui(*model, code=1)
    assert 'set MMN_MODEL_ROOT to a folder with org/clip in it (for a tower --model-root' in missing


def test_without_gradio_the_message_says_how_to_get_it(grounder):
    with mock.patch('mmn_plugin.cli.web.find_spec', return_value=None):
        output = output_of('mmn web', grounder.checkpoint, code=1)
    assert 'pip install "mmn_plugin[web]"' in output


def serve(checkpoint, folder, ready):
    """The tool in a forked process, which need not import everything anew."""
    import gradio

    tempfile.tempdir = str(folder)
    block = gradio.Blocks.block_thread
    with mock.patch('gradio.Blocks.block_thread', lambda blocks: (ready.set(), block(blocks))):
        run_tool('mmn', 'web', checkpoint, '--device', 'cpu')


@needs_gradio
@pytest.mark.skipif(os.name != 'posix', reason='needs POSIX signals')
def test_a_page_that_is_stopped_leaves_nothing(grounder, tmp_path):
    context = get_context('fork')
    ready = context.Event()
    process = context.Process(target=serve, args=(grounder.checkpoint, tmp_path, ready))
    process.start()
    try:
        assert ready.wait(600)
        assert list(tmp_path.glob('mmn_webui_*'))
    finally:
        process.terminate()
        process.join(600)
    assert process.exitcode == 0
    assert not list(tmp_path.glob('mmn_webui_*'))
