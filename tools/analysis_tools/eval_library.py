"""Search all videos of a split at once for each of its sentences: which video, and when in it.

    python tools/analysis_tools/eval_library.py CONFIG CHECKPOINT --choose --json figures.json

R@K and the median rank of moments, and R@K of videos, over one library of the split's videos (and
of those of --also). One answer is right, or every moment that carries the same normalized sentence.
What scores for a library is made of (`library` of the config, weights of zero-shot and weak scores)
can be chosen on the validation split. Every moment is compared with every sentence.
"""

import argparse
import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from mmaction.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.cli.main import add_model_root, tool_parser
from mmn_plugin.config import build_dataset, load_config, needs_weights
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.evaluation import (
    AskedSentence,
    LibraryRanking,
    MomentPool,
    asked_sentences,
    auroc,
    library_figures,
    rank_library,
    rank_own_videos,
    whole_truth_figures,
    write_tvr,
)
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.library import MomentLibrary
from mmn_plugin.models.heads.zero_shot_head import build_score
from mmn_plugin.shapes import WholeTruth
from mmn_plugin.structures import VideoEmbedding
from mmn_plugin.structures.annotations import VideoAnnotation
from mmn_plugin.tower_settings import with_model_root

SPLITS = ('train', 'val', 'test')
BATCH = 16  # videos encoded at once
DEPTH = 1000  # hits of a sentence among which the first right one is looked for
# What is tried on validation, by type of head: settings of the head, and of the library.
SCORES = (
    dict(type='mean'),
    dict(type='contrast', weight=0.25),
    dict(type='rise', rise=0.25, steadiness=0.25, mean=1.0),
)
TRIALS = dict(
    MutualMatchingHead=[
        (dict(), dict(score_power=power, tower_weight=weight))
        for power, weight in product((4.0, 8.0, 16.0, 32.0, 64.0), (0.0, 8.0, 16.0, 32.0))
    ],
    ScoreCurveHead=[
        (dict(around_weight=around, length_weight=length), dict())
        for around, length in product((0.0, 0.25), (0.04, 0.06, 0.08))
    ],
    ZeroShotHead=[
        (dict(score=score, length_weight=length), dict())
        for score, length in product(SCORES, (0.02, 0.05, 0.1))
    ],
)


@dataclass
class EmbeddedLibrary:
    """Videos and sentences after encoding.

    Attributes:
        videos (list[VideoEmbedding]): V videos.
        annotations (list[VideoAnnotation]): Those whose sentences are asked.
        asked (list[AskedSentence]): S sentences with all right answers.
        queries (dict[str, Tensor]): (S, J) unit vectors per space.
    """

    videos: list[VideoEmbedding]
    annotations: list[VideoAnnotation]
    asked: list[AskedSentence]
    queries: dict[str, Tensor]

    def rank(self, head, settings: dict, own: bool = True, top_n: int = DEPTH) -> LibraryRanking:
        """The library searched for every sentence, with a head's score of these settings."""
        settings = head.library_defaults | settings
        score = head.library_score(settings)
        pool = MomentPool.of(map(head.library_units, self.videos), score.spaces)
        how = (pool, self.queries, score, settings['nms_threshold'])
        ranking = rank_library(*how, top_n)
        if own:
            places = [int(one.videos[0]) for one in self.asked]
            ranking.own_moments, ranking.own_scores = rank_own_videos(*how, places)
        return ranking

    @property
    def video_ids(self) -> list[str]:
        """V ids."""
        return [video.video_id for video in self.videos]


def split_dataset(config: Config, split: str, source: Config | None = None):
    """A split as the test split is read: with its timestamps, where training is without them.

    ``source`` names its annotations, where the config has none. Defaults to None: the config.
    """
    loader = (source or config).get(f'{split}_dataloader')
    if not loader or not config.get('test_dataloader'):
        return build_dataset(config, split)
    config = copy.deepcopy(config)
    config.test_dataloader.dataset.ann_file = loader.dataset.ann_file
    return build_dataset(config, 'test')


@torch.no_grad()
def embed_library(
    model, asked: Iterable, also: Sequence[Iterable] = (), step: int = 1
) -> EmbeddedLibrary:
    """Embed the videos of datasets, and the sentences of the first one.

    Args:
        model (BaseLocalizer): The model.
        asked (Iterable): Dataset whose sentences are asked.
        also (Sequence[Iterable]): Further datasets whose videos are in the library; their moments
            are right answers as well where the sentence is the same. Defaults to none.
        step (int): One sentence in so many is asked. Defaults to 1.
    """
    annotations, videos = [], []
    for dataset in (asked, *also):
        for first in range(0, len(dataset), BATCH):
            packed = [dataset[row] for row in range(first, min(first + BATCH, len(dataset)))]
            batch = {key: [entry[key] for entry in packed] for key in packed[0]}
            batch = model.data_preprocessor(batch)
            videos += model.encode_videos(batch['inputs'], batch['data_samples'])
            annotations += map(_annotation, batch['data_samples'])
    own = annotations[: len(asked)]
    answers = asked_sentences(own, annotations)
    if not answers:
        raise InputError(
            f'{getattr(asked, "ann_file", "the dataset")}: none of the sentences occurs in its '
            'video, so there is nothing to search for; choose another split or file'
        )
    answers = answers[::step]
    queries = model.sentence_vectors([one.sentence for one in answers])
    return EmbeddedLibrary(videos, own, answers, queries)


