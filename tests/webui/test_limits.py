"""What a visitor may ask for."""

import pytest

from mmn_plugin.webui import Limits, PageError


def test_sentences_are_lines_and_each_is_asked_once():
    assert Limits().split_sentences('\n  a  red box \n\na red box\nthe door\n') == [
        'a red box',
        'the door',
    ]


@pytest.mark.parametrize('text', ['', '  \n\t\n'])
def test_no_sentence_is_refused(text):
    with pytest.raises(PageError, match='Type a sentence'):
        Limits().split_sentences(text)


def test_a_very_long_sentence_is_refused_with_its_length():
    with pytest.raises(
        PageError,
        match=r'“a red box a red box.{1,40}…” has 10,001 characters; at '
        'most 300',
    ):
        Limits().split_sentences('the door\n' + 'a red box ' * 1000 + '.')
    assert Limits().split_sentences('x' * 300)


def test_too_many_sentences_are_refused():
    with pytest.raises(PageError, match='These are 9 sentences; ask for at most 8'):
        Limits().split_sentences('\n'.join('abcdefghi'))


@pytest.mark.parametrize(
    ('size', 'seconds', 'message'),
    [
        (3 * 2**20, 10, '3.0 MB; at most 2 MB'),
        (1e6, 130, '2 min 10 s long; at most 2 min'),
        (1e6, 3600, '60 min long; at most 2 min'),
    ],
)
def test_large_and_long_videos_are_refused(size, seconds, message):
    with pytest.raises(PageError, match=message):
        Limits(megabytes=2, seconds=120).check_video(size, seconds)
    Limits(megabytes=2, seconds=120).check_video(2 * 2**20, 120)


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match='the limit seconds=0 must be above 0'):
        Limits(seconds=0)
