"""Spans of time in free text, as language models answer it."""

import json
import re
import unicodedata
from dataclasses import dataclass, field

from mmn_plugin.errors import InputError

from .answer_spans import TIME, WORD, Pair, Time, UnsureError, pairs_in, require_known, time_of
from .predictions import is_number

UNITS = ('seconds', 'milliseconds', 'minutes', 'percent', 'fraction', 'frames')


@dataclass
class AnswerReading:
    """What was read in an answer.

    Attributes:
        reading (str): ``times``; ``absent``, where it says that the sentence does not occur; or
            ``unread``, where neither is sure.
        spans (list[tuple[float, float]]): Seconds, start < end, in the order of the text, each
            once; they may lie outside the video.
        num_swapped (int): Spans that the text gives with the end first.
    """

    reading: str
    spans: list[tuple[float, float]] = field(default_factory=list)
    num_swapped: int = 0


class AnswerReader:
    """Finds the spans in free text, and leaves unread what is not sure.

    Sure are two times with units, clocks, or words of a start and an end, and objects of JSON with
    such keys; bare numbers only where the rest of the answer is known words and those of the
    sentence. Years, counts, durations ("lasts 3 to 5 seconds"), times of day, dates, a single time,
    and lists of another length than two are no spans.

    Args:
        unit (str): What bare numbers are, one of `UNITS`; a fraction is of the video.
            Defaults to ``seconds``.
        frame_rate (float, optional): Frames per second, to read frame numbers. Defaults to None.
        num_frames (int, optional): Frames that the model was shown of each video, evenly spaced, in
            place of ``frame_rate``. Defaults to None.

    Raises:
        InputError: If frames cannot be told as seconds with these settings.
    """

    def __init__(
        self, unit: str = 'seconds', frame_rate: float | None = None, num_frames: int | None = None
    ):
        if unit not in UNITS:
            raise InputError(f'unit={unit!r} of times; it must be one of {", ".join(UNITS)}')
        given = [value for value in (frame_rate, num_frames) if value is not None]
        if len(given) > 1 or not all(value > 0 for value in given):
            raise InputError(
                f'frame_rate={frame_rate}, num_frames={num_frames}; give one of them, above 0'
            )
        if unit == 'frames' and not given:
            raise InputError(
                'bare numbers are frames: give their rate, or how many each video was shown with'
            )
        self.unit, self.frame_rate, self.num_frames = unit, frame_rate, num_frames

    def read(self, answer: str, sentence: str, duration: float) -> AnswerReading:
        """Read one answer.

        Args:
            answer (str): The text. Parts in ``<think>`` are skipped; of an ``<answer>`` part, a
                ``\\boxed{}`` or a last "Answer:" only this is read.
            sentence (str): What was asked; an answer may repeat it.
            duration (float): Of the video, in seconds.
        """
        text = _without_sentence(_plain(_said(answer)), _plain(sentence))
        try:
            pairs = _structured(text, sentence)
            if pairs is None:
                pairs = pairs_in(text, sentence)
            elif not pairs:
                return AnswerReading('absent')
            if self.unit == 'seconds' and _OF_VIDEO.search(text) and any(map(_may_be_part, pairs)):
                raise UnsureError
            reading = self._to_seconds(pairs, duration)
        except UnsureError:
            return AnswerReading('unread')
        says_absent = _says_absent(text)
        if reading.spans and not says_absent:
            corrected = len(reading.spans) > 1 and _CORRECTION.search(text)
            return AnswerReading('unread') if corrected or _REFUSAL.search(text) else reading
        return AnswerReading('absent' if says_absent and not TIME.search(text) else 'unread')

    def _to_seconds(self, pairs: list[Pair], duration: float) -> AnswerReading:
        reading = AnswerReading('times')
        for pair in pairs:
            units = {time.unit for time in pair}
            if units == {None, 'clock'} or (
                len(units - {None}) > 1 and units & {'percent', 'frames'}
            ):
                raise UnsureError
            if 'frames' in units and self.frame_rate is None and self.num_frames is None:
                continue
            start, end = (
                time.value
                * self._scale(time.unit or (units - {None} or {self.unit}).pop(), duration)
                for time in pair
            )
            if not (is_number(start) and is_number(end) and start >= 0 and end >= 0):
                raise UnsureError
            # Clocks and hours beyond the video are of a day, or count something else.
            if units & {'clock', 'hours'} and min(start, end) >= duration:
                raise UnsureError
            if start > end and len(units) > 1:  # "1 min 5 s to 20 s" may mean 1:20
                raise UnsureError
            reading.num_swapped += start > end
            span = (min(start, end), max(start, end))
            if start != end and span not in reading.spans:
                reading.spans.append(span)
        return reading

    def _scale(self, unit: str, duration: float) -> float:
        """Seconds that one of a unit is."""
        if unit == 'frames':
            return 1 / self.frame_rate if self.frame_rate else duration / self.num_frames
        scales = {
            'milliseconds': 0.001,
            'minutes': 60.0,
            'hours': 3600.0,
            'percent': duration / 100,
            'fraction': duration,
        }
        return scales.get(unit, 1.0)


