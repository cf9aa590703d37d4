"""Times and pairs of times in free text."""

import itertools
import re
from typing import NamedTuple


class Time(NamedTuple):
    """A time as a text has it.

    Attributes:
        value (float): The number; seconds of a clock.
        unit (str | None): ``seconds``, ``milliseconds``, ``minutes``, ``hours``, ``percent``,
            ``frames``, or ``clock``; None where it has none.
    """

    value: float
    unit: str | None


class UnsureError(Exception):
    """The text has times whose meaning is not sure."""


Pair = tuple[Time, Time]


_NUMBER = r'\d+(?:\.\d+|,\d{1,2}(?!\d))?'
_END = r'(?![a-zß-ɏа-яё])'  # of a word in an alphabet; others write words together
_SECOND = (
    rf'(?:(?:s|secs?|seconds?|sek|sekund[aey]?n?|secondes?|seconden|second[oi]|segs?|segundos?|'
    rf'сек|секунд\w*|\u0441|saniye|detik|giây){_END}|秒钟|秒鐘|秒|초|सेकंड|सेकेंड|ثانية|ثوان\w*|วินาที)'
)
_MINUTE = (
    r'(?:(?:mins?|minut[eaoiy]?|minut[eo][sn]|мин|минут\w*|phút|menit|dakika)'
    rf'{_END}|分钟|分鐘|分|분)'
)
_HOUR = rf'(?:(?:h|hrs?|hours?|stunden?|heures?|horas?|час\w*){_END}|小时|小時|時間|시간)'
_FRAME = rf'(?:(?:frames?|кадр\w*){_END}|帧|幀|フレーム|프레임)'
_AND = r'(?:,|and\b|und\b|et\b|y\b|e\b|и\b)?'
_DAY = r"\s*(?:[ap]\.?m\b|o'clock|uhr\b)"

TIME = re.compile(
    rf'(?<![a-z\d.])(?:'
    rf'(?:(?P<ch>\d+):(?=\d\d:))?(?P<cm>\d{{1,3}}):(?P<cs>[0-5]\d(?:[.,]\d+)?)'
    rf'(?![:\d]|{_DAY})(?:\s?(?:{_SECOND}|{_MINUTE}))?'
    # no times: clocks of other kinds, thousands, versions, dates, ratios, amounts
    rf'|(?P<other>\d+(?::\d+)+|\d+(?:,\d{{3}})+(?!\d)|\d+(?:\.\d+){{2,}}|\d+(?P<by>[/-])\d+(?P=by)\d+'
    rf'|\d+/\d+|{_NUMBER}{_DAY}|[$€£#]\s*{_NUMBER})'
    rf'|(?:(?P<h>\d+)\s?{_HOUR}[\s,]*)?(?P<m>{_NUMBER})\s?(?:{_MINUTE}|m{_END})[\s,]*{_AND}\s*'
    rf'(?P<s>{_NUMBER})\s?{_SECOND}'
    rf"|(?P<qm>\d+)['\u2032]\s?(?P<qs>{_NUMBER})(?:''|\u2032\u2032|\")"
    rf'|(?P<before>第|(?:{_SECOND}|{_FRAME}|t(?=\s*=))\s*[:={{#]?\s*)?(?P<number>{_NUMBER})(?!\.?\d)\}}?'
    rf'(?:(?:st|nd|rd|th){_END})?(?:[\s-]?(?:(?P<seconds>{_SECOND})|(?P<minutes>{_MINUTE})|'
    rf'(?P<hours>{_HOUR})|(?P<milliseconds>(?:ms|msec|milliseconds?){_END})|(?P<frames>{_FRAME})|'
    rf'(?P<percent>%|per ?cent{_END}|prozent{_END}|процент\w*)))?(?!{_END[3:-1]})'
    rf')',
    re.I,
)


_UNITS = 'seconds', 'minutes', 'hours', 'milliseconds', 'frames', 'percent'  # groups of TIME


def time_of(match: re.Match) -> Time | None:
    """The time that a `TIME` is; None for the numbers that are none."""
    part = match.groupdict()
    if part['other']:
        return None
    for hours, minutes, seconds in (('ch', 'cm', 'cs'), ('h', 'm', 's'), ('h', 'qm', 'qs')):
        if part[minutes]:
            high, low = _float(part[hours] or '0'), _float(part[seconds])
            return Time(3600 * high + 60 * _float(part[minutes]) + low, 'clock')
    unit = next((unit for unit in _UNITS if part[unit]), None)
    if unit is None and part['before'] not in (None, '第'):
        unit = 'frames' if re.match(_FRAME, part['before'], re.I) else 'seconds'
    return Time(_float(part['number']), unit)


