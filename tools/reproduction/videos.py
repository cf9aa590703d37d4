"""What becomes of video files: damaged ones, long ones, real ones, those of Shapes."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .inference import DATA, checkpoint_of, split_of
from .long_videos import hits
from .renderers import spread, table
from .running import CONFIG, ROOT, alone, peak_mb, run, shared_folder

sys.path.insert(0, str(ROOT / 'tests'))  # the damaged videos are those of the tests

TOOL = ('-m', 'mmn', 'extract')
C3D = 'mmaction::recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py'
MINUTES = (1, 120)  # of the videos whose memory is compared


def videos(seeds: list[int]) -> dict:
    """Damaged videos one by one, memory for a short and a long one, seconds for real ones.

    And how often answers about the files of Shapes' test split are right.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        return dict(
            outcomes=_outcomes(folder),
            memory=[_memory(folder, minutes) for minutes in MINUTES],
            real=_real(folder),
            per_seed=[_shapes(seed, folder) for seed in seeds],
        )


def _outcomes(folder: Path) -> list[dict]:
    """All of the damaged videos in one run of the tool, with the grid extractor."""
    import h5py
    from helpers.bad_videos import VIDEOS, write_videos

    out, report = folder / 'bad.h5', folder / 'report.json'
    options = ('--out', out, '--json', report, '--workers', '1')
    subprocess.run(
        [sys.executable, *TOOL, write_videos(folder / 'bad'), *options], cwd=ROOT, check=False
    )
    found = json.loads(report.read_text())
    rows = []
    with h5py.File(out) as file:
        for what, (name, _) in VIDEOS.items():
            video = Path(name).stem
            message = found['failures'].get(video, '').replace(f'{folder}/bad/', '')
            notes = found['notes'].get(video, {})
            count = len(file[video]) if video in file else 0
            rows.append(dict(what=what, file=name, message=message, notes=notes, rows=count))
    return rows


def _memory(folder: Path, minutes: int) -> dict:
    """Growth of the peak memory of a process that describes a video."""
    from helpers.bad_videos import encode, picture

    path = folder / f'{minutes}_minutes.mp4'
    shown = [picture(i / 10, 128, 96) for i in range(10)]
    # two pictures per second that look like those of a lecture
    encode(path, _Frames(shown, minutes * 120), options=dict(preset='ultrafast'))
    return dict(minutes=minutes, **alone(describe, path, folder / 'long.h5'))


class _Frames:
    """Many times and frames, made as they are taken."""

    def __init__(self, shown: list, count: int) -> None:
        self.shown, self.count = shown, count

    def __getitem__(self, index: int) -> tuple:
        return 0.0, self.shown[0]

    def __iter__(self):
        for i in range(self.count):
            yield i / 2, self.shown[i % len(self.shown)]


def _real(folder: Path) -> list[dict]:
    """Real videos through the grid extractor and through C3D with random weights."""
    import h5py
    from helpers.tiny_extractors import save_weights

    import mmn_plugin  # noqa: F401
    from mmn_plugin.features.recognizer import RecognizerConfig

    save_weights(RecognizerConfig(C3D).model, folder / 'c3d.pth', 'backbone.')
    media = sorted((shared_folder() / 'media').glob('*.mp4'))
    rows = []
    for name, options in (
        ('shapes_grid', ()),
        ('c3d_fc6_sports1m', ('--checkpoint', folder / 'c3d.pth', '--device', 'cpu')),
    ):
        out, began = folder / f'{name}.h5', time.time()
        run(sys.executable, *TOOL, *media, '--config', name, '--out', out, *options)
        seconds = time.time() - began
        with h5py.File(out) as file:
            shapes = {video: list(file[video].shape) for video in file}
        rows.append(dict(extractor=name, seconds=seconds, shapes=shapes))
    return rows


def _shapes(seed: int, folder: Path) -> dict:
    """R@1, IoU=0.5 of the video files of the test split, and of tools/test.py on its features."""
    import mmn_plugin  # noqa: F401
    from mmn_plugin.apis import GroundingInferencer

    checkpoint, right = checkpoint_of(seed), []
    inferencer = GroundingInferencer(checkpoint=checkpoint, device='cpu')
    for video, entry in split_of('test').items():
        answers = inferencer(ROOT / DATA / f'videos/{video}.mp4', entry['sentences'])
        right += hits(answers, entry['timestamps'])
    work = folder / f'test{seed}'
    run(sys.executable, 'tools/test.py', CONFIG, checkpoint, '--work-dir', work, capture=True)
    metrics = json.loads(max(work.glob('*/*.json')).read_text())
    return dict(
        seed=seed,
        sentences=len(right),
        files=100 * statistics.fmean(right),
        test=metrics['grounding/R1@0.5'],
    )


def describe(video: Path, out: Path) -> dict:
    """Describe one video with the grid extractor; megabytes and seconds of the processor."""
    import mmn_plugin  # noqa: F401
    from mmn_plugin.features import extract_videos
    from mmn_plugin.shapes import GridFeatureExtractor

    before, began = peak_mb(), time.process_time()
    report = extract_videos(GridFeatureExtractor(), [video], out, workers=0)
    growth = peak_mb() - before
    assert not report.failures, report
    return dict(growth_mb=growth, seconds=time.process_time() - began)


def render_videos(result: dict) -> str:
    """Damaged videos, then memory."""
    rows = []
    for row in result['outcomes']:
        notes = '; '.join(f'{kind}: {details}' for kind, details in row['notes'].items())
        outcome = f'{row["rows"]} rows' if row['rows'] else 'named, the rest goes on'
        rows.append([row['what'], outcome, row['message'] or notes])
    short, long = result['memory']
    text = (
        f'Peak memory grew by {short["growth_mb"]:.0f} MB for a video of {short["minutes"]} '
        f'minute and by {long["growth_mb"]:.0f} MB for one of {long["minutes"]} minutes. '
    )
    files, test = (spread([row[key] for row in result['per_seed']]) for key in ('files', 'test'))
    text += (
        "Asked about the video files of Shapes' test split, the trained model's first "
        f'answers are right (IoU >= 0.5) for {files} % of the sentences; `tools/test.py` says '
        f'{test} %.'
    )
    return (
        table(['what is wrong (8 s of video, rows of 0.75 s)', 'features', 'said'], rows)
        + '\n\n'
        + text
    )
