"""Find which tube of a video a sentence describes, and when.

    python tools/ground_tubes.py VIDEO "a red circle grows" --config mmn_shapes_tubes.py \\
        --checkpoint CKPT --out DIR

Without --tracks the config's tracker finds the tubes. With --out also writes, per sentence, a
picture, a video with the box drawn and the sentence below, and DIR/VIDEO_tubes.json with all
answers (the challenge's format, under VIDEO#0, VIDEO#1, ...). What was written is listed in
DIR/.mmn_outputs.json; nothing else is replaced, and another video of the same name gets VIDEO-2.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmn_plugin  # noqa: F401, I001  first, since it makes the rest importable

from mmn_plugin.apis import TubeGroundingInferencer
from mmn_plugin.datasets import read_tracks
from mmn_plugin.errors import plain_errors
from mmn_plugin.evaluation import write_submission
from mmn_plugin.files import OutputFolder
from mmn_plugin.files import input_of
from mmn_plugin.files import printable
from mmn_plugin.files import text_argument
from mmn_plugin.visualization.tubes import draw_tube_frames
from mmn_plugin.visualization.tubes import write_tube_video


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('video', help='video file')
    parser.add_argument('sentences', nargs='+', type=text_argument, help='what to look for')
    parser.add_argument(
        '--config', required=True, help='path of a config, or the name of one of mmn_plugin'
    )
    parser.add_argument('--checkpoint', required=True, help='checkpoint trained with it (.pth)')
    parser.add_argument(
        '--tracks',
        metavar='FILE',
        help='tubes of any detector and tracker: JSON {video: [[[frame, x1, y1, '
        'x2, y2], ...], ...]}, or a tube file (.h5)',
    )
    parser.add_argument(
        '--out', type=OutputFolder, help='folder for pictures, videos and the JSON file'
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    return parser.parse_intermixed_args(argv)


def claim(args) -> tuple[str, dict]:
    """What the files' names begin with, and which may be written; see `OutputFolder`."""
    source = input_of(args.video)
    (name,) = args.out.names_of([(source, printable(Path(args.video).stem))])
    ends = [f'_{i}.{kind}' for i in range(len(args.sentences)) for kind in ('png', 'mp4')]
    files = {f'{name}{end}': source for end in (*ends, '_tubes.json')}
    args.out.claim(files)
    return name, files


def write(args, name, answers) -> None:
    """Pictures, videos and JSON of the answers."""
    from PIL import Image

    out, stem = args.out.path, Path(args.video).stem
    for i, answer in enumerate(answers):
        picture = draw_tube_frames(args.video, answer['sentence'], answer['tube'])
        Image.fromarray(picture).save(out / f'{name}_{i}.png')
        write_tube_video(args.video, out / f'{name}_{i}.mp4', answer['sentence'], answer['tube'])
    write_submission(
        out / f'{name}_tubes.json',
        {f'{stem}#{i}': answer['tube'] for i, answer in enumerate(answers)},
    )
    print(f'written to {out}')


def main(argv=None) -> None:
    """Ground and show."""
    args = parse_args(argv)
    with plain_errors():
        name, files = claim(args) if args.out else (None, {})
        inferencer = TubeGroundingInferencer(args.config, args.checkpoint, args.device)
        tubes = (
            read_tracks(args.tracks, Path(args.video).name, inferencer.streams)
            if args.tracks
            else None
        )
        answers = inferencer(args.video, args.sentences, tubes)
        for answer in answers:
            if answer['span'] is None:
                print(f'{answer["sentence"]}: there is no tube in this video')
                continue
            start, end = answer['span']
            box = ', '.join(f'{value:.0f}' for value in answer['tube'][0, 1:])
            print(
                f'{answer["sentence"]}: tube {answer["tube_index"]}, {start:.2f} - {end:.2f} s, '
                f'first box [{box}], score {answer["score"]:.3f}'
            )
        if args.out:
            with args.out.writing(files):
                write(args, name, answers)


if __name__ == '__main__':
    main()