def _float(text: str) -> float:
    return float(text.replace(',', '.'))


_T = r'⟦(\d+)⟧'  # a time's place in the list of times
_FILL = (
    r'(?:(?:the|at|about|around|approximately|approx\.?|roughly|ca\.|circa|timestamps?|times?|mark|'
    r'etwa|environ|als?|la|le|el|den|der|zur?|i|gli|os?) )*~?'
)
_WORDS_TO = (
    r'to|till|until|through|thru|bis|à|au?|als?|hasta|até|do|tot|до|по|إلى|đến|hingga|sampai'
)
_TO = (
    rf'\s*(?:(?:mark|of the video) ?)?(?:<?-+>|=+>|→|[-\u2013\u2014\u2212~\u301c]|'
    rf'\b(?:{_WORDS_TO})\b|(?:左右)?(?:到|至)|から|부터|에서|से)\s*{_FILL}'
)
_START = r'(?:start|begin|beginn|début|debut|inici|inizi|comien|начал|начин|开始|開始|시작)\w*'
_STOP = r'(?:end|finish|stop|conclu|fin|termin|конец|законч|заканч|结束|結束|終了|종료)\w*'
_NEAR = r'(?:(?!video|clip)[^⟦⟧]){0,40}?'
_OPEN, _CLOSE = r'[\[(<{【|]\s?', r'\s?[\])>}】|]'
_GOES_ON = r'(?:,| |\b(?:and|it|then|continu\w+|last\w*|onwards?|extend\w*|go\w*|runs?)\b){1,12}'
_BETWEEN = r'\b(?:between|zwischen|entre|между|tra|fra)'
_SPAN = re.compile(
    rf'{_T}{_TO}{_T}(?P<chain>{_TO}⟦)?'
    rf'|{_BETWEEN} {_FILL}{_T}(?: mark)? ?(?:and|und|et|y|e|и|&) {_FILL}{_T}'
    rf'|{_START}{_NEAR}{_T}{_NEAR}{_STOP}{_NEAR}{_T}'
    rf'|{_T}\s?(?:开始|開始){_NEAR}{_T}\s?(?:结束|結束)'
    rf'|{_T}{_GOES_ON}(?:until|till|up to|to|ending at) {_FILL}{_T}'
    rf'|{_OPEN}{_T}\s?[,;|]\s?{_T}{_CLOSE}'
    rf'|{_OPEN}{_T}{_CLOSE}(?:{_TO}|\s?(?:,|and)?\s?){_OPEN}{_T}{_CLOSE}'
    rf'|\A[^\w⟦⟧]*(?:\w+ ?: ?)?{_T}\s?[,;|\s]\s?{_T}[^\w⟦⟧]*\Z',
    re.I,
)
# A third time follows; what is in brackets belongs to a span in brackets alone.
_MORE = re.compile(rf'(?:{_TO}|\s?(?:[,;/]|and)\s?|(?<=[\])>}}])\s?[\[<{{]\s?)⟦', re.I)
_NEGATIVE = re.compile(r'(?:^|[\[(<,:]|(?<!⟧)\s)[-\u2212]⟦')
_LENGTH_BEFORE = re.compile(
    r'\b(?:for|every|after|an?|last|first|final|another|extra|next|additional|waits?|pauses?)\W*'
    r'(?:(?:of|is|about|around|approximately|roughly|only|the|from)\W+)*$'
    r'|\b(?:delay|(?:takes?|took|taking)(?! place)|needs?|last(?:s|ed|ing)|durations?|elaps\w+|'
    r'how long|forward|(?:span|pause|gap|break)s? of)\b[^.!?;\n]*$',
    re.I,
)
_LENGTH_AFTER = re.compile(
    r'[\s-]*(?:long|later|after|before|apart|each|earlier|in length|pass|elapse|is how|'
    r'of (?!the (?:video|clip)))',
    re.I,
)
_FROM_BEFORE = re.compile(rf'\b(?:from|von|de|du|desde|dal?|van|od|dari|từ|от) {_FILL}$', re.I)
# How long the video is, what was shown of it, other things with clocks, and examples.
_OTHER_BEFORE = re.compile(
    r'(?:\b(?:video|clip|footage|recording)(?: itself)?,?(?: which| that)? '
    r'(?:is|was|runs|lasts|spans|ranges|goes|covers|length|duration)(?: ⟦\d+⟧)?'
    r'|\bframes (?:are|were)(?: \w+)?|\b(?:score|ratio|odds)(?: \w+)?'
    r'|\b(?:for example|e\.g\.?|such as|formats?)(?: of)?)'
    r'(?:\W|long\b|from\b|between\b)*$',
    re.I,
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|nicht|no|pas|не)|n['\u2019]t)\b[^.!?\n;,]{0,40}$", re.I
)
_OF_DAY_AFTER = re.compile(
    r'\s*(?:[ap]\.?m\b|in the (?:morning|evening|afternoon)|at (?:night|noon))'
)


