"""Score a submission of spatio-temporal grounding, without the model.

    python tools/analysis_tools/eval_tubes.py ANSWERS.json TRUTH

ANSWERS.json is what ``tools/test.py --submission`` writes, in the format of the HC-STVG challenge;
TRUTH is the dataset's annotation JSON, or a tube file (.h5). A video without an answer counts as 0.
"""
import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets.tubes import TubeError, TubeFile, read_hcstvg_annotations
from mmn_plugin.evaluation import TubeResult, read_submission, score_submission


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('answers', help='submission (.json)')
    parser.add_argument('truth', type=Path, help='annotation JSON, or tube file (.h5)')
    parser.add_argument('--iou', type=float, nargs='+', default=[0.3, 0.5],
                        help='R of vIoU@R (0.3 0.5)')
    parser.add_argument('--json', type=Path, dest='out', help='also write the figures to this file')
    return parser.parse_args(argv)


def read_truth(path: Path) -> dict[str, np.ndarray]:
    """True tubes by the names that a submission uses.

    Raises:
        TubeError: If there are none.
    """
    if path.suffix == '.json':
        tubes = {video: tube for video, (_, tube) in read_hcstvg_annotations(path).items()
                 if tube is not None}
    else:
        file, tubes = TubeFile(path), {}
        for video_id in file.video_ids():
            video = file.read(video_id)
            index = list(range(len(video.sentences)))
            names = TubeResult(video_id, index, video.sentences, [], []).names
            tubes.update(zip(names, video.ground_truth, strict=bool(video.ground_truth)))
    if not tubes:
        raise TubeError(f'{path} holds no ground truth')
    return tubes


def main(argv: list[str] | None = None) -> int:
    """Run the tool; 1 if the files cannot be scored, else 0."""
    args = parse_args(argv)
    try:
        answers, truth = read_submission(args.answers), read_truth(args.truth)
        figures = score_submission(answers, truth, args.iou)
    except (OSError, ValueError) as error:
        print(f'error: {args.answers} against {args.truth}: {error}', file=sys.stderr)
        return 1
    figures = {f'tubes/{name}': 100 * value for name, value in figures.items()}
    print(f'{len(truth)} true tubes, {len(answers)} answers; figures in percent')
    for name, value in figures.items():
        print(f'{name:<16}{value:.2f}')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
