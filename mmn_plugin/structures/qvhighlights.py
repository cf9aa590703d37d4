"""Lines of QVHighlights' files: a query each, with its windows and the saliency of clips.

The format of QVHighlights (Moment-DETR, NeurIPS 2021): https://github.com/jayleicn/moment_detr.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .json_lines import is_number, read_json_lines

CLIP = 2  # seconds of a clip whose saliency is annotated and predicted
ANNOTATORS = 3
HIGHEST = 4  # saliency that an annotator gives; the lowest is 0
WINDOWS = 'pred_relevant_windows', 'relevant_windows'  # of a prediction and of a truth
SALIENCY = 'pred_saliency_scores', 'saliency_scores'

Refuse = type[ValueError]


def num_clips(duration: float) -> int:
    """Clips of a video of so many seconds that have a saliency; the rest at its end has none."""
    return int(duration / CLIP)


def read_query_lines(
    path: str | Path, check: Callable[[str, dict, Refuse], None], error: Refuse
) -> dict[int | str, dict]:
    """Lines of a file by ``qid``, in its order.

    Args:
        path (str | Path): JSON lines.
        check (Callable): Takes the place of a line, for messages, the line, and ``error``.
        error (type[ValueError]): What to raise.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Of the kind given, if the file is empty, a line is not an object or has no
            ``qid`` of its own, or some lines have windows or saliency and others have not.
    """
    lines: dict[int | str, dict] = {}
    for where, line in read_json_lines(path, error):
        if not isinstance(line, dict):
            raise error(f'{where} is not an object, {{"qid": ...}}')
        qid = line.get('qid')
        if not isinstance(qid, int | str) or isinstance(qid, bool):
            raise error(f'{where} has qid={qid!r}; expected a whole number or a text')
        if qid in lines:
            raise error(f'{where} has qid {qid!r}, which came before')
        check(f'{where} (qid {qid!r})', line, error)
        lines[qid] = line
    if not lines:
        raise error(f'{path} is empty')
    for key in (*WINDOWS, *SALIENCY):
        lacking = [qid for qid, line in lines.items() if key not in line]
        if len(lacking) not in (0, len(lines)):
            raise error(
                f'{path}: {len(lacking)} of {len(lines)} lack "{key}", such as qid '
                f'{lacking[:1]}: all need it, or none'
            )
    return lines


def check_windows(where: str, line: dict, key: str, form: str, error: Refuse) -> None:
    """Refuse windows that are no list of ``form``, or one that ends before it starts."""
    windows, width = line[key], form.count(',') + 1
    if not isinstance(windows, list):
        raise error(f'{where}: "{key}" is no list of {form}')
    for window in windows:
        if not (isinstance(window, list) and len(window) == width and all(map(is_number, window))):
            raise error(f'{where} has {window!r} in "{key}"; expected {form}, finite numbers')
        if window[0] > window[1]:
            raise error(f'{where} has the window {window!r}, which ends before it starts')


def check_truth(where: str, line: dict, error: Refuse) -> None:
    """Refuse a line of truth whose video, windows or saliency cannot be used.

    Args:
        where (str): Its place, for messages.
        line (dict): ``vid``, ``duration``, and perhaps ``relevant_windows`` and
            ``relevant_clip_ids`` with ``saliency_scores``.
        error (type[ValueError]): What to raise.
    """
    duration = line.get('duration')
    if 'vid' not in line or not is_number(duration) or duration <= 0:
        raise error(f'{where} needs "vid", and "duration" in seconds')
    if WINDOWS[1] in line:
        check_windows(where, line, WINDOWS[1], '[start, end]', error)
        empty = [window for window in line[WINDOWS[1]] if window[0] == window[1]]
        if empty:
            raise error(f'{where} has the true window {empty[:1]}, which is empty')
    if SALIENCY[1] in line:
        _check_saliency(where, line, num_clips(duration), error)


def _check_saliency(where: str, line: dict, clips_there: int, error: Refuse) -> None:
    clips, scores = line.get('relevant_clip_ids'), line[SALIENCY[1]]
    if not (isinstance(clips, list) and isinstance(scores, list) and len(clips) == len(scores)):
        raise error(f'{where} needs as many "relevant_clip_ids" as "{SALIENCY[1]}"')
    if not clips_there:
        raise error(f'{where} has saliency of a video that is shorter than a clip of {CLIP} s')
    there = range(clips_there)
    wrong = [clip for clip in clips if type(clip) is not int or clip not in there]
    wrong = wrong or [clip for clip, count in Counter(clips).items() if count > 1]
    if wrong:
        raise error(
            f'{where}: "relevant_clip_ids" has {wrong[0]!r} twice, or it is none of the '
            f'{clips_there} clips of {CLIP} s, from 0'
        )
    for given in scores:
        listed = isinstance(given, list) and len(given) == ANNOTATORS
        if not (listed and all(is_number(score) and 0 <= score <= HIGHEST for score in given)):
            raise error(
                f'{where} has {given!r} in "{SALIENCY[1]}"; expected {ANNOTATORS} numbers from 0 '
                f'to {HIGHEST}'
            )
