"""Draw a weakly-supervised model's scores over time, before and after its stages refine them.

    python tools/analysis_tools/draw_score_curves.py mscl_shapes.py CHECKPOINT --video shapes_01320

One panel per sentence of the video, with the ground truth behind the curves.
"""

import argparse

import torch
from mmengine.dataset import pseudo_collate

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.cli.main import tool_parser
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.files import OutputFolder, text_argument, writable_file
from mmn_plugin.visualization import GroundingVisualizer


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__, config=True)
    add, splits = parser.add_argument, ('val', 'test')
    add('checkpoint', help='checkpoint trained with it (.pth)')
    add('--split', choices=splits, default='test', help='which data loader (default: test)')
    add('--video', type=text_argument, help='id of the video (default: the first one)')
    text = 'picture (default: score_curves.png)'
    add('--out', default='score_curves.png', type=writable_file, help=text)
    return parser.parse_args()


@torch.inference_mode()
def stage_curves(model, batch: dict) -> list[torch.Tensor]:
    """Curves (s, N) of a video before any refinement and after each stage."""
    data = model.data_preprocessor(batch)
    embeddings, sentences = model(**data, mode='tensor')
    curves = []
    for stage in model.head.stages:
        (video,) = model.head.split(dict(contrastive=embeddings[stage]), data['data_samples'])
        curves.append(model.head.curve(video, model.head.score(video, sentences)))
    return curves


def main() -> None:
    """Draw."""
    args = parse_args()
    with plain_errors():
        folder, files = OutputFolder(args.out.parent), {args.out.name: None}
        folder.claim(files)
        config = load_config(args.config, args.cfg_options)
        dataset = build_dataset(config, args.split)
        ids = [dataset.get_data_info(index)['video_id'] for index in range(len(dataset))]
        if args.video not in (None, *ids):
            raise InputError(f'{dataset.ann_file} has no video {args.video!r}')
        batch = pseudo_collate([dataset[ids.index(args.video or ids[0])]])
        model = load_model(config, args.checkpoint, 'cpu')
        if not model.head.stages:
            raise InputError(
                f'{args.config} is of a {type(model).__name__}, which scores no clips: draw moment '
                'maps with `mmn ground`, and tubes with tools/test.py --show-dir'
            )
        stages = stage_curves(model, batch)
        curves = {'before refinement': stages[0], 'after refinement': stages[-1]}
        if len(stages) == 1:
            curves = dict(score=stages[0])
        image = GroundingVisualizer().draw_score_curves(batch['data_samples'][0], curves)
        with folder.writing(files):
            GroundingVisualizer.save_image(image, args.out)
        print(args.out)


if __name__ == '__main__':
    main()
