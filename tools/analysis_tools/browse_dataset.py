"""Look at samples as the model gets them: sentences, and the ground truth on the moment map.

    python tools/analysis_tools/browse_dataset.py mmn_shapes.py --split train --out browse

Each picture is the IoU of every moment of the grid with one sentence's ground truth: what the IoU
loss is taught, and how near the grid can come at all. Samples of a dataset with weak=True have no
ground truth, so they are listed and not drawn. Of tubes it is the spatio-temporal IoU of every cell
of the candidate that comes nearest, and a second picture shows its boxes beside the true ones.
"""

import argparse
import sys

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.cli.command_line import build_dataset
from mmn_plugin.cli.main import add_config_options
from mmn_plugin.config import load_config
from mmn_plugin.datasets import grounds_tubes
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import OutputFolder, input_of
from mmn_plugin.structures import MomentGrid, cell_iou
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.tubes import draw_tube_frames


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        default='train',
        help='which data loader of the config (default: train)',
    )
    parser.add_argument(
        '--number', type=int, default=3, help='videos, evenly spaced over the dataset (default: 3)'
    )
    parser.add_argument(
        '--max-sentences', type=int, default=4, help='sentences a video that are drawn (default: 4)'
    )
    parser.add_argument(
        '--out',
        default='browse',
        type=OutputFolder,
        help='folder for the pictures (default: browse)',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def grid_of(model):
    """The moments that a model of this config tells apart."""
    if 'grid' in model:
        return MomentGrid(**model.grid)
    return MomentGrid(model.num_clips, [model.num_clips - 1])  # any run of clips, see MSCL


def browse_sample(packed, grid, args, visualizer, table, source):
    """List and draw the sentences of one sample; ``source`` tells its dataset from others."""
    sample = packed['data_samples']
    source = f'{source}::{sample.video_id}'
    truth = 'gt_instances' in sample
    if truth:
        overlaps = grid.iou(sample.gt_instances.moments, sample.duration)  # (s, P)
    for i, sentence in enumerate(sample.sentences):
        moment = sample.gt_instances.moments[i] if truth else None
        table.add_row(
            escape(sample.video_id) if i == 0 else '',
            f'{sample.duration:.1f}' if i == 0 else '',
            'x'.join(map(str, packed['inputs'].shape)) if i == 0 else '',
            escape(sentence),
            *(
                ('{:.2f} - {:.2f}'.format(*moment.tolist()), f'{overlaps[i].max():.2f}')
                if truth
                else ('unknown', '')
            ),
        )
        if truth and i < args.max_sentences:
            image = visualizer.draw_moment_map(
                grid,
                overlaps[i],
                moment,
                duration=sample.duration,
                title=f'“{sentence}”',
                label='IoU with the ground truth',
            )
            (name,) = args.out.names_of([(source, sample.video_id)])
            file = f'{name}_{sample.sentence_index[i]}.png'
            with args.out.writing({file: source}) as folder:
                visualizer.save_image(image, folder / file)
    table.add_section()


def browse_tubes(packed, grid, args, visualizer, table, source):
    """List and draw the sentences of one sample with tubes; see `browse_sample`."""
    sample = packed['data_samples']
    source = f'{source}::{sample.video_id}'
    for i, sentence in enumerate(sample.sentences):
        cells = ['unknown', '']
        if 'gt_instances' in sample:
            truth, best = sample.gt_instances.tubes[i], 0.0
            if sample.tubes:
                overlaps = cell_iou(grid, sample.tubes, truth)  # (T, P)
                best = overlaps.max()
            cells = [f'{truth[0, 0]:.0f} - {truth[-1, 0]:.0f}', f'{best:.2f}']
            if sample.tubes and i < args.max_sentences:
                (name,) = args.out.names_of([(source, sample.video_id)])
                files = [f'{name}_{i}.png', f'{name}_{i}_boxes.png']
                with args.out.writing(dict.fromkeys(files, source)) as folder:
                    for file, image in zip(
                        files, draw_tubes(sample, i, overlaps, grid, visualizer), strict=True
                    ):
                        visualizer.save_image(image, folder / file)
        table.add_row(
            escape(sample.video_id) if i == 0 else '',
            str(len(sample.tubes)) if i == 0 else '',
            'x'.join(map(str, packed['inputs'].shape)) if i == 0 else '',
            escape(sentence),
            *cells,
        )
    table.add_section()


def draw_tubes(sample, i, overlaps, grid, visualizer):
    """The IoU of the best tube's cells with the truth, and its boxes beside the true ones."""
    place, cell = np.unravel_index(overlaps.argmax(), overlaps.shape)
    tube, sentence = sample.tubes[place], sample.sentences[i]
    yield visualizer.draw_moment_map(
        grid,
        overlaps[place],
        grid.spans(len(tube))[cell],
        duration=len(tube),
        unit='boxes',
        title=f'“{sentence}”, tube {place} of {len(sample.tubes)}',
        label='vIoU with the ground truth',
    )
    yield draw_tube_frames(None, f'“{sentence}”, tube {place}', tube, sample.gt_instances.tubes[i])


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with plain_errors():
        if args.number < 1:
            raise InputError(f'--number {args.number}: it must be at least 1')
        config = load_config(args.config, args.cfg_options)
        dataset = build_dataset(config, args.split)
        grid, visualizer = grid_of(config.model), GroundingVisualizer()
        tubes = grounds_tubes(config)
        browse = browse_tubes if tubes else browse_sample
        columns = (
            ('tubes', 'truth (frames)', 'best vIoU')
            if tubes
            else ('seconds', 'truth (s)', 'best IoU')
        )
        number = min(args.number, len(dataset))
        table = Table(
            title=f'{number} of the {len(dataset)} videos of {args.split}',
            title_justify='left',
            caption=f'pictures in {escape(str(args.out.path))}/',
        )
        for name in ('video', columns[0], 'features', 'sentence', *columns[1:]):
            table.add_column(
                name,
                justify='left' if name in ('video', 'sentence') else 'right',
                no_wrap=name != 'sentence',
            )
        for i in range(number):
            browse(
                dataset[i * len(dataset) // number],
                grid,
                args,
                visualizer,
                table,
                input_of(dataset.ann_file),
            )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == '__main__':
    main()
