"""What the page says, without a browser."""

import base64
import json
import threading
import time
from html.parser import HTMLParser
from itertools import islice
from unittest import mock

import numpy as np
import pytest
from helpers.tiny_grounder import write_grounder, write_scene

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.long_video import LongVideo
from mmn_plugin.evaluation import read_predictions
from mmn_plugin.webui import Limits, PageError, UserSession
from mmn_plugin.webui.answers import (
    Answer,
    ExampleVideo,
    Turns,
    VideoGrounder,
    answers_html,
    error_html,
    player_html,
)

EVIL = '<script>alert(1)</script>" onclick="x'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('answers')


@pytest.fixture(scope='module')
def grounder(folder):
    tiny = write_grounder(folder)
    return VideoGrounder(GroundingInferencer(tiny.config, tiny.checkpoint, 'cpu', top_n=3))


@pytest.fixture
def session(folder):
    return UserSession('my scene.mp4', write_scene(folder), 24.0, truth={'a red box': [(2.0, 8.0)]})


class Elements(HTMLParser):
    """All elements of a piece of HTML, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ''
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def named(self, tag, style=''):
        return [a for t, a in self.elements if t == tag and style in (a.get('class') or '')]


def test_answers_are_those_of_the_inferencer(grounder, session):
    model = grounder.inferencer.model
    with mock.patch.object(model, 'encode_sentences', wraps=model.encode_sentences) as embedding:
        answers = grounder.ask(session, ['a red box', 'the door'])
    embedding.assert_called_once()  # for moments, curves, and maps
    expected = grounder.inferencer(str(session.path), ['a red box', 'the door'])
    assert [answer.moments for answer in answers] == [one['moments'] for one in expected]
    assert [answer.truth for answer in answers] == [[(2.0, 8.0)], None]
    assert answers[0].curve.max() == pytest.approx(answers[0].scores[0])
    assert answers[0].map_png().startswith(b'\x89PNG')


def test_what_the_visitor_can_mend_is_a_message_and_a_fault_of_ours_is_none(
    grounder, session, tmp_path, monkeypatch
):
    with pytest.raises(PageError, match="The sentence 'zzz' holds no word"):
        grounder.ask(session, ['zzz'])
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    with pytest.raises(PageError, match=r'“my scene\.mp4” cannot be decoded'):
        grounder.encode(UserSession(session.name, tmp_path / 'broken.mp4', 24.0))
    monkeypatch.setattr(grounder.inferencer.model.head, 'ground', lambda *_: int('no number'))
    with pytest.raises(ValueError, match='invalid literal') as error:
        grounder.ask(session, ['a red box'])
    assert not isinstance(error.value, PageError)


class Pieces:
    """The grounder's extractor, that does something before a piece of a video."""

    def __init__(self, extractor, before):
        self.extractor, self.before = extractor, before
        self.stride, self.fps, self.reader = extractor.stride, extractor.fps, extractor.reader

    def blocks(self, frames):
        frames = iter(frames)
        for number in range(3):
            self.before(number)
            yield next(self.extractor.blocks(islice(frames, 64)))


def wait_for(turns, count):
    """Until so many threads have a turn or wait for one."""
    until = time.monotonic() + 600
    while len(turns.waiting) < count and time.monotonic() < until:
        time.sleep(0.001)
    assert len(turns.waiting) >= count


def test_turns_are_taken_one_at_a_time_in_the_order_of_asking():
    turns, order = Turns(), []

    def take(name):
        with turns:
            order.append(name)

    threads = [threading.Thread(target=take, args=[name]) for name in range(5)]
    with turns:
        for number, thread in enumerate(threads, 2):
            thread.start()
            wait_for(turns, number)
        assert order == []
    for thread in threads:
        thread.join(600)
    assert order == [0, 1, 2, 3, 4]


def test_who_asks_waits_for_a_piece_of_anothers_video_and_not_for_its_end(
    grounder, session, folder, monkeypatch
):
    grounder.encode(session)
    order, predict = [], grounder.inferencer.predict
    asking = threading.Thread(target=grounder.ask, args=[session, ['a red box']])

    def noted(*args, **options):
        order.append('a question')
        return predict(*args, **options)

    monkeypatch.setattr(grounder.inferencer, 'predict', noted)

    def before(number):
        order.append(number)
        if number == 1:
            asking.start()
            wait_for(grounder.turns, 2)

    monkeypatch.setattr(
        grounder.inferencer, '_extractor', Pieces(grounder.inferencer.extractor, before)
    )
    other = UserSession('other.mp4', session.path, 24.0)
    reading = threading.Thread(target=grounder.encode, args=[other])
    reading.start()
    reading.join(600)
    asking.join(600)
    assert order == [0, 1, 'a question', 2]
    assert other.encoded is not None


def test_a_video_takes_no_more_than_its_share_of_work(grounder, session, monkeypatch):
    monkeypatch.setattr(grounder, 'limits', Limits(work_seconds=1e-9))
    with pytest.raises(PageError, match=r'“my scene\.mp4” is too much .*: it takes longer than'):
        grounder.encode(session)
    monkeypatch.setattr(grounder, 'limits', Limits(pixels=100))
    with pytest.raises(PageError, match='at most 100 pixels'):
        grounder.encode(session)
    monkeypatch.undo()
    grounder.encode(session)
    assert session.encoded is not None


