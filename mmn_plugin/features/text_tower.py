"""Frozen encoders of sentences: what they share, and those without a video side."""

import json
import logging
import shutil
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from mmaction.registry import MODELS
from mmengine.logging import print_log
from mmengine.utils import get_object_from_string
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmn_plugin.errors import InputError
from mmn_plugin.hub import find_model, from_hub, load_weights, published_name, read_model_json
from mmn_plugin.structures.annotations import broken_character
from mmn_plugin.structures.data_samples import token_limit

from .lazy_network import LazyNetwork, digest
from .rewriting import Rewriter, problem_of

NO_LIMIT = 100_000  # transformers' sign for a tokenizer without a limit is greater
POOLINGS = ('mean', 'cls', 'max')
OTHER_FORMATS = {'onnx', 'openvino', '.cache', '.git'}  # folders of a model that are not read
MODULES = ('Transformer', 'Pooling', 'Normalize')  # of sentence-transformers


class SentenceTower(LazyNetwork):
    """A frozen encoder of sentences of `transformers`: no module, no part of a checkpoint.

    Copies are the tower itself (an averaged model shares it), and a pickle leaves out the weights,
    which are read again at the first use.

    Args:
        model (str): Folder, or name on the Hugging Face Hub.
        revision (str, optional): Branch, tag or commit on the Hub. Defaults to None: the main one.
        root (str, optional): Folder with models (see `find_model`). Defaults to None.
        templates (Sequence[str]): Each with ``{}``, where a sentence is put in. Their unit vectors
            are averaged. Defaults to the sentence alone.
        device (str, optional): Defaults to None: the accelerator if there is one.
        sentence_batch (int): Texts that are encoded together. Defaults to 64.
        rewrite (Callable | str, optional): Makes another sentence of each, such as a statement of a
            question; may be given by its dotted name. The rewritten sentence is what is inspected,
            counted and embedded, and is kept, so that a sentence is rewritten once. Defaults to
            None.

    Attributes:
        padding (str): How texts of a batch are padded: ``'longest'``, to the longest of them.
        logit_scale (float | None): What cosines are multiplied with in the training's loss; None
            where there is nothing.
        logit_bias (float | None): What is added then, before a sigmoid; None where there is none.

    Raises:
        ValueError: If a template has no ``{}``, or ``rewrite`` cannot be found.
    """

    padding: str = 'longest'
    logit_scale: float | None = None
    logit_bias: float | None = None

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        root: str | None = None,
        templates: Sequence[str] = ('{}',),
        device: str | None = None,
        sentence_batch: int = 64,
        rewrite: Callable[[str], str] | str | None = None,
        **others,
    ) -> None:
        super().__init__(device=device, **others)
        self.name, self.revision, self.root = str(model), revision, root
        self.templates = (templates,) if isinstance(templates, str) else tuple(templates)
        if not self.templates or not all('{}' in template for template in self.templates):
            raise InputError(f'templates={self.templates}: each must hold {{}} for the sentence')
        if not sentence_batch > 0:
            raise InputError(f'sentence_batch={sentence_batch}; it must be above 0')
        self.sentence_batch = sentence_batch
        found = get_object_from_string(rewrite) if isinstance(rewrite, str) else rewrite
        if rewrite is not None and not callable(found):
            raise InputError(f'rewrite={rewrite!r}: there is no such function to be imported')
        self.rewrite = None if found is None else Rewriter(found)
        self._warned = False

    def __deepcopy__(self, memo: dict) -> 'SentenceTower':
        return self

    def __getstate__(self) -> dict:
        left_out = dict(_model=None, _there=None)
        state = super().__getstate__() | left_out
        return {key: value for key, value in state.items() if key not in ('tokenizer', 'config')}

    @abstractmethod
    def embed(self, tokens: dict[str, Tensor]) -> Tensor:
        """Vectors (n, D) of tokenized texts, on the device."""

    @property
    @abstractmethod
    def text_config(self):
        """Configuration of the text side."""

    @cached_property
    def config(self):
        """The model's configuration."""
        from transformers import AutoConfig

        return self._from_hub(AutoConfig.from_pretrained)

    @cached_property
    def tokenizer(self):
        """The model's own tokenizer.

        Raises:
            ValueError: If the model comes without one.
        """
        from transformers import AutoTokenizer

        with self._lock:
            found = self._from_hub(AutoTokenizer.from_pretrained, config=self.config)
        # where files are missing transformers makes one of special tokens alone (and a space)
        if len(found) <= len(found.all_special_ids) + 1:
            raise InputError(
                f'{self.source} comes without its tokenizer (tokenizer.json, or a file of its '
                'vocabulary): copy all files of the model'
            )
        return found

    def _from_hub(self, load: Callable, **options):
        return from_hub(load, self.name, self.root, revision=self.revision, **options)

    def _json(self, file: str):
        return read_model_json(self.name, file, self.root, self.revision)

    def copy_files(self, folder: Path) -> None:
        """Copy the model's files, for a tower that needs neither the Hub nor other folders.

        Those that are read: weights in one format, configuration, tokenizer, processor, license.

        Args:
            folder (Path): What will be its ``root``: the files go to the model's name there.

        Raises:
            OSError: If there is no such model.
        """
        from transformers.utils import cached_file

        _ = self.model, self.tokenizer  # what the Hub has is here now
        config = self._from_hub(cached_file, filename='config.json')
        source, target = Path(config).parent, folder / Path(published_name(self.name)).name
        safe = any(source.glob('*.safetensors'))
        kinds = ('.json', '.txt', '.model', '.jinja', '.safetensors' if safe else '.bin')
        for file in sorted(source.rglob('*')):
            name = file.relative_to(source)
            kept = file.suffix in kinds or file.name.startswith('LICENSE')
            if kept and file.is_file() and not {*name.parts[:-1]} & OTHER_FORMATS:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / name)

    @property
    def published(self) -> dict:
        """Type and model, by the name that it has on other machines."""
        return dict(type=type(self).__name__, model=published_name(self.name))

    @property
    def source(self) -> str:
        """The model's name, and the folder where it is another one; for messages."""
        place = find_model(self.name, self.root)
        return self.name if place == self.name else f'{self.name} ({place})'

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text, as model and tokenizer say; None where neither has a limit."""
        limits = [token_limit(self.text_config), self.tokenizer.model_max_length]
        return min((limit for limit in limits if limit and limit < NO_LIMIT), default=None)

    def clean(self, text: str) -> str:
        """The text as the tower saw texts in its training, where the tokenizer does not do that."""
        return text

    @torch.no_grad()
    def encode_sentences(self, sentences: Sequence[str], rewrite: bool = True) -> Tensor:
        """Embed sentences.

        Args:
            sentences (Sequence[str]): S sentences. One that is longer than `max_tokens` is cut,
                with one warning.
            rewrite (bool): Whether ``rewrite`` is applied, where there is one: False for sentences
                that are statements already. Defaults to True.

        Returns:
            Tensor: (S, D) float32 unit vectors on `device`.

        Raises:
            ValueError: If a sentence holds no word, or none that the tokenizer knows, or cannot be
                rewritten.
        """
        texts = self._texts(sentences, rewrite)
        for sentence, text, problem in zip(sentences, texts, self._problems(texts), strict=True):
            if problem := problem_of(sentence, text, problem):
                raise InputError(f'the sentence {sentence!r} {problem}; correct it or leave it out')
        if not texts:
            return self._embed(['a'])[:0]
        embeddings = [
            normalize(self._embed(self._put_into(template, texts)), dim=-1)
            for template in self.templates
        ]
        return normalize(torch.stack(embeddings).mean(0), dim=-1)  # (S, D)

    def inspect(
        self, sentences: Sequence[str], rewrite: bool = True
    ) -> list[tuple[int, str | None]]:
        """Number of tokens (before truncation, in the longest template) and what is wrong of each.

        Args:
            sentences (Sequence[str]): Any texts.
            rewrite (bool): As of `encode_sentences`.

        Raises:
            ValueError: If a sentence cannot be rewritten.
        """
        texts = self._texts(sentences, rewrite)
        whole = ['' if broken_character(text) else text for text in texts]
        lengths = [self._lengths(self._put_into(one, whole)) for one in self.templates]
        longest = map(max, zip(*lengths, strict=True))
        problems = map(problem_of, sentences, texts, self._problems(texts))
        return list(zip(longest, problems, strict=True))

    def _texts(self, sentences: Sequence[str], rewrite: bool) -> list[str]:
        """What of the sentences is inspected, counted and embedded."""
        return [*map(self.rewrite, sentences)] if rewrite and self.rewrite else list(sentences)

    @staticmethod
    def _put_into(template: str, texts: Sequence[str]) -> list[str]:
        return [template.replace('{}', text) for text in texts]

    def _ids(self, texts: Sequence[str], **options) -> list[list[int]]:
        """Ids of all tokens of each text. One thread at a time may use a tokenizer."""
        if not texts:
            return []
        with self._lock:
            return self.tokenizer([*map(self.clean, texts)], verbose=False, **options)['input_ids']

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        return list(map(len, self._ids(texts)))

    def _problems(self, sentences: Sequence[str]) -> list[str | None]:
        """What makes a sentence mean nothing to the tower, as `SentenceTokenizer` says it."""
        broken = [broken_character(sentence) for sentence in sentences]
        whole = ['' if part else text for part, text in zip(broken, sentences, strict=True)]
        ids = self._ids(whole, add_special_tokens=False)
        known = {id_: self._is_word(id_) for id_ in set(chain(*ids))}
        unknown = f'holds no word of the vocabulary of {self.name} ({len(self.tokenizer)} tokens)'
        return [
            part
            or (None if any(map(str.isalnum, text)) else 'holds no word')
            or (None if any(map(known.get, these)) else unknown)
            for part, text, these in zip(broken, whole, ids, strict=True)
        ]

    def _is_word(self, token_id: int) -> bool:
        """Whether a token stands for something, rather than punctuation or what is unknown."""
        token = self.tokenizer.convert_ids_to_tokens(token_id).removesuffix('</w>')  # CLIP's mark
        return token_id != self.tokenizer.unk_token_id and any(map(str.isalnum, token))

    def _embed(self, texts: list[str]) -> Tensor:
        """Vectors (S, D) float32; texts of like length go through the model together."""
        lengths = self._lengths(texts)
        limit = self.max_tokens
        if limit and max(lengths) > limit and not self._warned:
            self._warned = True
            print_log(
                f'a sentence of {max(lengths)} tokens is cut to {limit}, the limit of {self.name}; '
                'this is said once',
                logger='current',
                level=logging.WARNING,
            )
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        options = dict(padding=self.padding, truncation=limit is not None, max_length=limit)
        found = []
        with self._lock:
            for begin in range(0, len(order), self.sentence_batch):
                places = order[begin : begin + self.sentence_batch]
                batch = [self.clean(texts[place]) for place in places]
                tokens = self.tokenizer(batch, return_tensors='pt', **options).to(self.device)
                found.append(self.embed(dict(tokens)).float())
        return torch.cat(found)[torch.tensor(order, device=self.device).argsort()]


@MODELS.register_module()
class TextTower(SentenceTower):
    """A text-only tower, as sentence-transformers publishes them; features come from a file.

    A text is the pooled last hidden states of an `AutoModel`: which pooling, and whether the result
    is normalized, stand in the model's ``modules.json`` and ``1_Pooling/config.json``, its limit of
    tokens in ``sentence_bert_config.json``.

    Args:
        model (str): As of `SentenceTower`, like the following.
        pooling (str, optional): ``'mean'`` (over the tokens), ``'cls'`` (the first one) or
            ``'max'``. Defaults to None: as the model's files say.
        **others: Of `SentenceTower`.

    Raises:
        ValueError: At the first use, if the model's files tell of another pooling or of further
            modules, or do not tell any.
    """

    def __init__(self, model: str, *, pooling: str | None = None, **others) -> None:
        super().__init__(model, **others)
        if pooling not in (None, *POOLINGS):
            raise InputError(f'pooling={pooling!r}; it must be one of {list(POOLINGS)}')
        self._asked_pooling = pooling

    @property
    def text_config(self):
        """Configuration of the language model.

        Raises:
            ValueError: If the model has more than a text side.
        """
        if hasattr(self.config, 'text_config'):
            raise InputError(
                f'{self.source} ({self.config.model_type}) sees frames or videos too: TextTower '
                'takes models of sentences alone, and DualTower such'
            )
        return self.config

    @cached_property
    def pooling(self) -> str:
        """``'mean'``, ``'cls'`` or ``'max'``."""
        modules = self._json('modules.json') or []
        kinds = {module['type'].rpartition('.')[2]: module['path'] for module in modules}
        if further := [kind for kind in kinds if kind not in MODULES]:
            raise InputError(
                f'{self.source} has the modules {", ".join(kinds)} in its modules.json; '
                f'{", ".join(further)} is not supported'
            )
        if self._asked_pooling:
            return self._asked_pooling
        file = f'{kinds.get("Pooling", "1_Pooling")}/config.json'
        settings = self._json(file)
        if settings is None:
            raise InputError(
                f'{self.source} has no {file}, which says how tokens are pooled: give the tower '
                f'pooling={" or ".join(map(repr, POOLINGS))}'
            )
        return self._pooling_of(settings, file)

    def _pooling_of(self, settings: dict, file: str) -> str:
        """The pooling in both of sentence-transformers' ways to write it."""
        names = (
            [settings['pooling_mode']]
            if 'pooling_mode' in settings
            else [
                key.removeprefix('pooling_mode_').removesuffix('_tokens').removesuffix('_token')
                for key, value in settings.items()
                if key.startswith('pooling_mode_') and value is True
            ]
        )
        if len(names) != 1 or names[0] not in POOLINGS:
            raise InputError(
                f'{self.source}: {file} asks for the pooling {names}; one of {list(POOLINGS)} '
                'is supported'
            )
        return names[0]

    @cached_property
    def _sentence_settings(self) -> dict:
        return self._json('sentence_bert_config.json') or {}

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of a text, as the least of the files says."""
        limits = super().max_tokens, self._sentence_settings.get('max_seq_length')
        return min(filter(None, limits), default=None)

    def clean(self, text: str) -> str:
        """In lower case where the model's settings say so."""
        return text.lower() if self._sentence_settings.get('do_lower_case') else text

    def build_model(self) -> nn.Module:
        """The language model with all weights that are used."""
        model = load_weights(
            self.name, self.root, self.revision, lambda weight: weight.startswith('pooler.')
        )
        if getattr(model, 'pooler', None) is not None:
            model.pooler = None  # unused, and random where it is missing
        return model

    def embed(self, tokens: dict[str, Tensor]) -> Tensor:
        """Pooled last hidden states (n, D); unit vectors come of `encode_sentences`."""
        hidden = self.model(**tokens).last_hidden_state  # (n, L, D)
        mask = tokens['attention_mask'][..., None]  # (n, L, 1)
        if self.pooling == 'max':
            return hidden.masked_fill(mask == 0, -torch.inf).amax(1)
        if self.pooling == 'cls':
            first = tokens['attention_mask'].argmax(1)
            return hidden[torch.arange(len(hidden), device=hidden.device), first]
        return (hidden * mask).sum(1) / mask.sum(1)

    @cached_property
    def identity(self) -> str:
        """Pooling, limit of tokens, and a digest of the weights, as JSON."""
        content = dict(
            type=type(self).__name__,
            pooling=self.pooling,
            max_tokens=self.max_tokens,
            weights=digest(self.model),
        )
        return json.dumps(content, sort_keys=True)

    @property
    def fingerprint(self) -> dict:
        """Attributes of a file of sentences' features; rows of sentences have no rate."""
        settings = dict(extractor=self.identity, stride=1, fps=1.0)
        return dict(settings, feature_size=self.config.hidden_size, config=self.published)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({find_model(self.name, self.root)!r})'