def pairs_in(text: str, sentence: str) -> list[Pair]:
    """Pairs of times in a text.

    Raises:
        UnsureError: If there are some that may be spans and may be not.
    """
    times: list[Time] = []

    def mark(match: re.Match) -> str:
        time = time_of(match)
        if time is None:
            return '⟦⟧'  # matches no time
        times.append(time)
        return f'⟦{len(times) - 1}⟧'

    marked = TIME.sub(mark, text)
    if _NEGATIVE.search(marked):
        raise UnsureError
    pairs, found = [], []
    matches = list(_SPAN.finditer(marked))
    for match, later in itertools.zip_longest(matches, matches[1:]):
        first, second = (times[int(place)] for place in match.groups() if (place or '').isdigit())
        before, after = marked[: match.start()][-80:], marked[match.end() :]
        more = _MORE.match(marked, match.end())
        loose = more and not (later and later.start() < more.end())
        if match['chain'] or loose or _NOT_BEFORE.search(before):
            raise UnsureError
        if not _is_other(first, before, after):
            pairs.append((first, second))
            found.append(match)
    if any({a.unit, b.unit} <= {None, 'percent'} for a, b in pairs):
        require_known(marked, found, pairs, sentence)
    return pairs


def _is_other(first: Time, before: str, after: str) -> bool:
    """Whether a pair of times is how long something takes, the video, or of a day."""
    spelled = first.unit and _FROM_BEFORE.search(before)  # "lasts from 3 s to 8 s" is a span
    length = _LENGTH_BEFORE.search(before) or _LENGTH_AFTER.match(after)
    if length and first.unit != 'clock' and not spelled:
        return True
    return bool(_OTHER_BEFORE.search(before) or _OF_DAY_AFTER.match(after))


WORD = re.compile(r'[^\W\d_]+')
_KNOWN = frozenset(
    WORD.findall(
        'a an the this that it its of in on at is are was be been being can could seen shown '
        'visible found from to between and or around about approximately roughly given query '
        'sentence event action activity moment described description occurs occur occurring '
        'happens happen happening takes place appears located video clip segment time times '
        'timestamp timestamps frame frames second seconds interval range span window period '
        'relevant start starts starting begins end ends ending during matches corresponds '
        'localized percent answer prediction t von vom de del desde da dal van od dari từ من от '
        '\u0441 der das die im el la le les en dans vidéo evento événement ereignis'
    )
)


def require_known(marked: str, found: list[re.Match], pairs: list[Pair], sentence: str) -> None:
    """Refuse bare numbers beside words that may say what else they are, and beside others."""
    rest, place = '', 0
    for match in found:
        rest, place = f'{rest}{marked[place : match.start()]}⟨⟩', match.end()
    rest += marked[place:]
    beside = re.findall(r'([^\W\d_]+) ?⟨⟩', rest) + re.findall(r'⟨⟩ ?([^\W\d_]+)', rest)
    words = {word.lower() for word in WORD.findall(rest)}
    asked = {word.lower() for word in WORD.findall(sentence)}
    numbers = {_float(number) for number in re.findall(_NUMBER, sentence)}
    if (
        '⟦' in rest
        or not words <= _KNOWN | asked
        or not {word.lower() for word in beside} <= _KNOWN
        or any({a.value, b.value} <= numbers for a, b in pairs)
    ):
        raise UnsureError
