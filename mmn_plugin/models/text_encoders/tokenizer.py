"""Sentences to token ids."""

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from mmaction.registry import TOKENIZER
from mmengine.logging import print_log
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor

from mmn_plugin.errors import DownloadError, InputError, MissingFileError
from mmn_plugin.structures.annotations import LONE_SURROGATE

# Its threads and the forks of a DataLoader do not mix: the library then warns in every worker.
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')


@TOKENIZER.register_module()
class SentenceTokenizer:
    """Sub-word tokenizer: a vocabulary, or whatever a pretrained language model came with.

    A new list of sentences is tokenised in one call of the Rust tokenizer; a sentence seen before
    is looked up. Several threads may use one tokenizer.

    Args:
        name_or_path (str, optional): Name of a model on the Hugging Face hub, or a local folder
            with its tokenizer (or with a ``vocab.txt`` alone).
        vocab (str | Path | Sequence[str] | Mapping[str, int], optional): WordPiece vocabulary: file
            with one token per line, tokens in the order of their ids, or token -> id. Give
            this or ``name_or_path``.
        max_length (int, optional): Most tokens of a sentence, [CLS] and [SEP] included. A longer
            one keeps its first words and the [SEP], with one warning; the published code does not
            truncate. Defaults to None: no limit here. The text encoder sets its own.
        lowercase (bool): Lower-case and strip accents before the look-up. Applies to ``vocab``; a
            named tokenizer has its own rule. Defaults to True.

    Attributes:
        vocab_size (int): Number of ids.
        pad_id, unk_id, cls_id, sep_id (int): Ids of the special tokens.

    Raises:
        ValueError: If neither or both sources are given, or the vocabulary lacks a special token.
        FileNotFoundError: If the vocabulary file does not exist.
        OSError: If a named tokenizer can be found neither locally nor on the hub.
    """

    SPECIAL = dict(pad='[PAD]', unk='[UNK]', cls='[CLS]', sep='[SEP]')
    CACHE_SIZE = 200_000  # sentences; ActivityNet Captions has 72,000

    def __init__(
        self,
        name_or_path: str | None = None,
        vocab: str | Path | Iterable[str] | Mapping[str, int] | None = None,
        max_length: int | None = None,
        lowercase: bool = True,
    ):
        if (name_or_path is None) == (vocab is None):
            raise InputError(
                'SentenceTokenizer needs name_or_path (a model name or folder) or '
                'vocab (a vocab.txt or a list of tokens), not both'
            )
        if vocab is not None:
            tokenizer, special = self._from_vocab(vocab, lowercase), self.SPECIAL
        else:
            tokenizer, special = self._from_pretrained(str(name_or_path), lowercase)
        self._set_up(tokenizer, special, max_length)

    def _set_up(
        self, tokenizer: Tokenizer, special: Mapping[str, str], max_length: int | None
    ) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = dict(special)
        # ids of the sentences seen so far, and why `encode` refuses one, if it does
        self._cache: dict[str, tuple[tuple[int, ...], str | None]] = {}
        self._warned = False
        self._lock = threading.Lock()  # a thread must not clear what another one looks up
        self.max_length = max_length
        ids = {name: tokenizer.token_to_id(token) for name, token in special.items()}
        absent = [special[name] for name, token_id in ids.items() if token_id is None]
        if absent:
            raise InputError(
                f'the vocabulary ({self.vocab_size} tokens) lacks {absent}; is it the '
                'vocab.txt of a BERT-like model?'
            )
        self.pad_id, self.unk_id = ids['pad'], ids['unk']
        self.cls_id, self.sep_id = ids['cls'], ids['sep']
        # tokens that mean something: no punctuation, and neither [UNK] nor its like
        self._word_ids = {
            token_id
            for token, token_id in tokenizer.get_vocab().items()
            if token_id not in ids.values() and any(map(str.isalnum, token))
        }

    @staticmethod
    def _from_vocab(vocab, lowercase: bool) -> Tokenizer:
        if isinstance(vocab, str | Path):
            path = Path(vocab)
            if not path.is_file():
                raise MissingFileError(
                    f'vocabulary {path} does not exist; give the vocab.txt of the language model'
                )
            vocab = path.read_text(encoding='utf-8').removesuffix('\n').split('\n')
            vocab = [token.removesuffix('\r') for token in vocab]
        if not isinstance(vocab, Mapping):
            vocab = {token: index for index, token in enumerate(vocab)}
        lacking = [token for token in SentenceTokenizer.SPECIAL.values() if token not in vocab]
        if lacking:
            raise InputError(
                f'the vocabulary ({len(vocab)} tokens) lacks {lacking}; is it the '
                'vocab.txt of a BERT-like model?'
            )
        # Not transformers' BertTokenizerFast: release 5 renamed the parameter for the vocabulary
        # and ignores the old name, so that every word is [UNK]. This one is the same underneath.
        wrapper = BertWordPieceTokenizer(vocab=dict(vocab), lowercase=lowercase)
        return Tokenizer.from_str(wrapper.to_str())

    @classmethod
    def _from_pretrained(cls, name: str, lowercase: bool) -> tuple[Tokenizer, Mapping[str, str]]:
        folder = Path(name)
        if (folder / 'vocab.txt').is_file() and not any(
            (folder / file).is_file() for file in ('tokenizer.json', 'tokenizer_config.json')
        ):
            return cls._from_vocab(folder / 'vocab.txt', lowercase), cls.SPECIAL
        from transformers import AutoTokenizer  # takes a second

        try:
            pretrained = AutoTokenizer.from_pretrained(name, use_fast=True)
        except (OSError, ValueError) as error:
            raise DownloadError(
                f'cannot load the tokenizer {name!r}: it is no local folder with a tokenizer, and '
                'the Hugging Face hub did not give it. Check the name and the network, or set '
                'model.data_preprocessor.tokenizer to dict(vocab=<path of its vocab.txt>)'
            ) from error
        if not getattr(pretrained, 'is_fast', False):
            raise InputError(f'the tokenizer {name!r} has no fast version, which is needed here')
        special = {name: getattr(pretrained, f'{name}_token') for name in cls.SPECIAL}
        missing = [kind for kind, token in special.items() if token is None]
        if missing:
            raise InputError(f'the tokenizer {name!r} has no {missing} token; is it BERT-like?')
        return Tokenizer.from_str(pretrained.backend_tokenizer.to_str()), special

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._tokenizer.get_vocab_size()

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Token ids of each sentence, [CLS] and [SEP] included.

        Raises:
            ValueError: If a sentence is blank, holds no word of the vocabulary, or a part of a
                character; the message quotes it.
        """
        with self._lock:
            found = self._remember(sentences)
        for sentence, (_, problem) in zip(sentences, found, strict=True):
            if problem:
                raise InputError(
                    f'the sentence {sentence!r} {problem}. Correct it or remove it from the '
                    'annotations; `mmn check` lists all such'
                )
        return [self._truncate(ids) for ids, _ in found]

    def inspect(self, sentences: list[str]) -> list[tuple[int, str | None]]:
        """Number of tokens (before truncation) of each sentence, and what makes it unusable.

        For checking a dataset: nothing is raised.
        """
        with self._lock:
            found = self._remember(sentences)
        return [(len(ids), problem) for ids, problem in found]

    def pad(self, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Stack token ids of different lengths.

        Args:
            ids (list[list[int]]): S sentences, as `encode` gives them.

        Returns:
            tuple[Tensor, Tensor]: ``input_ids`` and ``attention_mask``, both (S, L) int64 with L
            the longest sentence; the mask is 1 at tokens and 0 at padding.
        """
        lengths = torch.tensor([len(sentence) for sentence in ids], dtype=torch.int64)
        there = torch.arange(max(map(len, ids), default=0)) < lengths[:, None]  # (S, L)
        input_ids = torch.full(there.shape, self.pad_id, dtype=torch.int64)
        input_ids[there] = torch.tensor([*chain(*ids)], dtype=torch.int64)
        return input_ids, there.long()

    def state(self) -> dict:
        """Everything it takes to make this tokenizer again: strings and numbers alone."""
        return dict(
            tokenizer=self._tokenizer.to_str(),
            special=dict(self._special),
            max_length=self.max_length,
        )

    @classmethod
    def from_state(cls, state: Mapping) -> 'SentenceTokenizer':
        """The tokenizer that `state` came from."""
        self = cls.__new__(cls)
        self._set_up(Tokenizer.from_str(state['tokenizer']), state['special'], state['max_length'])
        return self

    def differences(self, state: Mapping) -> list[str]:
        """What makes the tokenizer of a `state` give other ids than this one.

        Ids are compared and what leads to them, not how it is written down: a vocabulary may come
        from a ``vocab.txt`` or a folder, and releases of ``tokenizers`` write differently.

        Args:
            state (Mapping): Of another tokenizer, as `state` gives it.

        Returns:
            list[str]: What differs, theirs and ours; empty where both are the same.

        Raises:
            ValueError: If the state cannot be read.
        """
        if state == self.state():
            return []
        try:
            other = self.from_state(state)
        except Exception as error:  # a damaged one fails in many ways
            raise InputError(
                'the stored tokenizer cannot be read by this release of tokenizers '
                f'({error}); install the release that wrote it'
            ) from error
        pairs = {
            f'the id of [{kind.upper()}]': (
                getattr(other, f'{kind}_id'),
                getattr(self, f'{kind}_id'),
            )
            for kind in self.SPECIAL
        }
        pairs['max_length'] = other.max_length, self.max_length
        theirs, ours = _model_settings(other._tokenizer), _model_settings(self._tokenizer)
        pairs.update(
            (f'{key} of the model', (theirs.get(key), ours.get(key)))
            for key in sorted({*theirs, *ours})
        )
        found = [
            _vocabulary_difference(other._tokenizer.get_vocab(), self._tokenizer.get_vocab()),
            *(
                f'{name}: {_short(their)}, here {_short(our)}'
                for name, (their, our) in pairs.items()
                if their != our
            ),
        ]
        found = [difference for difference in found if difference]
        # ids of texts follow from those, so that they would only say the same again
        return found or _differing_texts(other._tokenizer, self._tokenizer)

    def _remember(self, sentences: list[str]) -> list[tuple[tuple[int, ...], str | None]]:
        """Ids and problem of each sentence; what is not in the cache is tokenized in one call."""
        unseen = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._cache]
        if len(self._cache) + len(unseen) > self.CACHE_SIZE:  # in a service sentences never end
            self._cache.clear()
            unseen = list(dict.fromkeys(sentences))
        for sentence in unseen:
            if broken := LONE_SURROGATE.search(sentence):
                problem = f'holds {broken[0]!r}, which is no character but part of one (text was '
                self._cache[sentence] = (), f'{problem}cut, or decoded wrongly)'
        unseen = [sentence for sentence in unseen if sentence not in self._cache]
        for sentence, encoding in zip(unseen, self._tokenizer.encode_batch(unseen), strict=True):
            self._cache[sentence] = tuple(encoding.ids), self._problem(encoding.ids)
        return [self._cache[sentence] for sentence in sentences]

    def _problem(self, ids: list[int]) -> str | None:
        """What makes a sentence mean nothing to the language model, or None."""
        if any(token_id in self._word_ids for token_id in ids):
            return None
        if self.unk_id not in ids:
            return 'holds no word'
        return (
            f'holds no word of the vocabulary ({self.vocab_size} tokens), so that every word '
            'would be [UNK]'
        )

    def _truncate(self, ids: tuple[int, ...]) -> list[int]:
        if self.max_length is None or len(ids) <= self.max_length:
            return list(ids)
        if not self._warned:
            self._warned = True
            print_log(
                f'a sentence of {len(ids)} tokens is cut to {self.max_length}; this is said '
                'once, `mmn check` lists all such sentences',
                logger='current',
                level=logging.WARNING,
            )
        return [*ids[: self.max_length - 1], self.sep_id]

    def __getstate__(self) -> dict:
        state = {**self.__dict__, '_cache': {}}
        del state['_lock']  # which no process can send to another
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f'{type(self).__name__}(vocab_size={self.vocab_size}, max_length={self.max_length})'


