"""What inference reaches for sentences that do not occur, in short videos and in long ones."""

import random
import statistics
from contextlib import chdir

from .inference import inferencer_of, split_of
from .long_videos import joined_tests
from .renderers import spread, table
from .running import ROOT

LENGTHS = (10, 30)  # videos of 24 s in a row


def absence(seeds: list[int]) -> dict:
    """Present against absent sentences on Shapes' test videos, alone and many in a row."""
    models = {seed: inferencer_of(seed) for seed in seeds}
    rows = [absence_of(seed, model) for seed, model in models.items()]
    for length in LENGTHS:
        joined = list(joined_tests(length, models[seeds[0]].extractor))
        for row in rows:
            row['lengths'][length] = absence_in_long(models[row['seed']], joined)
    return dict(per_seed=rows)


def absence_of(seed: int, model) -> dict:
    """Threshold from validation; AUROC and shares on test, where what happens is known."""
    from mmaction.registry import DATASETS

    from mmn_plugin.apis.presence import auroc, calibrate_presence, measure_presence

    result = dict(seed=seed, lengths={})
    with chdir(ROOT):  # paths of configs start there
        validation = DATASETS.build(model.config.val_dataloader.dataset)
        test = DATASETS.build(model.config.test_dataloader.dataset)
        result['validation'] = calibrate_presence(model, validation)
        for kind in ('any', 'near'):
            present, absent = measure_presence(model, test, absent_sentences(kind))
            result[kind] = dict(
                present=len(present),
                absent=len(absent),
                auroc=auroc(present, absent),
                present_kept=float((present >= model.presence_threshold).mean()),
                absent_kept=float((absent >= model.presence_threshold).mean()),
            )
    return result


def absence_in_long(model, joined: list[tuple]) -> dict:
    """Shares kept in videos of several windows: by the threshold for them, and by that of one."""
    from mmn_plugin.apis.presence import auroc

    kept, found = {}, dict(present=[], absent=[])
    for features, asked, happening in joined:
        (encoded,) = model.video_encoder([features])
        for kind, sentences in (
            ('present', [item['sentence'] for item in asked]),
            ('absent', absent_from(happening)),
        ):
            sample = model.predict(encoded, sentences)
            presence = sample.pred_instances.presence.tolist()
            found[kind] += presence
            for name, threshold in (
                ('kept', model.threshold_of(sample)),
                ('kept_by_one_threshold', model.presence_threshold),
            ):
                kept.setdefault(f'{kind}_{name}', []).extend(p >= threshold for p in presence)
    return dict(
        windows=encoded.num_windows,
        threshold=model.threshold_of(sample),
        present=len(found['present']),
        absent=len(found['absent']),
        auroc=auroc(**found),
        **{name: statistics.fmean(values) for name, values in kept.items()},
    )


def described() -> list[tuple[tuple, str]]:
    """Color, shape and action of every event of the test split, with its sentence; each once."""
    return sorted(
        {
            (event.combination, sentence)
            for entry in split_of('test').values()
            for event, sentence in zip(entry['events'], entry['sentences'], strict=True)
        }
    )


def absent_from(happening: set[tuple]) -> list[str]:
    """The test split's sentences whose color, shape and action never occur together."""
    return sorted({text for combination, text in described() if combination not in happening})


def absent_sentences(kind: str) -> dict[str, list[str]]:
    """16 sentences of other test videos whose color, shape and action never occur together.

    ``near``: they differ from something that does happen in one of the three alone.
    """
    known, rng, result = described(), random.Random(0), {}
    for name, entry in split_of('test').items():
        own = {event.combination for event in entry['events']}
        fitting = [
            sentence
            for combination, sentence in known
            if combination not in own
            and (kind == 'any' or any(differences(combination, other) == 1 for other in own))
        ]
        result[name] = rng.sample(fitting, min(len(fitting), 16))
    return result


def differences(first: tuple, second: tuple) -> int:
    """In how many of color, shape and action two events differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))


def render_absence(result: dict) -> str:
    """AUROC and what the threshold of validation keeps, in one window and in several."""
    per_seed = result['per_seed']
    names = dict(
        any='never occur in the video',
        near='differ from what occurs in color, shape or action alone',
    )
    rows = [
        [label, *shares([seed[kind] for seed in per_seed], 'auroc', 'present_kept', 'absent_kept')]
        for kind, label in names.items()
    ]
    text = table(['absent sentences that', 'AUROC, %', 'present kept, %', 'absent kept, %'], rows)
    keys = 'present_kept', 'absent_kept'
    rows = [['24 s', '1', *2 * shares([seed['any'] for seed in per_seed], *keys)]]
    for length in per_seed[0]['lengths']:
        values = [seed['lengths'][length] for seed in per_seed]
        figures = shares(values, *keys, *(f'{key}_by_one_threshold' for key in keys))
        rows.append([f'{int(length) * 24 / 60:g} min', str(values[0]['windows']), *figures])
    header = ['video', 'windows', 'present kept, %', 'absent kept, %']
    header += ['present kept by the threshold of 24 s, %', 'absent kept by it, %']
    return f'{text}\n\n{table(header, rows)}'


def shares(values: list[dict], *keys: str) -> list[str]:
    """Means over the seeds, in percent."""
    return [spread([100 * value[key] for value in values]) for key in keys]
