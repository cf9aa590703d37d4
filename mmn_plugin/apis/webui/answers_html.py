"""Answers as HTML: bars on a timeline that seek, score curves, moment maps, a download."""

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mmn_plugin.evaluation.predictions import FORMAT, VERSION
from mmn_plugin.visualization import palette
from mmn_plugin.visualization.time_text import format_time, tick_text, time_ticks, time_unit

from .answer import Answer
from .user_session import UserSession

COLOURS = ('#0072B2', '#B34A00', '#00795A', '#A8467C', '#6A4C93', '#8A6D00', '#2E7D9A', '#444444')
TICKS = 6  # at most about so many on the axis, for a phone's width


def player_html(session: UserSession) -> str:
    """The player with the visitor's video."""
    return (
        f'<video id="mmn-video" controls playsinline preload="auto" tabindex="0" '
        f'aria-label="Video {escape(session.name)}" data-duration="{session.duration:.3f}" '
        f'src="gradio_api/file={escape(session.path.as_posix())}"></video>'
        f'<p class="mmn-caption"><strong>{escape(session.name)}</strong> '
        f'{_clock(session.duration, session.duration)}</p>'
        '<p class="mmn-unplayable" hidden role="status">This browser cannot play the file. '
        'The moments are found all the same.</p>'
    )


def error_html(message: str) -> str:
    """A message about what went wrong."""
    return f'<p class="mmn-error" role="alert">{escape(message)}</p>'


def note_html(message: str) -> str:
    """A message about what goes on."""
    return f'<p class="mmn-note" role="status">{escape(message)}</p>'


def answers_html(session: UserSession, answers: Sequence[Answer]) -> str:
    """All answers, in the order of the sentences, and the download."""
    top = max((float(a.curve.max()) for a in answers if a.curve is not None), default=0.0)
    parts = [
        _answer(session.duration, answer, COLOURS[i % len(COLOURS)], top)
        for i, answer in enumerate(answers)
    ]
    data = base64.b64encode(predictions_json(session, answers).encode()).decode()
    name = escape(Path(session.name).stem + '_moments.json')
    return (
        f'<div class="mmn-answers" role="region" aria-label="Moments found">{"".join(parts)}'
        f'<a class="mmn-download" download="{name}" '
        f'href="data:application/json;base64,{data}">Download as JSON</a></div>'
    )


def predictions_json(session: UserSession, answers: Sequence[Answer]) -> str:
    """The answers in the format of docs/predictions.md."""
    sentences = [
        dict(index=i, sentence=answer.sentence, moments=answer.moments, scores=answer.scores)
        for i, answer in enumerate(answers)
    ]
    video = dict(duration=session.duration, sentences=sentences)
    return json.dumps(
        dict(format=FORMAT, version=VERSION, videos={Path(session.name).stem: video}), indent=1
    )


def _answer(duration: float, answer: Answer, colour: str, top: float) -> str:
    moments = zip(answer.moments, answer.scores, strict=True)
    lanes = ''.join(
        _moment(duration, rank, moment, score, palette.fade(colour, min(0.15 * (rank - 1), 0.6)))
        for rank, (moment, score) in enumerate(moments, 1)
    )
    if not answer.present or not lanes:
        lanes = ('<p class="mmn-absent">This does not seem to happen in the video.</p>') + lanes
    return (
        f'<section class="mmn-answer"><h3>“{escape(answer.sentence)}”</h3>'
        f'<div class="mmn-lanes">{_truth(duration, answer.truth)}{lanes}'
        f'{_curve(answer, colour, top)}{_axis(duration)}</div>{_map(answer)}</section>'
    )


def _bar(duration: float, moment, colour: str) -> str:
    start, end = (min(max(value / duration, 0), 1) * 100 for value in moment)
    return (
        f'<span class="mmn-track"><span class="mmn-bar" style="left:{start:.3f}%;'
        f'width:{end - start:.3f}%;background:{colour}"></span></span>'
    )


def _lane(duration: float, moment, colour: str, rank: str, label: str, score: str) -> str:
    start, end = moment
    times = f'{_clock(start, duration, False)} \N{EN DASH} {_clock(end, duration)}'
    return (
        f'<button type="button" class="mmn-moment" data-start="{start:.3f}" '
        f'data-end="{end:.3f}" aria-label="{label}: {times}{score and ", score " + score}. '
        f'Play it."><span class="mmn-rank">{rank}</span>{_bar(duration, moment, colour)}'
        f'<span class="mmn-times">{times}</span><span class="mmn-score">{score}</span>'
        '</button>'
    )


def _moment(duration: float, rank: int, moment, score: float, colour: str) -> str:
    return _lane(duration, moment, colour, str(rank), f'Moment {rank}', f'{score:.2f}')


def _truth(duration: float, truth) -> str:
    if truth is None:
        return ''
    return _lane(duration, truth, palette.TRUTH, 'truth', 'True moment', '')


def _curve(answer: Answer, colour: str, top: float) -> str:
    """The score over time, on one scale for all sentences."""
    if answer.curve is None or top <= 0:
        return ''
    width = 100 / len(answer.curve)
    points = [
        f'{x:.2f},{30 - 28 * max(float(value), 0) / top:.2f}'
        for i, value in enumerate(answer.curve)
        for x in (i * width, (i + 1) * width)
    ]
    return (
        '<div class="mmn-lane"><span class="mmn-rank">score</span>'
        '<svg class="mmn-curve" viewBox="0 0 100 30" preserveAspectRatio="none" role="img" '
        f'aria-label="Score over time, at most {float(answer.curve.max()):.2f}">'
        f'<polygon points="0,30 {" ".join(points)} 100,30" fill="{colour}" opacity="0.2"/>'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
        'stroke-width="1.5" vector-effect="non-scaling-stroke"/></svg>'
        '<span class="mmn-times"></span><span class="mmn-score"></span></div>'
    )


def _axis(duration: float) -> str:
    ticks = ''.join(
        f'<span style="left:{100 * tick / duration:.3f}%">{tick_text(tick, duration)}</span>'
        for tick in time_ticks(duration, TICKS)
    )
    return (
        f'<div class="mmn-lane mmn-axis" aria-hidden="true"><span class="mmn-rank"></span>'
        f'<span class="mmn-ticks">{ticks}</span><span class="mmn-times">'
        f'{time_unit(duration)}</span><span class="mmn-score"></span></div>'
    )


def _map(answer: Answer) -> str:
    if answer.moment_map is None:
        return ''
    data = base64.b64encode(answer.map_png()).decode()
    return (
        '<details class="mmn-map"><summary>Moment map</summary>'
        f'<img src="data:image/png;base64,{data}" alt="Heat map of the scores of all moments, '
        f'start against end, for “{escape(answer.sentence)}”"></details>'
    )


def _clock(seconds: float, duration: float, unit: bool = True) -> str:
    return format_time(seconds, duration) + (' s' if unit and duration <= 120 else '')
