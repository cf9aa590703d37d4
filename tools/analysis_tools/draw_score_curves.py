"""Draw a weakly-supervised model's scores over time, before and after its stages refine them.

    python tools/analysis_tools/draw_score_curves.py mscl_shapes.py CHECKPOINT --video shapes_01320

One panel per sentence of the video, with the ground truth behind the curves.
"""

import argparse

import torch
from mmengine.dataset import pseudo_collate

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.cli.command_line import build_dataset
from mmn_plugin.cli.main import add_config_options
from mmn_plugin.config import load_config
from mmn_plugin.datasets import grounds_tubes
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import OutputFolder, text_argument, writable_file
from mmn_plugin.visualization import GroundingVisualizer


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument('checkpoint', help='checkpoint trained with it (.pth)')
    parser.add_argument(
        '--split',
        choices=('val', 'test'),
        default='test',
        help='which data loader of the config (default: test)',
    )
    parser.add_argument(
        '--video', type=text_argument, help='id of the video (default: the first one)'
    )
    parser.add_argument(
        '--out',
        default='score_curves.png',
        type=writable_file,
        help='picture (default: score_curves.png)',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def find_video(dataset, video_id):
    """The dataset's sample of a video, None standing for the first.

    Raises:
        ValueError: there is no such video.
    """
    for index in range(len(dataset)):
        if video_id in (None, dataset.get_data_info(index)['video_id']):
            return dataset[index]
    raise InputError(f'{dataset.ann_file} has no video {video_id!r}')


@torch.inference_mode()
def stage_curves(model, batch):
    """Curves (s, N) of a video before any refinement and after each stage."""
    data = model.data_preprocessor(batch)
    embeddings, sentences = model(**data, mode='tensor')
    curves = []
    for stage in model.head.stages:
        (video,) = model.head.split(dict(contrastive=embeddings[stage]), data['data_samples'])
        curves.append(model.head.curve(video, model.head.score(video, sentences)))
    return curves


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with plain_errors():
        folder, files = OutputFolder(args.out.parent), {args.out.name: None}
        folder.claim(files)
        config = load_config(args.config, args.cfg_options)
        dataset = build_dataset(config, args.split)
        batch = pseudo_collate([find_video(dataset, args.video)])
        model = load_model(config, args.checkpoint, 'cpu')
        if not model.head.stages:
            what, tool = (
                ('cells of tubes', 'tubes with tools/test.py --show-dir')
                if grounds_tubes(config)
                else ('moments', 'moment maps with `mmn ground`')
            )
            raise InputError(
                f'{args.config} is of a {type(model).__name__}, which scores {what} '
                f'and not clips: draw {tool}'
            )
        stages = stage_curves(model, batch)
        curves = (
            dict(score=stages[0])
            if len(stages) == 1
            else {'before refinement': stages[0], 'after refinement': stages[-1]}
        )
        image = GroundingVisualizer().draw_score_curves(batch['data_samples'][0], curves)
        with folder.writing(files):
            GroundingVisualizer.save_image(image, args.out)
        print(args.out)


if __name__ == '__main__':
    main()