_OF_VIDEO = re.compile(r'\bof the (?:\w+ )?(?:video|clip)\b', re.I)


def _may_be_part(pair: Pair) -> bool:
    """Whether bare numbers may be a part of the video: "from 0.1 to 0.4 of the video"."""
    return all(time.unit is None and time.value <= 1 for time in pair)


_NOT_ABLE = r"(?:cannot|can not|can['\u2019]t|could not|couldn['\u2019]t|unable|not able)"
_REFUSAL = re.compile(
    rf"\bI(?: am|['\u2019]m)? {_NOT_ABLE}\b|\bit is (?:impossible|not possible)\b|"
    rf'\b{_NOT_ABLE} (?:to )?(?:be )?(?:determine|identify|locate|pinpoint|tell)',
    re.I,
)
_CORRECTION = re.compile(r'\b(?:wait|actually|correction|rather|hmm|scratch that|let me)\b', re.I)
_THOUGHT = re.compile(r'[<◁](think|thinking|thought|reasoning)[>▷].*?[<◁]/\1[>▷]', re.I | re.S)
_THOUGHT_ENDS = re.compile(r'[<◁]/(?:think|thinking|thought|reasoning)[>▷]', re.I)
_THOUGHT_BEGINS = re.compile(r'[<◁](?:think|thinking|thought|reasoning)[>▷]', re.I)
_FINAL = re.compile(r'\b(?:final\s+)?answer(?:\s+is)?\s*\**\s*[:\uff1a]', re.I)


def _said(answer: str) -> str:
    """The answer without what a model thought before it."""
    text = _THOUGHT_ENDS.split(_THOUGHT.sub(' ', answer))[-1]  # some begin inside their thoughts
    text = _THOUGHT_BEGINS.split(text)[0]  # and some never end
    tagged = re.findall(r'<answer>(.*?)(?:</answer>|$)', text, re.I | re.S)
    if tagged:
        text = tagged[0] if len({part.strip() for part in tagged}) == 1 else ''
    boxed = re.findall(r'\\boxed\{([^{}]*)\}', re.sub(r'\\text\s?\{([^{}]*)\}', r'\1', text))
    return boxed[-1] if boxed else _FINAL.split(text)[-1]


def _plain(text: str) -> str:
    """Compatible characters, ASCII digits, no markup."""
    text = unicodedata.normalize('NFKC', text).replace('\u066b', '.').replace('\u060c', ',')
    text = ''.join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    text = re.sub(r'```(?:json|python)?|[*`⟦⟧⟨⟩]|\\[()\[\]]', ' ', text)
    text = re.sub(r'^\s*(?:\d+[.)]|[-\u2022])\s+', ' ', text, flags=re.M)  # of lists
    return re.sub(r'[ \t\xa0]+', ' ', text).strip()


def _without_sentence(text: str, sentence: str) -> str:
    words = sentence.strip(' .').split()
    if len(words) < 2:
        return text
    return re.sub(r'\s+'.join(map(re.escape, words)), '\u2026', text, flags=re.I)


# JSON

_DECODER = json.JSONDecoder()
_BEGIN = re.compile(r'[\[{](?=[\s\[{]{0,8}[^\s\[{])')  # of JSON, not of a run of brackets
_KEYS = {
    suffix: unit
    for unit, suffixes in {
        None: ('', 'time', 'timestamp', 'at'),
        'seconds': ('s', 'sec', 'secs', 'second', 'seconds', 'times', 'timesec', 'timeseconds'),
        'milliseconds': ('ms', 'timems'),
        'frames': ('frame', 'frameindex', 'frameidx'),
        'percent': ('percent', 'percentage'),
    }.items()
    for suffix in suffixes
}
_START_KEY, _END_KEY = (
    re.compile(rf'(?:t|time)?(?:{names})({"|".join(_KEYS)})')
    for names in ('start|begin|from|onset', 'end|stop|finish|to|offset')
)
_SPANS_KEY = re.compile(
    r'(?:pred|predicted|relevant|temporal|event|time|answer|final)*(?:times?|timestamps?|spans?|'
    r'windows?|segments?|moments?|intervals?|ranges?|answers?|predictions?|results?)|\u2026'
)


def _structured(text: str, sentence: str) -> list[Pair] | None:
    """Pairs of times in the JSON of a text; none where it is all JSON, None where others may be."""
    for version in (text, re.sub(r'\bNone\b', 'null', text.replace("'", '"'))):
        values, rest = _decoded(version)
        if values:
            break
    else:
        return None
    whole = not WORD.search(rest) and not re.search(r'\d', rest)
    try:
        pairs = [pair for value in values for pair in _of_json(value, sentence)]
    except UnsureError:
        if whole or any(isinstance(value, dict) for value in values):
            raise
        return None
    bare = any({a.unit, b.unit} == {None} for a, b in pairs)
    if bare and not whole and not all(isinstance(value, dict) for value in values):
        require_known(TIME.sub('⟦⟧', rest), [], pairs, sentence)
    return pairs if pairs or whole else None