def _annotation(sample) -> VideoAnnotation:
    windows = [own.tolist() for own in sample.windows]
    indices = list(sample.sentence_index)
    return VideoAnnotation(
        sample.video_id, sample.duration, windows, list(sample.sentences), indices
    )


def compare_in_all_spaces(config: Config, model, scores: Sequence[dict] = SCORES) -> None:
    """Let a zero-shot model embed in the spaces of all these scores; `set_head` follows."""
    spaces = tuple(dict.fromkeys(space for s in scores for space in build_score(**s).spaces))
    model.neck = MODELS.build(config.model.neck, default_args=dict(grid=model.grid, spaces=spaces))
    model.head.combine = ConfigDict(spaces=spaces)


def search_folder(
    folder: str, asked: Iterable, also: Sequence[Iterable] = ()
) -> tuple[LibraryRanking, list[AskedSentence], list[VideoAnnotation]]:
    """A library on disk, asked by its own search for every sentence; args as of `embed_library`.

    Videos of the library that no dataset annotates stay in it. Hits, sentences, and the annotations
    that these are of.
    """
    library = MomentLibrary(folder)
    snapshot = library.store.snapshot()
    own = [_annotation(packed['data_samples']) for packed in asked]
    others = [_annotation(packed['data_samples']) for dataset in also for packed in dataset]
    annotated = {video.video_id: video for video in (*own, *others)}
    videos = [
        annotated.get(name) or VideoAnnotation(name, row.duration, [], [], [])
        for name, row in snapshot.by_id.items()
    ]
    answers = asked_sentences(own, videos)
    texts = [one.sentence for one in answers]
    hits = library.search(texts, DEPTH), library.search(texts, 100, group='video')
    pool = sum(int((numbers >= 0).sum()) for numbers in snapshot.video_of_row)
    return LibraryRanking.from_hits(*hits, list(snapshot.by_id), pool, DEPTH), answers, own


def set_head(head, settings: dict) -> None:
    """Give a head settings that no training knows."""
    for name, value in settings.items():
        if name == 'score':
            head.combine = build_score(**value)
        else:
            setattr(head, name, value)


def quality(figures: dict[str, float]) -> float:
    """What settings are chosen by: the mean of R@1, R@10 and R@100 at IoU=0.5, one right answer."""
    return sum(figures[f'R{n}@0.5'] for n in (1, 10, 100)) / 3


def tried(model, library: EmbeddedLibrary, trials: Sequence[tuple[dict, dict]]) -> list[dict]:
    """What each of the settings gives: ``head``, ``library``, ``quality``, ``figures``."""
    found = []
    for head, settings in trials:
        set_head(model.head, head)
        ranking = library.rank(model.head, settings, own=False, top_n=100)
        figures = library_figures(ranking, library.asked)
        found.append(dict(head=head, library=settings, quality=quality(figures), figures=figures))
    return found


def trials_of(config: Config, model) -> list[tuple[dict, dict]]:
    """Settings to try for a model.

    Raises:
        ValueError: If none are known for its head.
    """
    name = config.model.head.type
    if name not in TRIALS:
        raise InputError(f'--choose knows no settings of {name}; it knows {list(TRIALS)}')
    tower = bool(model.head.tower_spaces)
    return [trial for trial in TRIALS[name] if tower or not trial[1].get('tower_weight')]


def choose(config: Config, model, library: EmbeddedLibrary) -> dict:
    """The best of all settings, and ``tried``; the head has them then."""
    trials = tried(model, library, trials_of(config, model))
    best = max(trials, key=lambda trial: trial['quality'])
    set_head(model.head, best['head'])
    chosen = {key: best[key] for key in ('head', 'library', 'quality')}
    return chosen | dict(tried=[{k: v for k, v in t.items() if k != 'figures'} for t in trials])


def read_model(config: Config, checkpoint: str | None):
    """A config's model with the weights of its checkpoint.

    Raises:
        ValueError: If it needs a checkpoint and there is none.
    """
    init_default_scope('mmaction')
    if checkpoint is not None:
        return load_model(config, checkpoint, 'cpu')
    if needs_weights(config):
        raise InputError(f'a {config.model.type} is of use only with a checkpoint: give one')
    return MODELS.build(config.model).eval()


def whole_truth(model, library: EmbeddedLibrary, ranking: LibraryRanking, settings, truth) -> dict:
    """Precision and recall against all that happens in Shapes' videos, and `absence`."""
    asked = truth.asked(library.annotations, library.video_ids)
    figures = whole_truth_figures(ranking, asked)
    figures['answers'] = sum(len(one.videos) for one in asked) / len(asked)
    return figures | absence(model, library.videos, settings, truth)


