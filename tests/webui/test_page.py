"""The page in a real browser: upload, ask, click a moment, and what visitors do wrong."""

import json
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from helpers.tiny_grounder import write_grounder, write_scene
from helpers.zero_shot_config import SENTENCES, write_zero_shot

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.shapes import SceneRenderer, SceneSampler
from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.webui import Limits, SessionStore
from mmn_plugin.webui.answers import ExampleVideo, VideoGrounder

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='no Chromium on this machine (apt-get install chromium)'
)
PHONE = dict(width=360, height=740)


@contextmanager
def serving(inferencer, folder, temporary):
    """The page of a model, whose folders all lie below one that is empty at the end."""
    pytest.importorskip('gradio', reason='Gradio is not installed (requirements/web.txt)')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, 'tempdir', str(temporary))
        patch.setenv('GRADIO_TEMP_DIR', '')
        patch.setenv('GRADIO_ANALYTICS_ENABLED', '')
        with SessionStore(Limits(megabytes=0.5, seconds=60), upload_seconds=3600.0) as store:
            from mmn_plugin.webui.page import GroundingPage

            example = ExampleVideo('Shapes 1', write_scene(folder), {'a red box': [(2.0, 8.0)]})
            page = GroundingPage(VideoGrounder(inferencer), store, [example])
            url = page.launch()
            yield SimpleNamespace(url=url, store=store, inferencer=inferencer, folder=folder)
            page.blocks.close()
        assert not [path for path in temporary.rglob('*') if path.is_file()]


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """The page of a tiny model."""
    folder, temporary = tmp_path_factory.mktemp('page'), tmp_path_factory.mktemp('temporary')
    tiny = write_grounder(folder)
    inferencer = GroundingInferencer(tiny.config, tiny.checkpoint, 'cpu', top_n=3)
    with serving(inferencer, folder, temporary) as server:
        yield server


@pytest.fixture(scope='module')
def videos(server):
    """Two videos of different lengths with different contents."""
    scenes = {}
    for seed, (name, seconds) in enumerate((('ann', 24), ('bob', 12))):
        frames = SceneRenderer(48).render(SceneSampler(seed).sample(1, name, True))
        write_video(server.folder / f'{name}.mp4', frames[: seconds * 8], 8)
        scenes[name] = server.folder / f'{name}.mp4'
    return scenes


