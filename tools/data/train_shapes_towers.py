"""Train a small dual encoder on Shapes: ``python tools/data/train_shapes_towers.py CONFIG``."""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import mmn_plugin  # noqa: F401
from mmn_plugin.config import load_config
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.features.extraction import ProgressBar
from mmn_plugin.features.frame_preparation import FramePreparation
from mmn_plugin.features.video import RGBVideoReader
from mmn_plugin.files import read_json, writable_folder, write_json
from mmn_plugin.models.text_encoders.tokenizer import SentenceTokenizer
from mmn_plugin.shapes import OPPOSITES, Event, read_events, say_opposites
from mmn_plugin.structures.annotations import parse_video

SPECIAL = {f'{name}_token': token for name, token in SentenceTokenizer.SPECIAL.items()}
MAX_TOKENS = 24  # the longest sentence has 16
VAL_WINDOWS = 3  # of each moment
REPORTS = 10  # during a training


@dataclass
class Video:
    """What training sees of a video: frames (F, 3, h, w) uint8, spans in frames, sentences.

    ``events`` say what happens in the spans.
    """

    frames: Tensor
    moments: list[tuple[int, int]]
    sentences: list[str]
    events: list[Event] = field(default_factory=list)


def write_processor(settings: dict, folder: Path) -> FramePreparation:
    """Write the tower's processor as `transformers` reads it, and make what it says."""
    kind = 'video_preprocessor' if 'video_processor_type' in settings else 'preprocessor'
    write_json(settings, folder / f'{kind}_config.json')
    return FramePreparation.of_processor(settings, str(folder))


def make_tokenizer(vocabulary: Path) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over a corpus' words."""
    words = vocabulary.read_text(encoding='utf-8').split()
    pieces = BertWordPieceTokenizer(vocab={word: i for i, word in enumerate(words)}, lowercase=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(pieces.to_str()),
        model_max_length=MAX_TOKENS,
        model_input_names=['input_ids', 'attention_mask'],
        **SPECIAL,
    )


