"""Labels that a person should look at before they are trusted."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from mmaction.registry import MODELS

from mmn_plugin.hub import is_local
from mmn_plugin.structures.annotations import ROUNDING, VideoAnnotation, as_windows, normalized_text

from .check_report import CheckReport
from .label_text import tells_repetition, told_apart

SAME_MEANING = 0.94  # cosine of vectors; docs/data.md tells how it was chosen
SAME_TIME = 0.5  # IoU from which on sentences do not differ in time
NEARLY_ALL = 0.9  # share of a video: the whole of it has an IoU of 0.9 with such a window
CHUNK = 1024  # sentences between two steps of the progress

KINDS = dict(
    same_meaning='sentences of one video that mean the same at different times',
    several_moments='sentences with one window, of several moments by their text',
    whole_video='sentences whose windows cover the video',
    past_end='windows that end after the video',
)


@dataclass
class LabelGroup:
    """Sentences of one video that one finding is about.

    Attributes:
        video (VideoAnnotation): These sentences alone. Windows that end after the video do so here
            too.
        unlike (list[int]): For each sentence the place of one in ``video`` that means the same at
            another time; empty for the other kinds.
    """

    video: VideoAnnotation
    unlike: list[int] = field(default_factory=list)

    def examples(self) -> list[str]:
        """A text for each sentence: which it is, and its times."""
        video = self.video
        texts = [
            f'sentence {index} ({sentence!r}), {told_times(windows)}'
            for index, sentence, windows in zip(
                video.sentence_index, video.sentences, video.windows, strict=True
            )
        ]
        ends = [f'; but {texts[other]}' for other in self.unlike]
        ends = ends or [f' of {video.duration:.9g} s'] * len(texts)
        return [
            f'video {video.video_id!r}, {text}{end}' for text, end in zip(texts, ends, strict=True)
        ]

    def offenders(self) -> list[dict]:
        """The same as plain data."""
        video = self.video
        rows = zip(video.sentence_index, video.sentences, video.windows, strict=True)
        return [
            dict(video_id=video.video_id, sentence_index=index, sentence=text, windows=windows)
            for index, text, windows in rows
        ]


def told_times(windows: Sequence[tuple[float, float]]) -> str:
    """Windows as a text."""
    spans = ', '.join(f'{start:.1f} to {end:.1f} s' for start, end in windows)
    return spans or 'does not occur'


@dataclass
class SplitLabels:
    """What there is to look at in a split.

    - ``same_meaning``: sentences of one video that mean the same, and whose windows have an IoU
      below `SAME_TIME`. Texts that are equal but for case and punctuation mean the same; with a
      tower also sentences whose vectors have a cosine of `SAME_MEANING`, unless a word tells them
      apart (`told_apart`).
    - ``several_moments``: sentences with one window that are true of several moments by their text
      (`tells_repetition`).
    - ``whole_video``: sentences whose windows cover `NEARLY_ALL` of the video.
    - ``past_end``: windows that end after the video, as annotated.

    Attributes:
        videos (list[VideoAnnotation]): All videos.
        groups (dict[str, list[LabelGroup]]): By kind.
    """

    videos: list[VideoAnnotation]
    groups: dict[str, list[LabelGroup]]

    @property
    def num_sentences(self) -> int:
        """Of all videos."""
        return sum(len(video.sentences) for video in self.videos)

    def figures(self) -> dict[str, dict]:
        """Kind -> ``count`` of sentences, ``share`` of all, and ``offenders`` as plain data."""
        found = {}
        for kind, groups in self.groups.items():
            offenders = [row for group in groups for row in group.offenders()]
            share = len(offenders) / self.num_sentences
            found[kind] = dict(count=len(offenders), share=share, offenders=offenders)
        return found

    def subsets(self) -> dict[str, dict[str, list[int]]]:
        """Sentences by kind as `GroundingMetric.subsets`, and those of none as ``no_finding``."""
        found = {kind: _indices(group.video for group in g) for kind, g in self.groups.items()}
        every, rest = _indices(self.videos), {}
        for video_id, indices in every.items():
            flagged = {index for videos in found.values() for index in videos.get(video_id, ())}
            if left := [index for index in indices if index not in flagged]:
                rest[video_id] = left
        return {name: videos for name, videos in {**found, 'no_finding': rest}.items() if videos}


def _indices(videos: Iterable[VideoAnnotation]) -> dict[str, list[int]]:
    """Video -> places of its sentences in the annotation file, rising."""
    found = defaultdict(set)
    for video in videos:
        found[video.video_id].update(video.sentence_index)
    return {video_id: sorted(indices) for video_id, indices in found.items()}


def look_at_labels(
    videos: Sequence[VideoAnnotation],
    tower=None,
    track: Callable = lambda items, text: items,
    past_end: Sequence[LabelGroup] = (),
) -> SplitLabels:
    """Look for labels that a person should look at.

    Args:
        videos (Sequence[VideoAnnotation]): With windows.
        tower (SentenceTower, optional): Embeds sentences. Defaults to None: text alone decides.
        track (Callable): Wraps an iterable to show progress, given a description. Defaults to none.
        past_end (Sequence[LabelGroup]): Of whoever has the times as annotated. Defaults to none.
    """
    vectors = _vectors(videos, tower, track)
    found = {kind: [] for kind in KINDS} | dict(past_end=list(past_end))
    for video in videos:
        found['same_meaning'] += disagreements(video, vectors)
        labels = list(zip(video.sentences, video.windows, strict=True))
        several = [len(windows) == 1 and tells_repetition(text) for text, windows in labels]
        whole = [covered(windows) >= NEARLY_ALL * video.duration for _, windows in labels]
        for kind, flags in (('several_moments', several), ('whole_video', whole)):
            if any(flags):
                found[kind].append(LabelGroup(taken(video, np.flatnonzero(flags).tolist())))
    return SplitLabels(list(videos), found)


def _vectors(videos: Sequence[VideoAnnotation], tower, track: Callable) -> dict[str, np.ndarray]:
    """Unit vectors of the sentences that are not alone in their video."""
    if tower is None:
        return {}
    wanted = dict.fromkeys(
        text for video in videos if len(video.sentences) > 1 for text in video.sentences
    )
    inspected = zip(wanted, tower.inspect([*wanted]), strict=True)
    usable = [text for text, (_, problem) in inspected if problem is None]
    found = {}
    for begin in track(range(0, len(usable), CHUNK), 'meaning of sentences'):
        part = usable[begin : begin + CHUNK]
        found.update(zip(part, tower.encode_sentences(part).cpu().numpy(), strict=True))
    return found


def taken(video: VideoAnnotation, places: Sequence[int]) -> VideoAnnotation:
    """A video with some of its sentences."""
    columns = {
        name: [getattr(video, name)[place] for place in places]
        for name in ('windows', 'sentences', 'sentence_index')
    }
    return replace(video, **columns)


def covered(windows: Iterable[tuple[float, float]]) -> float:
    """Seconds of the union of windows."""
    total = last = 0.0
    for start, end in sorted(windows):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


def windows_iou(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    """IoU of the unions of windows; 1 of two sentences that do not occur."""
    union = covered(one + other)
    return (covered(one) + covered(other) - union) / union if union else 1.0


def same_meaning(
    sentences: Sequence[str], vectors: Mapping[str, np.ndarray]
) -> list[tuple[int, int]]:
    """Places of the pairs that mean the same, first < second."""
    places = defaultdict(list)
    for place, sentence in enumerate(sentences):
        places[normalized_text(sentence)].append(place)
    places.pop('', None)
    pairs = {pair for own in places.values() for pair in combinations(own, 2)}
    there = [place for place, sentence in enumerate(sentences) if sentence in vectors]
    if there:
        known = np.stack([vectors[sentences[place]] for place in there])
        for i, j in np.argwhere(np.triu(known @ known.T >= SAME_MEANING, 1)).tolist():
            first, second = there[i], there[j]
            if not told_apart(sentences[first], sentences[second]):
                pairs.add((first, second))
    return sorted(pairs)


def disagreements(
    video: VideoAnnotation, vectors: Mapping[str, np.ndarray] | None = None
) -> list[LabelGroup]:
    """Groups of sentences that mean the same; each differs in time from another of its group.

    Args:
        video (VideoAnnotation): With windows.
        vectors (Mapping[str, np.ndarray], optional): Unit vector of a sentence, for those that have
            one. Defaults to none: text alone decides.
    """
    others = defaultdict(dict)  # of a place: those that it disagrees with, and the IoU
    for i, j in same_meaning(video.sentences, vectors or {}):
        iou = windows_iou(video.windows[i], video.windows[j])
        if iou < SAME_TIME:
            others[i][j] = others[j][i] = iou
    groups, left = [], sorted(others)
    while left:
        members, new = set(), {left[0]}
        while new:
            members |= new
            new = {other for place in new for other in others[place]} - members
        left = [place for place in left if place not in members]
        places = sorted(members, key=lambda place: (video.windows[place], place))
        worst = [min(others[place], key=others[place].get) for place in places]
        groups.append(LabelGroup(taken(video, places), [places.index(other) for other in worst]))
    return groups


def past_end(video: VideoAnnotation, entry: dict) -> LabelGroup | None:
    """Sentences with a window that ends after the video, with the times as annotated.

    Args:
        video (VideoAnnotation): As it was read, with windows.
        entry (dict): Its value in the annotation file; nothing is found where it has no
            ``timestamps``, or where other sentences were dropped than those without a usable
            window.
    """
    if not isinstance(entry, Mapping) or 'timestamps' not in entry:
        return None
    unit = entry.get('fps', 1) if 'num_frames' in entry else 1
    annotated = map(as_windows, entry['timestamps'])
    usable = [own for own in annotated if not own or any(start < end for start, end in own)]
    late = {}
    for place, own in enumerate(usable if len(usable) == len(video.sentences) else ()):
        if any(end / unit > video.duration + ROUNDING for _, end in own):
            late[place] = [(start / unit, end / unit) for start, end in own]
    return LabelGroup(replace(taken(video, [*late]), windows=[*late.values()])) if late else None


def local_tower(model: Mapping, quick: bool = False) -> tuple[object | None, str]:
    """What embeds sentences of a config's model, if its weights are on this machine.

    Args:
        model (Mapping): ``tower``, or ``text_encoder`` with a frozen language model of
            `transformers`, whose mean over tokens is taken.
        quick (bool): Do without. Defaults to False.

    Returns:
        tuple[SentenceTower | None, str]: The tower, and what says what sentences mean.
    """
    settings, encoder = model.get('tower'), model.get('text_encoder') or {}
    if settings is None and encoder.get('frozen') and encoder.get('name_or_path'):
        settings = dict(type='TextTower', model=encoder['name_or_path'], pooling='mean')
    if quick or settings is None:
        why = 'quick' if quick else 'the config has no tower and no frozen language model'
        return None, f'their texts alone ({why})'
    try:
        tower = MODELS.build(settings)
        if is_local(tower.name, tower.root, tower.revision):
            return tower, f'their texts, and vectors of {tower.name}'
        return None, f'their texts alone (the weights of {tower.name} are not on this machine)'
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as mistake:
        reason = str(mistake).partition('\n')[0]
        return None, f'their texts alone (the tower cannot be used: {reason})'


def check_labels(
    parts: Mapping[str, tuple[list[VideoAnnotation], list[LabelGroup]]],
    report: CheckReport,
    model: Mapping,
    quick: bool,
    track: Callable,
) -> None:
    """Put what there is to look at in each split into the report of a check.

    Windows past the end are a finding already, of the annotations, and none is made of them.

    Args:
        parts (Mapping[str, tuple]): Split -> its videos with windows, and those of them with
            windows past their end.
        report (CheckReport): Takes what is found.
        model (Mapping): As of `local_tower`.
        quick (bool): As of `local_tower`.
        track (Callable): As of `look_at_labels`.
    """
    tower, report.compared_by = local_tower(model, quick)
    for split, (videos, late) in parts.items():
        if not videos:
            continue
        report.labels[split] = labels = look_at_labels(videos, tower, track, late)
        total = labels.num_sentences
        for kind, groups in labels.groups.items():
            for group in groups if kind != 'past_end' else ():
                for example in group.examples():
                    report.add('info', split, KINDS[kind], example, total)