@pytest.fixture(scope='module')
def browser(server):
    sync_api = pytest.importorskip(
        'playwright.sync_api', reason='playwright is not installed (requirements/browser.txt)'
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Open the page as a new visitor."""
    visitors = []

    def open_page(viewport=None, colors='light', server=server):
        context = browser.new_context(
            viewport=viewport or dict(width=1280, height=900), color_scheme=colors
        )
        visitors.append(context)
        page = context.new_page()
        page.set_default_timeout(300_000)  # a busy machine; no test waits so long
        page.failed = []
        page.on('pageerror', lambda error: page.failed.append(str(error)))
        page.on(
            'request',
            lambda request: (
                request.url.startswith((server.url, 'data:', 'blob:'))
                or page.failed.append(request.url)
            ),
        )
        page.goto(server.url)
        page.wait_for_selector('#mmn-ask')
        return page

    yield open_page
    for context in visitors:
        for page in context.pages:
            assert not page.failed  # no error of a script, nothing asked of another machine
        context.close()


def upload(page, path):
    page.set_input_files('input[type=file]', path)


def ask(page, text):
    page.fill('#mmn-sentences textarea', text)
    page.click('#mmn-ask')


def shown_moments(page):
    page.wait_for_selector('.mmn-moment')
    return np.array(
        page.eval_on_selector_all(
            '.mmn-moment', 'all => all.map(b => [Number(b.dataset.start), Number(b.dataset.end)])'
        )
    )


def player_time(page):
    return page.evaluate("document.getElementById('mmn-video').currentTime")


def wait_until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def leftovers(server):
    return [p for p in server.store.folder.rglob('*') if p.is_file()]


def swept(server):
    """Whether nothing is left but uploads, which are swept now rather than after a while."""
    with mock.patch.object(server.store, 'upload_seconds', 0.0):
        server.store.sweep()
    return not leftovers(server)


def test_upload_ask_click_and_nothing_is_kept(server, visit, videos, tmp_path):
    page = visit()
    upload(page, videos['ann'])
    page.wait_for_selector('text=Ready.')
    ask(page, 'a red box\nthe door')
    expected = server.inferencer(str(videos['ann']), ['a red box', 'the door'])
    moments = [moment for answer in expected for moment in answer['moments']]
    assert np.allclose(shown_moments(page), moments, atol=1e-3)
    late = max(range(len(moments)), key=lambda i: moments[i][0])
    assert moments[late][0] > 1
    page.evaluate(
        "document.getElementById('mmn-video').addEventListener("
        "'seeked', event => window.sought = event.target.currentTime, {once: true})"
    )
    page.click(f'.mmn-moment >> nth={late} >> .mmn-bar')
    page.wait_for_function('window.sought !== undefined')
    assert moments[late][0] <= page.evaluate('window.sought') + 1e-3 < moments[late][1]
    assert page.get_attribute(f'.mmn-moment >> nth={late}', 'aria-current') == 'true'
    page.click('summary >> nth=0')
    assert page.evaluate("document.querySelector('.mmn-map img').naturalWidth") > 600
    with page.expect_download() as download:
        page.click('.mmn-download')
    download.value.save_as(tmp_path / 'x.json')
    written = json.loads((tmp_path / 'x.json').read_text())['videos']['ann']
    assert [one['moments'] for one in written['sentences']] == [one['moments'] for one in expected]
    assert leftovers(server)
    page.close()  # the visitor leaves
    wait_until(lambda: swept(server))


def test_two_visitors_at_once_get_their_own_answers(server, visit, videos):
    pages = {name: visit() for name in videos}
    for name, page in pages.items():
        upload(page, videos[name])
    for page in pages.values():
        page.wait_for_selector('text=Ready.')
        page.fill('#mmn-sentences textarea', 'a red box')
    for page in pages.values():
        page.click('#mmn-ask')
    for name, page in pages.items():
        expected = server.inferencer(str(videos[name]), 'a red box')[0]['moments']
        assert np.allclose(shown_moments(page), expected, atol=1e-3)


def test_two_visitors_with_the_same_file_do_not_share_its_fate(server, visit, videos):
    first, second = visit(), visit()
    for page in (first, second):
        upload(page, videos['bob'])
        page.wait_for_selector('text=Ready.')
    first.close()
    wait_until(lambda: len(list(server.store.videos.iterdir())) == 1)
    ask(second, 'the door')
    expected = server.inferencer(str(videos['bob']), 'the door')[0]['moments']
    assert np.allclose(shown_moments(second), expected, atol=1e-3)
    assert second.evaluate("fetch(document.getElementById('mmn-video').src).then(r => r.ok)")


def alert(page, text):
    page.wait_for_selector(f'[role=alert]:has-text("{text}")')


def test_what_visitors_do_wrong_is_said_on_the_page(server, visit, videos, tmp_path):
    page = visit()
    ask(page, 'a red box')
    alert(page, 'Choose a video first')
    (tmp_path / 'bad.mp4').write_bytes(b'no video' * 100)
    upload(page, tmp_path / 'bad.mp4')
    alert(page, '“bad.mp4” cannot be read as a video')
    upload(page, videos['ann'])
    page.wait_for_selector('text=Ready.')
    for text, message in (
        ('', 'Type a sentence'),
        ('  \n ', 'Type a sentence'),
        ('a red box ' * 500, 'has 4,999 characters; at most 300'),
        ('zzz', 'holds no word'),
    ):
        ask(page, text)
        alert(page, message)
        assert not page.query_selector('.mmn-moment')
    ask(page, 'the ${alert(1)} {{door}} <img src=x onerror=alert(1)>')
    assert '${alert(1)} {{door}} <img' in page.text_content('.mmn-answer h3')
    assert not page.query_selector('.mmn-answer img[src=x]')


def test_a_file_that_is_too_large_is_not_taken(server, visit, videos, tmp_path):
    page = visit()
    (tmp_path / 'large.mp4').write_bytes(videos['ann'].read_bytes() + bytes(600_000))
    upload(page, tmp_path / 'large.mp4')
    page.wait_for_selector('text=/maximum allowed size|too large|at most 0.5 MB/i')
    assert not list(server.store.videos.iterdir())
    wait_until(lambda: swept(server))


def test_an_example_brings_its_sentences_and_the_keyboard_is_enough(visit):
    page = visit()
    page.focus('#mmn-upload')
    page.keyboard.press('Tab')
    page.keyboard.press('Space')
    page.wait_for_selector('text=Ready.')
    assert page.input_value('#mmn-sentences textarea') == 'a red box'
    page.focus('#mmn-sentences textarea')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.id') == 'mmn-ask'
    page.keyboard.press('Enter')
    moments = shown_moments(page)
    assert moments[0].tolist() == [2.0, 8.0]  # the truth comes first
    for _ in range(2):
        page.keyboard.press('Tab')
    assert 'Moment 1' in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press('Enter')
    wait_until(lambda: player_time(page) > moments[1][0])
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == 'true'


def test_a_phone_shows_everything_without_scrolling_sideways(visit):
    page = visit(PHONE)
    page.get_by_label('Shapes 1').check()
    page.wait_for_selector('text=Ready.')
    page.click('#mmn-ask')
    page.wait_for_selector('.mmn-moment')
    page.click('summary')
    assert page.evaluate('document.documentElement.scrollWidth') <= PHONE['width']
    heights = page.eval_on_selector_all('.mmn-moment', 'all => all.map(b => b.offsetHeight)')
    assert min(heights) >= 44  # a fingertip
    page.locator('.mmn-download').scroll_into_view_if_needed()
    box = page.locator('#mmn-video').bounding_box()
    assert box['y'] >= 0  # the player stays in sight
    assert box['y'] + box['height'] <= PHONE['height'] / 2


# Contrast of each element's own text with its ground, as the guidelines (WCAG) count it.
CONTRASTS = """selector => [...document.querySelectorAll(selector)].filter(
    e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => parts(c).slice(0, 3).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const ground = n => getComputedStyle(n).backgroundColor;
  let under = e;
  while ((parts(ground(under))[3] ?? 1) === 0) under = under.parentElement;
  const pair = [light(getComputedStyle(e).color), light(ground(under))];
  return [e.className + ' ' + e.textContent, Math.max(...pair) / Math.min(...pair)];
})"""


# No transition is under way; one of an endless animation does not count.
FADED_IN = """() => document.getAnimations().every(
    a => a.playState !== 'running' || a.effect.getComputedTiming().endTime === Infinity)"""


@pytest.mark.parametrize('colors', ['light', 'dark'])
def test_text_can_be_read_in_light_and_dark(visit, tmp_path, colors):
    page = visit(colors=colors)
    page.get_by_label('Shapes 1').check()
    page.wait_for_selector('text=Ready.')
    page.wait_for_function(FADED_IN)
    contrasts = page.evaluate(CONTRASTS, '#mmn-status *, #mmn-ask, #mmn-upload, .mmn-caption *')
    page.click('#mmn-ask')
    page.wait_for_selector('.mmn-moment')
    page.wait_for_function(FADED_IN)
    contrasts += page.evaluate(CONTRASTS, '.mmn-answers *')
    assert len(contrasts) > 20
    assert [pair for pair in contrasts if pair[1] < 4.5] == []


def test_a_video_that_no_browser_plays_is_grounded_all_the_same(visit, tmp_path):
    import av

    with av.open(str(tmp_path / 'old.avi'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=8)
        stream.width = stream.height = 32
        for shade in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade * 5, np.uint8), 'rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    page = visit()
    upload(page, tmp_path / 'old.avi')
    page.wait_for_selector('text=This browser cannot play the file')
    ask(page, 'a red box')
    assert len(shown_moments(page))


def test_other_files_are_not_served(server, browser):
    secret = server.folder / 'secret.txt'
    secret.write_text('x')
    page = browser.new_page()
    for path in (secret, Path('/etc/passwd'), server.store.videos / '..' / '..' / 'x'):
        assert page.request.get(f'{server.url}gradio_api/file={path}').status in (403, 404)
    page.close()


def test_a_model_without_training_finds_moments_and_says_what_is_probably_not_there(
    visit, tmp_path_factory
):
    folder, temporary = tmp_path_factory.mktemp('zero'), tmp_path_factory.mktemp('temporary')
    config = write_zero_shot(folder, 'clip')
    options = dict(device='cpu', top_n=3, model_root=folder / 'models')
    inferencer = GroundingInferencer(str(config), **options)
    video = write_scene(folder)
    answers = inferencer(video, SENTENCES)
    highest, lowest = (pick(answers, key=lambda one: one['presence']) for pick in (max, min))
    threshold = (highest['presence'] + lowest['presence']) / 2
    inferencer.meta['presence'] = dict(threshold=threshold, tail=0.0)
    with serving(inferencer, folder, temporary) as server:
        page = visit(server=server)
        upload(page, video)
        page.wait_for_selector('text=Ready.')
        ask(page, highest['sentence'])
        assert np.allclose(shown_moments(page), highest['moments'], atol=1e-3)
        assert not page.query_selector('.mmn-absent')
        ask(page, lowest['sentence'])
        page.wait_for_selector('text=Probably not in this video.')
        first = page.locator('.mmn-moment >> nth=0')
        assert not first.is_visible()
        page.click('summary:has-text("The nearest moments")')
        assert first.is_visible()
        assert np.allclose(shown_moments(page), lowest['moments'], atol=1e-3)
        page.close()