def make_model(
    architecture: dict, tokenizer: PreTrainedTokenizerFast, position_std: float | None = None
) -> nn.Module:
    """The tower with random weights; sizes of the text side follow from the tokenizer.

    ``position_std`` is that of VideoPrism's position embeddings. `transformers` draws them by the
    whole table's size, so that beside normalized features they are next to nothing: a window
    played backwards has all but the same embedding, and training does not get away from there.
    """
    text = dict(
        architecture['text_config'],
        vocab_size=len(tokenizer),
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    model = AutoModel.from_config(AutoConfig.for_model(**dict(architecture, text_config=text)))
    for name, weight in model.named_parameters():
        if position_std is not None and name.endswith('position_embeddings'):
            nn.init.normal_(weight, std=position_std)
    return model


def read_videos(corpus: Path, split: str, preparation: FramePreparation, fps: float) -> list[Video]:
    """All videos of a split, scaled for the tower, in memory."""
    annotations = read_json(
        corpus / f'annotations/{split}.json',
        f'{corpus} holds no Shapes corpus; make it with tools/data/make_shapes.py {corpus}',
        InputError,
    )
    videos, events = [], read_events(corpus, split)
    with ProgressBar(f'{split} videos') as bar:
        for name, entry in annotations.items():
            frames = np.stack(list(RGBVideoReader(corpus / f'videos/{name}.mp4', fps)))
            annotation = parse_video(f'{split}.json', name, entry)
            moments = [(round(a * fps), round(b * fps)) for a, b in annotation.moments]
            scaled = preparation.scale(torch.from_numpy(frames))
            videos.append(Video(scaled, moments, entry['sentences'], events[name]))
            bar(len(videos), len(annotations))
    return videos


class Windows:
    """Windows of frames of an extractor's size, cut out of videos.

    Args:
        extractor (dict): Its ``clip_len`` and ``frame_interval`` (1 where it names none).
        shift (int): Pixels by which a window is moved at random in training; its border goes on.
    """

    def __init__(self, extractor: dict, shift: int, rng: np.random.Generator) -> None:
        interval = extractor.get('frame_interval', 1)
        self.offsets = torch.arange(extractor.get('clip_len', 1)) * interval
        self.shift, self.rng = shift, rng

    @property
    def length(self) -> int:
        """Frames from the first to the last of a window, both included."""
        return int(self.offsets[-1]) + 1

    def inside(self, video: Video) -> list[Tensor]:
        """A window (T, 3, h, w) at a random place inside each moment."""
        ends = [max(end - self.length, start) for start, end in video.moments]
        firsts = [
            self.rng.integers(start, end + 1)
            for (start, _), end in zip(video.moments, ends, strict=True)
        ]
        return [self._moved(self.at(video, first)) for first in firsts]

    def at(self, video: Video, first: int) -> Tensor:
        """The window that begins at a frame."""
        return video.frames[(self.offsets + int(first)).clamp(0, len(video.frames) - 1)]

    def _moved(self, window: Tensor) -> Tensor:
        if not self.shift:
            return window
        height, width = window.shape[-2:]
        dy, dx = self.rng.integers(-self.shift, self.shift + 1, 2).tolist()
        rows = (torch.arange(height) + dy).clamp(0, height - 1)
        columns = (torch.arange(width) + dx).clamp(0, width - 1)
        return window[..., rows, :][..., columns]


class OppositeSentences:
    """Sentences of a corpus that say the opposite motion of an object of the same look."""

    def __init__(self, videos: list[Video], rng: np.random.Generator) -> None:
        self.rng = rng
        self.known: dict[tuple, list[str]] = defaultdict(list)
        for video in videos:
            for event, sentence in zip(video.events, video.sentences, strict=True):
                self.known[event.combination].append(sentence)

    def beside(self, video: Video) -> list[str]:
        """One at random for each moment that has such a sentence somewhere in the corpus."""
        found = [
            self.known.get((*event.look, OPPOSITES.get(event.action)), ()) for event in video.events
        ]
        return [texts[self.rng.integers(len(texts))] for texts in found if texts]


class Trainer:
    """Contrastive training: windows against sentences, as of CLIP.

    A batch is all moments of some videos, so that what else happens in a video tells moments apart,
    and sentences of the opposite motions as further negatives (hard ones, as of NegCLIP, but each
    another moment's own). Sentences of equal text are no negatives of each other.
    """

    def __init__(self, model: nn.Module, tokenizer, preparation: FramePreparation, settings: dict):
        self.model, self.tokenizer, self.preparation = model, tokenizer, preparation
        self.settings = settings
        # learned beside the model where that keeps none, as VideoPrism
        start = nn.Parameter(torch.tensor(math.log(1 / settings['temperature'])))
        self.scale = getattr(model, 'logit_scale', start)
        self.scale.data.copy_(start.data)
        weights = dict.fromkeys([*model.parameters(), self.scale])
        groups = [
            dict(params=[p for p in weights if p.ndim > 1]),
            dict(params=[p for p in weights if p.ndim <= 1], weight_decay=0.0),
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=settings['lr'], betas=(0.9, 0.98), weight_decay=settings['weight_decay']
        )
        warmup, steps = settings['warmup'], settings['steps']
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min(1, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2,
        )

    def embed_windows(self, windows: list[Tensor]) -> Tensor:
        """Unit vectors (n, D)."""
        inputs = self.preparation.normalize(torch.stack(windows))  # (n, T, 3, h, w)
        if hasattr(self.model, 'get_video_features'):
            found = self.model.get_video_features(pixel_values_videos=inputs)
        else:
            found = self.model.get_image_features(pixel_values=inputs.squeeze(1))
        return F.normalize(found.pooler_output.flatten(1), dim=-1)

    def embed_sentences(self, sentences: list[str]) -> Tensor:
        """Unit vectors (n, D)."""
        tokens = self.tokenizer(sentences, padding=True, return_tensors='pt')
        return F.normalize(self.model.get_text_features(**tokens).pooler_output, dim=-1)

    def step(self, windows: list[Tensor], sentences: list[str], others: list[str] = ()) -> float:
        """One step of the optimizer; the loss. ``others`` are sentences without a window."""
        texts = [*sentences, *others]
        scores = self.embed_windows(windows) @ self.embed_sentences(texts).T
        logits = self.scale.exp().clamp(max=100) * scores  # (n, n + others)
        place = torch.tensor([texts.index(text) for text in texts])
        same = (place[: len(windows), None] == place) & ~torch.eye(*logits.shape, dtype=torch.bool)
        logits = logits.masked_fill(same, -torch.inf)
        own = torch.arange(len(windows))
        of_windows = F.cross_entropy(logits, own)
        loss = (of_windows + F.cross_entropy(logits[:, : len(windows)].T, own)) / 2
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def train(self, videos: list[Video], windows: Windows, validation: list[Video]) -> None:
        """All steps, with a bar; prints at each tenth how it does on validation."""
        batches, losses = self._batches(videos, windows.rng), []
        opposites = OppositeSentences(videos, windows.rng)
        every = max(1, self.settings['steps'] // REPORTS)
        with ProgressBar('steps') as bar:
            for step in range(self.settings['steps']):
                chosen = next(batches)
                inside = [window for video in chosen for window in windows.inside(video)]
                sentences = [text for video in chosen for text in video.sentences]
                others = [text for video in chosen for text in opposites.beside(video)]
                self.model.train()
                losses.append(self.step(inside, sentences, others))
                bar.set_note(f'loss {np.mean(losses[-50:]):.2f}')
                bar(step + 1, self.settings['steps'])
                if (step + 1) % every == 0:
                    print(f'step {step + 1}: {self.report(validation, windows)}', flush=True)

    def _batches(self, videos: list[Video], rng: np.random.Generator) -> Iterator[list[Video]]:
        size = self.settings['videos']
        while True:
            order = rng.permutation(len(videos))
            for first in range(0, len(order) - size + 1, size):
                yield [videos[place] for place in order[first : first + size]]

    @torch.no_grad()
    def report(self, videos: list[Video], windows: Windows) -> str:
        """Two shares, each with what a guess has.

        How often a sentence's own moment scores best among those of its video, and how often a
        moment is nearer to its sentence than to the same one with the opposite motion, by motion.
        """
        self.model.eval()
        own, told = [], defaultdict(list)
        for place, video in enumerate(videos):
            moments = self._embed_moments(video, windows)
            scores = self.embed_sentences(video.sentences) @ moments.T
            own += (scores.argmax(1) == torch.arange(len(scores))).tolist()
            for event, moment in zip(video.events, moments, strict=True):
                if event.action in OPPOSITES:
                    right, wrong = self.embed_sentences([*say_opposites(place, event)]) @ moment
                    told[event.action].append(bool(right > wrong))
        chance = len(videos) / len(own)
        every = np.mean([hit for hits in told.values() for hit in hits])
        by_motion = ', '.join(f'{motion} {np.mean(hits):.0%}' for motion, hits in told.items())
        return (
            f'{np.mean(own):.1%} of the validation sentences find their own moment among those of '
            f'their video (chance {chance:.1%}); {every:.1%} of the motions are told from their '
            f'opposites (chance 50.0%; {by_motion})'
        )

    def _embed_moments(self, video: Video, windows: Windows) -> Tensor:
        """Unit vectors of the moments, means of some windows at equal distances inside."""
        inside = [
            windows.at(video, first)
            for start, end in video.moments
            for first in np.linspace(start, max(end - windows.length, start), VAL_WINDOWS)
        ]
        moments = self.embed_windows(inside).unflatten(0, (-1, VAL_WINDOWS)).mean(1)
        return F.normalize(moments, dim=-1)


def train_tower(config: Config, corpus: Path, folder: Path) -> str:
    """Train as a config says, write the tower, and say how it does."""
    extractor, settings = config.extractor, config.training
    torch.manual_seed(settings['seed'])
    rng = np.random.default_rng(settings['seed'])
    preparation = write_processor(config.processor, folder)
    train, validation = (
        read_videos(corpus, split, preparation, extractor['fps']) for split in ('train', 'val')
    )
    tokenizer = make_tokenizer(corpus / 'vocab.txt')
    model = make_model(config.architecture, tokenizer, settings.get('position_std'))
    trainer = Trainer(model, tokenizer, preparation, settings)
    windows = Windows(extractor, settings['shift'], rng)
    trainer.train(train, windows, validation)
    tokenizer.save_pretrained(folder)
    trainer.model.save_pretrained(folder)
    return f'{folder}: {trainer.report(validation, windows)}'


def main() -> None:
    """Train one tower."""
    parser = argparse.ArgumentParser(
        description='Train a small dual encoder on the training videos of Shapes: a folder with '
        'model, processor and tokenizer, as transformers and DualTower read it.'
    )
    add = parser.add_argument
    add('config', help='such as configs/shapes_towers/video.py')
    add('--corpus', type=Path, default=Path('data/shapes'), help='default: data/shapes')
    add('--out', type=writable_folder, help="default: the config's extractor.model")
    args = parser.parse_args()
    with plain_errors():
        config = load_config(args.config)
        transformers_logging.disable_progress_bar()
        folder = writable_folder(args.out or config.extractor['model'])
        print(train_tower(config, args.corpus, Path(folder)))


if __name__ == '__main__':
    main()
