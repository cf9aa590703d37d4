"""Score a submission of spatio-temporal grounding, without the model.

    python tools/analysis_tools/eval_tubes.py ANSWERS.json TRUTH

ANSWERS.json is what ``tools/test.py --submission`` writes, in the format of the HC-STVG challenge;
TRUTH is the dataset's annotation JSON, or a tube file (.h5). A video without an answer counts as 0;
impossible answers (a frame twice, a box that ends before it begins, ...) are refused by name.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets import TubeError, TubeFile, read_hcstvg_annotations
from mmn_plugin.evaluation import TubeResult, read_submission, score_submission
from mmn_plugin.files import writable_file, write_json


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('answers', help='submission (.json)')
    parser.add_argument('truth', type=Path, help='annotation JSON, or tube file (.h5)')
    parser.add_argument(
        '--iou', type=float, nargs='+', default=[0.3, 0.5], help='R of vIoU@R (0.3 0.5)'
    )
    parser.add_argument(
        '--json', type=writable_file, dest='out', help='also write the figures to this file'
    )
    return parser.parse_args(argv)


def read_truth(path: Path) -> dict[str, np.ndarray]:
    """True tubes by the names that a submission uses.

    Raises:
        TubeError: If there are none.
    """
    if path.suffix == '.json':
        tubes = {
            video: tube
            for video, (_, tube) in read_hcstvg_annotations(path).items()
            if tube is not None
        }
    else:
        file = TubeFile(path)
        videos = map(file.read, file.video_ids())
        tubes = TubeResult.by_name(
            (
                TubeResult(
                    video.video_id, video.sentence_index, video.sentences, video.ground_truth, []
                )
                for video in videos
                if video.ground_truth
            ),
            'ground_truth',
        )
    if not tubes:
        raise TubeError(f'{path} holds no ground truth')
    return tubes


def main(argv: list[str] | None = None) -> int:
    """Run the tool; 1 if the files cannot be scored, else 0."""
    args = parse_args(argv)
    try:
        answers, truth = read_submission(args.answers), read_truth(args.truth)
        figures = score_submission(answers, truth, args.iou)
        figures = {f'tubes/{name}': 100 * value for name, value in figures.items()}
        if args.out:
            write_json(figures, args.out)
    except (OSError, ValueError) as error:
        print(f'error: {args.answers} against {args.truth}: {error}', file=sys.stderr)
        return 1
    print(f'{len(truth)} true tubes, {len(answers)} answers; figures in percent')
    missing = sorted(truth.keys() - answers.keys())
    if missing:
        print(
            f'{len(missing)} without an answer count as 0: {", ".join(missing[:3])}'
            f'{", ..." if len(missing) > 3 else ""}'
        )
    for name, value in figures.items():
        print(f'{name:<16}{value:.2f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
