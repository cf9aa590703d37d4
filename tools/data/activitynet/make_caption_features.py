"""Make a grounding corpus of real language and no video, from ActivityNet Captions' two annotators.

    python tools/data/activitynet/make_caption_features.py --annotations DIR --out data/captions

Two people described each validation video of ActivityNet Captions, independently of each other. The
sentences of one (val.json) stand for the video: a sentence encoder embeds them, and each row of the
features is the mean of the sentences that cover it, or one fixed sentence ("Nothing happens.")
where none does. The other one's sentences and spans
(test.json) are the queries and the truth. So the features are another person's words and not
pictures: figures on them compare methods and say nothing of how well a video is seen.

The videos that both files have are sorted by the SHA-1 of their id: the first 3,400 are for
training, the next 500 for validation, the rest (985 of the published files) for the test.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np

import mmn_plugin  # noqa: F401
from mmn_plugin.cli.main import whole_number
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.features.text_tower import TextTower
from mmn_plugin.files import replacing, writable_folder, write_json
from mmn_plugin.structures.annotations import (
    VideoAnnotation,
    load_annotation_file,
    parse_video,
)

ENCODER = 'sentence-transformers/all-MiniLM-L6-v2'
TRAIN, VAL = 3400, 500  # videos; the rest is for the test
SILENCE = 'Nothing happens.'  # its cosine with people's sentences is below that of any two of these
BATCH = 256  # sentences from one step of the progress bar to the next


def split_of(video_ids: list[str], train: int = TRAIN, val: int = VAL) -> dict[str, list[str]]:
    """The videos of each split, in the order of their ids' SHA-1.

    Raises:
        InputError: If there are too few for a test split.
    """
    if len(video_ids) <= train + val:
        raise InputError(
            f'{len(video_ids)} videos have both annotations, but training and validation take '
            f'{train} and {val}: give the published files, or smaller --train and --val'
        )
    order = sorted(video_ids, key=lambda video_id: hashlib.sha1(video_id.encode()).hexdigest())
    return dict(train=order[:train], val=order[train : train + val], test=order[train + val :])


def rows_of(
    moments: np.ndarray, embeddings: np.ndarray, silence: np.ndarray, duration: float, rows: int
) -> np.ndarray:
    """Features of a video from what one person said of it.

    Args:
        moments (np.ndarray): (s, 2) seconds.
        embeddings (np.ndarray): (s, D) of their sentences.
        silence (np.ndarray): (D,), a row that no sentence covers.
        duration (float): Seconds of the video.
        rows (int): T.

    Returns:
        np.ndarray: (T, D) float32. A row is the mean of the sentences that cover it, weighted by
        the seconds they do.
    """
    edges = np.linspace(0, duration, rows + 1)
    ends = np.minimum(edges[1:, None], moments[:, 1])  # (T, s)
    seconds = (ends - np.maximum(edges[:-1, None], moments[:, 0])).clip(min=0)
    total = seconds.sum(1, keepdims=True)  # (T, 1)
    means = seconds @ embeddings / np.where(total > 0, total, 1)
    return np.where(total > 0, means, silence).astype(np.float32)


def embed(tower, sentences: list[str], progress: Callable[[int, int], None]) -> np.ndarray:
    """(S, D) float32."""
    parts = []
    for first in range(0, len(sentences), BATCH):
        part = tower.encode_sentences(sentences[first : first + BATCH])
        parts.append(part.cpu().numpy())
        progress(first + len(part), len(sentences))
    return np.concatenate(parts)


def write_features(
    path: Path,
    tower,
    annotations: dict[str, VideoAnnotation],
    rows: int,
    silence: str,
    progress: Callable[[int, int], None],
) -> list[str]:
    """One dataset (T, D) per video, with the fingerprint of the tower, in one step.

    Returns:
        list[str]: Sentences that mean nothing to the tower, with why; they are left out.
    """
    said = sorted({text for entry in annotations.values() for text in entry.sentences}, key=len)
    found = zip(said, tower.inspect(said), strict=True)
    problems = {text: problem for text, (_, problem) in found if problem}
    sentences = [silence, *(text for text in said if text not in problems)]  # like lengths together
    place = {text: index for index, text in enumerate(sentences)}
    embeddings = embed(tower, sentences, progress)
    made_by = {key: tower.fingerprint[key] for key in ('extractor', 'stride', 'fps')}
    made_by['config'] = json.dumps(tower.published)
    with replacing(path) as unfinished, h5py.File(unfinished, 'w') as file:
        file.attrs.update(made_by)
        for video_id, entry in annotations.items():
            known = [row for row, text in enumerate(entry.sentences) if text in place]
            own = embeddings[[place[entry.sentences[row]] for row in known]]
            moments = np.asarray(entry.moments, np.float64)[known].reshape(-1, 2)
            data = rows_of(moments, own, embeddings[0], entry.duration, rows)
            file.create_dataset(video_id, data=data).attrs.update(made_by)
    return [f'{text!r} {problem}' for text, problem in problems.items()]


def make(args: argparse.Namespace) -> tuple[dict[str, list[str]], list[str]]:
    """Write features and annotations; the videos of each split, and the sentences left out."""
    described, asked = (
        load_annotation_file(args.annotations / name) for name in ('val.json', 'test.json')
    )
    splits = split_of(sorted(described.keys() & asked.keys()), args.train, args.val)
    common = {video_id: described[video_id] for part in splits.values() for video_id in part}
    path = str(args.annotations / 'val.json')
    parsed = {video_id: parse_video(path, video_id, entry) for video_id, entry in common.items()}
    tower = TextTower(args.encoder, root=args.model_root)
    target = args.out / 'features.h5'
    with ProgressBar('sentences') as bar:
        left_out = write_features(target, tower, parsed, args.rows, args.silence, bar)
    folder = args.out / 'annotations'
    folder.mkdir(exist_ok=True)
    for split, video_ids in splits.items():
        write_json({video_id: asked[video_id] for video_id in video_ids}, folder / f'{split}.json')
    write_json(common, folder / 'described.json')
    return splits, left_out


def main() -> None:
    """Make the corpus, and say what there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, at_least_one = parser.add_argument, partial(whole_number, least=1)
    text = 'folder with val.json and test.json of ActivityNet Captions (README.md beside this)'
    add('--annotations', type=Path, required=True, help=text)
    text = 'folder to write (default: data/captions)'
    add('--out', type=writable_folder, default=Path('data/captions'), help=text)
    text = f'sentence encoder, by name or folder (default: {ENCODER})'
    add('--encoder', default=ENCODER, help=text)
    add('--model-root', help='folder that holds the encoder as ORG/NAME, where there is no network')
    add('--rows', type=at_least_one, default=64, help='feature rows of a video (default: 64)')
    text = f'sentence of the rows of which nothing is said (default: {SILENCE!r})'
    add('--silence', default=SILENCE, help=text)
    add('--train', type=at_least_one, default=TRAIN, help=f'videos for training (default: {TRAIN})')
    add('--val', type=at_least_one, default=VAL, help=f'videos for validation (default: {VAL})')
    args = parser.parse_args()
    with plain_errors():
        splits, left_out = make(args)
    for sentence in left_out:
        print(f'left out: the sentence {sentence}')
    counts = ', '.join(f'{len(part)} {name}' for name, part in splits.items())
    print(f'{args.out} is complete: {counts} videos')


if __name__ == '__main__':
    main()
