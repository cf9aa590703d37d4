"""Look at samples as the model gets them: sentences, and the ground truth on the moment map.

    python tools/analysis_tools/browse_dataset.py mmn_shapes.py --split train --out browse

Each picture is the IoU of every moment of the grid with one sentence's ground truth: what the IoU
loss is taught, and how near the grid can come at all. Samples of a dataset with weak=True have no
ground truth, so they are listed and not drawn. Of tubes it is the spatio-temporal IoU of every cell
of the candidate that comes nearest, and a second picture shows its boxes beside the true ones.
"""

import argparse
import sys
from functools import partial

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.datasets import grounds_tubes
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import OutputFolder, input_of
from mmn_plugin.structures import MomentGrid, TubeDataSample, cell_iou
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.tubes import draw_tube_frames


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__, config=True)
    add = parser.add_argument
    splits, text = ('train', 'val', 'test'), 'which data loader of the config (default: train)'
    add('--split', choices=splits, default='train', help=text)
    text = 'videos, evenly spaced over the dataset (default: 3)'
    add('--number', type=int, default=3, help=text)
    text = 'sentences a video that are drawn (default: 4)'
    add('--max-sentences', type=int, default=4, help=text)
    text = 'folder for the pictures (default: browse)'
    add('--out', default='browse', type=OutputFolder, help=text)
    return parser.parse_args()


def grid_of(model: dict) -> MomentGrid:
    """The moments that a model of this config tells apart."""
    if 'grid' in model:
        return MomentGrid(**model.grid)
    return MomentGrid(model.num_clips, [model.num_clips - 1])  # any run of clips, see MSCL


class Browser:
    """Lists samples in a table and draws them.

    Args:
        args (argparse.Namespace): The command line.
        config (Config): Whose model tells the grid.
        table (Table): Gets a row for each sentence.
    """

    def __init__(self, args: argparse.Namespace, config, table: Table):
        self.args, self.table = args, table
        self.grid, self.visualizer = grid_of(config.model), GroundingVisualizer()

    def browse(self, packed: dict, source: str) -> None:
        """List and draw the sentences of one sample; ``source`` tells its dataset from others."""
        sample, source = packed['data_samples'], f'{source}::{packed["data_samples"].video_id}'
        tubes = isinstance(sample, TubeDataSample)
        size = str(len(sample.tubes)) if tubes else f'{sample.duration:.1f}'
        first = [escape(sample.video_id), size, 'x'.join(map(str, packed['inputs'].shape))]
        for i, sentence in enumerate(sample.sentences):
            truth, best, pictures = 'unknown', '', []
            if 'gt_instances' in sample:
                truth, best, pictures = (self.tube if tubes else self.moment)(sample, i)
            self.table.add_row(*(first if i == 0 else [''] * 3), escape(sentence), truth, best)
            if pictures and i < self.args.max_sentences:
                (name,) = self.args.out.names_of([(source, sample.video_id)])
                ends = ('', '_boxes')[: len(pictures)]
                files = [f'{name}_{sample.sentence_index[i]}{end}.png' for end in ends]
                with self.args.out.writing(dict.fromkeys(files, source)) as folder:
                    for file, draw in zip(files, pictures, strict=True):
                        self.visualizer.save_image(draw(), folder / file)
        self.table.add_section()

    def moment(self, sample, i: int) -> tuple[str, str, list]:
        """Truth and best IoU of a sentence as text, and what draws its map."""
        windows = sample.windows[i]  # (W, 2)
        if not len(windows):
            return 'does not occur', '', []
        overlaps = self.grid.best_iou([windows], sample.duration)[0]  # (P,)
        draw = partial(
            self.visualizer.draw_moment_map,
            self.grid,
            overlaps,
            windows,
            duration=sample.duration,
            title=f'“{sample.sentences[i]}”',
            label='IoU with the ground truth',
        )
        truth = ', '.join('{:.2f} - {:.2f}'.format(*window) for window in windows.tolist())
        return truth, f'{overlaps.max():.2f}', [draw]

    def tube(self, sample, i: int) -> tuple[str, str, list]:
        """The same of tubes: the map of the best one, and its boxes beside the true ones."""
        truth, sentence = sample.gt_instances.tubes[i], sample.sentences[i]
        frames = f'{truth[0, 0]:.0f} - {truth[-1, 0]:.0f}'
        if not sample.tubes:
            return frames, '0.00', []
        overlaps = cell_iou(self.grid, sample.tubes, truth)  # (T, P)
        place, cell = np.unravel_index(overlaps.argmax(), overlaps.shape)
        tube = sample.tubes[place]
        draw_map = partial(
            self.visualizer.draw_moment_map,
            self.grid,
            overlaps[place],
            self.grid.spans(len(tube))[cell],
            duration=len(tube),
            unit='boxes',
            title=f'“{sentence}”, tube {place} of {len(sample.tubes)}',
            label='vIoU with the ground truth',
        )
        draw_boxes = partial(draw_tube_frames, None, f'“{sentence}”, tube {place}', tube, truth)
        return frames, f'{overlaps.max():.2f}', [draw_map, draw_boxes]


def main() -> None:
    """List and draw."""
    args = parse_args()
    with plain_errors():
        if args.number < 1:
            raise InputError(f'--number {args.number}: it must be at least 1')
        config = load_config(args.config, args.cfg_options)
        dataset = build_dataset(config, args.split)
        number = min(args.number, len(dataset))
        table = Table(
            title=f'{number} of the {len(dataset)} videos of {args.split}',
            title_justify='left',
            caption=f'pictures in {escape(str(args.out.path))}/',
        )
        columns = ('seconds', 'truth (s)', 'best IoU')
        if grounds_tubes(config):
            columns = ('tubes', 'truth (frames)', 'best vIoU')
        for name in ('video', columns[0], 'features', 'sentence', *columns[1:]):
            left = name in ('video', 'sentence')
            table.add_column(name, justify='left' if left else 'right', no_wrap=name != 'sentence')
        browser = Browser(args, config, table)
        source = input_of(getattr(dataset, 'ann_file', args.config))  # of several: their config
        for i in range(number):
            browser.browse(dataset[i * len(dataset) // number], source)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == '__main__':
    main()