def absence(model, videos: Sequence[VideoEmbedding], settings: dict, truth: WholeTruth) -> dict:
    """AUROC of sentences about what a library of Shapes' videos shows and about what it does not.

    Presence is the score of the first hit. Sentences about all 240 combinations are drawn from the
    grammar; the absent ones are those of which no video of the library has an event.
    """
    presence = []
    for sentences in truth.drawn_sentences([video.video_id for video in videos]):
        drawn = EmbeddedLibrary(list(videos), [], [], model.sentence_vectors(sentences))
        presence.append(drawn.rank(model.head, settings, own=False, top_n=1).scores[:, 0].tolist())
    about = dict(present=len(presence[0]), absent=len(presence[1]))
    return about | dict(auroc=100 * auroc(*presence))


def printed(figures: dict[str, float]) -> str:
    """A line for each way to count."""
    groups = {'': 'one right answer', 'any': 'or any moment of the same sentence'}
    groups |= {'own': 'in its own video', 'whole': 'all that happens'}
    lines = {group: [] for group in groups}
    for name, value in figures.items():
        group, _, metric = name.rpartition('/')
        lines[group].append(f'{metric} {value:.2f}'.removesuffix('.00'))
    return '\n'.join(f'{groups[group]}: {", ".join(line)}' for group, line in lines.items() if line)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = tool_parser(__doc__, config=True)
    add = parser.add_argument
    text = 'checkpoint (.pth); not of a zero-shot config'
    add('checkpoint', nargs='?', help=text)
    text = 'whose videos are the library and whose sentences are asked (default: test)'
    add('--split', choices=SPLITS, default='test', help=text)
    text = 'splits whose videos are in the library besides'
    add('--also', choices=SPLITS, nargs='+', default=[], help=text)
    add('--choose', action='store_true', help='choose the settings on the validation split')
    add('--json', type=writable_file, help='file for the figures')
    add('--tvr', type=writable_file, help="file for the hits, in TVR's form (VCMR, SVMR, VR)")
    text = 'library (`mmn library add`) of the videos, searched as it is, with its own settings'
    add('--library', metavar='LIB', help=text)
    text = 'folder of the Shapes corpus: all that happens in its videos counts as well'
    add('--shapes', metavar='FOLDER', help=text)
    add_model_root(parser)
    return parser.parse_args()


def evaluated(args: argparse.Namespace) -> tuple[dict, LibraryRanking, list[AskedSentence]]:
    """What is to be written, with ``figures``; hits and sentences."""
    config = with_model_root(load_config(args.config, args.cfg_options), args.model_root)
    also = [split for split in args.also if split != args.split]
    if args.library:
        if args.choose or args.checkpoint or args.shapes:
            raise InputError('--library is searched as it is: no checkpoint, --choose or --shapes')
        datasets = [split_dataset(config, split) for split in (args.split, *also)]
        ranking, asked, own = search_folder(args.library, datasets[0], datasets[1:])
        result = dict(figures=library_figures(ranking, asked))
        return result | left_out(own, asked), ranking, asked
    model = read_model(config, args.checkpoint)
    settings, result = dict(config.get('library') or {}), {}
    if args.choose:
        if config.model.head.type == 'ZeroShotHead':
            compare_in_all_spaces(config, model)
        chosen = choose(config, model, embed_library(model, split_dataset(config, 'val')))
        settings |= chosen['library']
        result['chosen'] = chosen
        print(f'chosen on validation: head {chosen["head"]}, library {chosen["library"]}')
    datasets = [split_dataset(config, split) for split in (args.split, *also)]
    library = embed_library(model, datasets[0], datasets[1:])
    ranking = library.rank(model.head, settings)
    figures = library_figures(ranking, library.asked)
    if args.shapes:
        found = whole_truth(model, library, ranking, settings, WholeTruth(args.shapes))
        figures |= {f'whole/{name}': value for name, value in found.items()}
    result |= dict(figures=figures) | left_out(library.annotations, library.asked)
    return result, ranking, library.asked


def left_out(annotations: list[VideoAnnotation], asked: list[AskedSentence]) -> dict[str, int]:
    """How many sentences do not occur in their video, ``absent``, where there are any."""
    absent = sum(len(video.sentences) for video in annotations) - len(asked)
    if absent:
        print(f'{absent:,} sentences that do not occur in their video are left out')
    return dict(absent=absent) if absent else {}


def main() -> None:
    """Search, and print figures."""
    args = parse_args()
    with plain_errors():
        result, ranking, asked = evaluated(args)
        about = dict(videos=len(ranking.video_ids), moments=ranking.pool, sentences=len(asked))
        print(', '.join(f'{value:,} {name}' for name, value in about.items()))
        print(printed(result['figures']))
        if args.json:
            write_json(about | dict(split=args.split) | result, args.json)
        if args.tvr:
            write_tvr(args.tvr, ranking, asked)


if __name__ == '__main__':
    main()