# Each shows a rule of its own; then every character of the basic plane that is one.
_TEXTS = ('Dog', 'café', "a dog's 2nd run-up, e.g. 3.5", '小狗', ' a\t\n dog ', 'a\x00\u200bdog')
_ALL_CHARACTERS = ''.join(map(chr, (*range(0x20, 0xD800), *range(0xE000, 0xFFFE))))


def _differing_texts(theirs: Tokenizer, ours: Tokenizer) -> list[str]:
    """A text for every step that treats it in two ways."""
    added = {
        token.content
        for tokenizer in (theirs, ours)
        for token in tokenizer.get_added_tokens_decoder().values()
    }
    texts = (*_TEXTS, ' '.join(f'a{token}a {token}' for token in sorted(added)), _ALL_CHARACTERS)
    found = []
    for step, apply in (('normalizer', _normalized), ('pre-tokenizer', _split), ('ids', _ids)):
        text = next((text for text in texts if apply(theirs, text) != apply(ours, text)), None)
        if text is None or (found and step == 'ids'):  # ids follow from the other steps
            continue
        if text is _ALL_CHARACTERS:
            text = next((c for c in text if apply(theirs, c) != apply(ours, c)), text)
        found.append(
            f'the {step}: {_short(text)} becomes {_short(apply(theirs, text))}, here '
            f'{_short(apply(ours, text))}'
        )
    return found


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text


def _split(tokenizer: Tokenizer, text: str) -> list:
    splitter = tokenizer.pre_tokenizer
    return [part for part, _ in splitter.pre_tokenize_str(text)] if splitter else [text]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text).ids


def _model_settings(tokenizer: Tokenizer) -> dict:
    """What, beside the vocabulary, says how a word becomes tokens."""
    settings = json.loads(tokenizer.to_str())['model']
    return {key: value for key, value in settings.items() if key != 'vocab'}


def _vocabulary_difference(theirs: dict[str, int], ours: dict[str, int]) -> str | None:
    differing = sorted(token for token in {*theirs, *ours} if theirs.get(token) != ours.get(token))
    if not differing:
        return None
    token = min(differing, key=lambda token: (theirs.get(token, len(theirs)), token))
    return (
        f'the vocabulary: {len(theirs)} tokens, here {len(ours)}; {len(differing)} differ, the '
        f'first is {token!r} with the id {theirs.get(token)}, here {ours.get(token)}'
    )


def _short(value) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f'{shown[:77]}...'