def _decoded(text: str) -> tuple[list, str]:
    """Outermost objects and lists of JSON, and the text around them."""
    values, rest, place = [], '', 0
    while begin := _BEGIN.search(text, place):
        rest += text[place : begin.start()]
        try:
            value, place = _DECODER.raw_decode(text, begin.start())
            values.append(value)
            rest += '⟨⟩'
        except (ValueError, RecursionError):
            rest, place = rest + text[begin.start()], begin.end()
    return values, rest + text[place:]


def _of_json(value: object, sentence: str) -> list[Pair]:
    if isinstance(value, dict):
        return _of_object(value, sentence)
    if isinstance(value, str):
        if _says_absent(value):
            return []
        pairs = pairs_in(_plain(value), sentence)
    elif isinstance(value, list):
        ends = [_of_value(one, None) for one in value]
        if len(value) == 2 and None not in ends:
            return [(ends[0], ends[1])]
        if any(end is not None for end in ends):  # a single time, or one too many
            raise UnsureError
        return [pair for one in value for pair in _of_json(one, sentence)]
    else:
        raise UnsureError
    if not pairs:
        raise UnsureError
    return pairs


def _of_object(value: dict, sentence: str) -> list[Pair]:
    keys = {re.sub('[^a-z\u2026]', '', key.lower()): content for key, content in value.items()}
    starts, ends = (
        [(match[1], keys[key]) for key in keys if (match := pattern.fullmatch(key))]
        for pattern in (_START_KEY, _END_KEY)
    )
    if len(starts) == len(ends) == 1:
        if starts[0][1] is None and ends[0][1] is None:
            return []
        pair = [_of_value(content, _KEYS[suffix]) for suffix, content in (*starts, *ends)]
        if None in pair:
            raise UnsureError
        return [(pair[0], pair[1])]
    inner = [keys[key] for key in keys if _SPANS_KEY.fullmatch(key)]
    if starts or ends or len(inner) != 1:
        raise UnsureError
    return _of_json(inner[0], sentence)


def _of_value(value: object, unit: str | None) -> Time | None:
    """The time that a value of JSON is; None where it is none."""
    if is_number(value):
        return Time(float(value), unit)
    match = isinstance(value, str) and TIME.fullmatch(_plain(value).strip('<>'))
    time = match and time_of(match)
    return time._replace(unit=time.unit or unit) if time else None


# Absence

_ABSENT = r'(?:present|shown|depicted|visible|found|in the video)\b'
_EVENT = r'(?:event|action|moment|scene|activity)'
_NOT = r"(?: not|n['\u2019]t) (?:\w+ )?"
_IT_IS_NOT = re.compile(
    rf'(?<!\w)(?:(?:does|did|do){_NOT}(?:occur(?! to)|happen|take place|appear(?: anywhere)? in)\b'
    r'|never (?:occurs?|happens?|takes place)\b'
    rf'|(?:it|this|that|query|sentence|\u2026|{_EVENT})["\u201d]? (?:is|was|are){_NOT}{_ABSENT}'
    rf'|(?:video|clip) does{_NOT}(?:show|contain|depict|include) '
    rf'(?:["\u201c]?\u2026|(?:this|the|any) (?:such |described )?{_EVENT})'
    r"|(?:could not|cannot|can['\u2019]t) be found\b"
    rf'|no (?:such|matching|relevant) (?:{_EVENT}|segment)'
    r'|kommt (?:im video )?nicht vor\b|tritt nicht auf|passiert nicht'
    r"|ne se produit pas|n['\u2019]apparaît pas|n['\u2019]a pas lieu"
    r'|no (?:ocurre|aparece|sucede)\b|não (?:ocorre|aparece|acontece)\b'
    r'|non (?:si verifica|accade|appare)\b|не (?:происходит|встречается|появляется)\b'
    r'|tidak (?:terjadi|muncul)\b|không (?:xảy ra|xuất hiện))'
    r'|没有(?:发生|出现)|未(?:发生|出现)|不存在|沒有(?:發生|出現)'
    r'|(?:発生|登場|存在)しません|起こりません|起きません|映っていません'
    r'|(?:나타나지|발생하지|등장하지|일어나지) 않',
    re.I,
)
_JUST_NONE = re.compile(
    r'\W*(?:(?:the )?(?:event|moment|action) )?(?:none|no moments?|no match|absent|not present|'
    r'not found|does not occur|no occurrences?|nowhere)\W*',
    re.I,
)
# It is not sure, or said of a part of the video only.
_RESERVED = re.compile(
    r'\b(?:if|whether|may|might|maybe|perhaps|possibly|unclear|clear|clearly|sure|unable|'
    r'determine|information|timestamps?|until|till|before|after|but|however|although|except|first|'
    r'beginning|end|once|again|yet|frames?|exact|exactly|explicitly|only|audio|not that|then|'
    r'instead|why|seem|seems|likely)\b|\?|但|不过|もし|하지만',
    re.I,
)


def _says_absent(text: str) -> bool:
    says = _JUST_NONE.fullmatch(text) or _IT_IS_NOT.search(text)
    return bool(says and not _RESERVED.search(text))