def test_work_ends_when_the_visitor_leaves(grounder, session, monkeypatch):
    seen = []

    def before(number):
        seen.append(number)
        if number == 1:
            session.delete()

    monkeypatch.setattr(
        grounder.inferencer, '_extractor', Pieces(grounder.inferencer.extractor, before)
    )
    with pytest.raises(PageError, match='was deleted'):
        grounder.encode(session)
    assert seen == [0, 1]
    assert session.encoded is None


def test_a_video_in_windows_has_bars_and_a_curve_without_map(grounder, session, monkeypatch):
    monkeypatch.setattr(grounder.inferencer.video_encoder, 'long_video', LongVideo(window=12.0))
    (answer,) = grounder.ask(session, ['a red box'])
    assert session.encoded.num_windows == 5
    assert answer.curve.shape == (96,)  # even steps, since windows have no clips in common
    assert answer.curve.max() == pytest.approx(answer.scores[0])
    page = Elements(answers_html(session, [answer]))
    assert len(page.named('button', 'mmn-moment')) == 4  # and the truth
    assert page.named('svg')
    assert not page.named('details')


def test_each_true_window_can_be_played_and_a_sentence_without_one_says_so(session):
    shown = [[(1.0, 2.0), (3.0, 4.0)], [], None]
    answers = [Answer('a box', [[6.0, 12.0]], [0.9], truth=windows) for windows in shown]
    page = Elements(answers_html(session, answers))
    labels = [button['aria-label'] for button in page.named('button', 'mmn-moment')]
    assert [label[:11] for label in labels].count('True moment') == 2
    assert len(labels) == 2 + 3
    assert page.text.count('In truth it does not occur.') == 1


def test_bars_lie_where_the_moments_are(session):
    answer = Answer('a box', [[6.0, 12.0], [0.0, 24.0]], [0.9, 0.1], curve=np.array([0.9, 0.1]))
    page = Elements(answers_html(session, [answer]))
    buttons = page.named('button', 'mmn-moment')
    assert [(float(b['data-start']), float(b['data-end'])) for b in buttons] == [
        (6.0, 12.0),
        (0.0, 24.0),
    ]
    assert 'Moment 1: 6.0' in buttons[0]['aria-label']
    bars = [bar['style'] for bar in page.named('span', 'mmn-bar')]
    assert bars[0].startswith('left:25.000%;width:25.000%')
    assert bars[1].startswith('left:0.000%;width:100.000%')


def test_the_download_is_a_file_of_predictions(session, tmp_path):
    answers = [Answer('a box', [[6.0, 12.0]], [0.9]), Answer('the door', [[1.0, 2.0]], [0.2])]
    (link,) = Elements(answers_html(session, answers)).named('a')
    assert link['download'] == 'my scene_moments.json'
    (tmp_path / 'x.json').write_bytes(base64.b64decode(link['href'].partition('base64,')[2]))
    found = read_predictions(tmp_path / 'x.json')['my scene']['sentences']
    assert found[0]['moments'] == [[6.0, 12.0]]
    assert found[1]['sentence'] == 'the door'


def test_a_sentence_that_does_not_happen_says_so(session):
    absent = Answer('a box', [[6.0, 12.0]], [0.1], present=False)
    empty = Answer('a box', [], [])
    for answer, count in ((absent, 1), (empty, 0)):
        page = Elements(answers_html(session, [answer]))
        assert 'Probably not in this video' in page.text
        assert len(page.named('button', 'mmn-moment')) == len(page.named('details')) == count
        (link,) = page.named('a')
        content = json.loads(base64.b64decode(link['href'].partition('base64,')[2]))
        assert content['videos']['my scene']['sentences'][0]['moments'] == []


def test_what_a_visitor_types_is_text_and_nothing_else(session):
    evil = UserSession(EVIL + '.mp4', session.path, 24.0)
    answer = Answer(EVIL, [[6.0, 12.0]], [0.9], moment_map=np.zeros((4, 4, 3), np.uint8))
    for html in (answers_html(evil, [answer]), player_html(evil), error_html(EVIL)):
        page = Elements(html)
        assert not page.named('script')
        assert not any('onclick' in attributes for _, attributes in page.elements)
        assert EVIL in page.text  # as it was typed


def test_an_example_has_all_windows_of_a_sentence_that_is_annotated_several_times(tmp_path):
    (tmp_path / 'v.mp4').touch()
    video = dict(
        duration=20.0,
        timestamps=[[1, 2], [], [[4, 6], [1, 2]]],
        sentences=['a box', 'a ring', 'a box'],
    )
    (tmp_path / 'annotations.json').write_text(json.dumps(dict(v=video)))
    (example,) = ExampleVideo.read_folder(tmp_path)
    assert example.truth == {'a box': [(1, 2), (4, 6)], 'a ring': []}
