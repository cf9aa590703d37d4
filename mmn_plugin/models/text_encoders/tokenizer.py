"""Sentences to token ids."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from mmaction.registry import TOKENIZER
from mmengine.logging import print_log
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.hub import find_model, from_hub
from mmn_plugin.structures.annotations import broken_character

# Its threads and the forks of a DataLoader do not mix: the library then warns in every worker.
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')


@TOKENIZER.register_module()
class SentenceTokenizer:
    """Sub-word tokenizer: a vocabulary, or whatever a pretrained language model came with.

    Several threads may use one tokenizer.

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
        folder, special = Path(find_model(name_or_path or '')), self.SPECIAL
        if name_or_path and {file.name for file in folder.glob('*')}.isdisjoint(
            ('tokenizer.json', 'tokenizer_config.json')
        ):
            vocab = folder / 'vocab.txt' if (folder / 'vocab.txt').is_file() else None
        if vocab is not None:
            tokenizer = self._from_vocab(vocab, lowercase)
        else:
            tokenizer, special = self._from_pretrained(str(name_or_path))
        self._set_up(tokenizer, special, max_length)

    def _set_up(
        self, tokenizer: Tokenizer, special: Mapping[str, str], max_length: int | None
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._special = tokenizer, dict(special)
        self._warned = False
        self.max_length = max_length
        ids = {name: tokenizer.token_to_id(token) for name, token in special.items()}
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
        if not isinstance(vocab, Mapping):
            vocab = {token: index for index, token in enumerate(vocab)}
        if lacking := [token for token in SentenceTokenizer.SPECIAL.values() if token not in vocab]:
            raise InputError(
                f'the vocabulary ({len(vocab)} tokens) lacks {lacking}; is it the '
                'vocab.txt of a BERT-like model?'
            )
        # Not transformers' BertTokenizerFast: release 5 renamed the parameter for the vocabulary
        # and ignores the old name, so that every word is [UNK]. This one is the same underneath.
        wrapper = BertWordPieceTokenizer(vocab=dict(vocab), lowercase=lowercase)
        return Tokenizer.from_str(wrapper.to_str())

    @classmethod
    def _from_pretrained(cls, name: str) -> tuple[Tokenizer, Mapping[str, str]]:
        from transformers import AutoTokenizer  # takes a second

        pretrained = from_hub(
            AutoTokenizer.from_pretrained,
            name,
            remedy='or set model.data_preprocessor.tokenizer to dict(vocab=<its vocab.txt>)',
        )
        special = {kind: getattr(pretrained, f'{kind}_token') for kind in cls.SPECIAL}
        if not pretrained.is_fast or None in special.values():
            raise InputError(
                f'the tokenizer {name!r} has no fast version or lacks a special token: is_fast='
                f'{pretrained.is_fast}, {special}; is it BERT-like?'
            )
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
        found = self._tokenize(sentences)
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
        return [(len(ids), problem) for ids, problem in self._tokenize(sentences)]

    def unknown_words(self, sentence: str) -> list[str]:
        """Words of a sentence that the vocabulary does not have, as they are written, each once."""
        encoding = self._tokenizer.encode(sentence)
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        words = [sentence[slice(*place)] for token, place in pairs if token == self.unk_id]
        return [word for word in dict.fromkeys(words) if any(map(str.isalnum, word))]

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
        theirs, ours = other._rules(), self._rules()
        found = [
            f'{name}: {_short(theirs.get(name))}, here {_short(ours.get(name))}'
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
        vocabularies = other._tokenizer.get_vocab(), self._tokenizer.get_vocab()
        if vocabularies[0] != vocabularies[1]:
            found.insert(0, _vocabulary_difference(*vocabularies))
        # ids of texts follow from those, so that they would only say the same again
        return found or _differing_text(other._tokenizer, self._tokenizer)

    def _rules(self) -> dict:
        """Special ids, the limit, and how the model makes tokens of a word, by name."""
        model = json.loads(self._tokenizer.to_str())['model']
        return {
            **{f'the id of [{kind.upper()}]': getattr(self, f'{kind}_id') for kind in self.SPECIAL},
            'max_length': self.max_length,
            **{f'{key} of the model': value for key, value in model.items() if key != 'vocab'},
        }

    def _tokenize(self, sentences: list[str]) -> list[tuple[list[int], str | None]]:
        """Ids of each sentence, and what makes it mean nothing to the language model."""
        broken = [broken_character(sentence) for sentence in sentences]
        whole = ['' if part else text for part, text in zip(broken, sentences, strict=True)]
        encodings = self._tokenizer.encode_batch(whole)
        return [
            ([], part) if part else (encoding.ids, self._problem(encoding.ids))
            for part, encoding in zip(broken, encodings, strict=True)
        ]

    def _problem(self, ids: list[int]) -> str | None:
        if any(token_id in self._word_ids for token_id in ids):
            return None
        if self.unk_id not in ids:
            return 'holds no word'
        return (
            f'holds no word of the vocabulary ({self.vocab_size} tokens), so that every word '
            'would be [UNK]'
        )

    def _truncate(self, ids: list[int]) -> list[int]:
        if self.max_length is None or len(ids) <= self.max_length:
            return ids
        if not self._warned:
            self._warned = True
            print_log(
                f'a sentence of {len(ids)} tokens is cut to {self.max_length}; this is said '
                'once, `mmn check` lists all such sentences',
                logger='current',
                level=logging.WARNING,
            )
        return [*ids[: self.max_length - 1], self.sep_id]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(vocab_size={self.vocab_size}, max_length={self.max_length})'


# Each shows a rule of its own; then every character of the basic plane that is one.
_TEXTS = ('Dog', 'café', "a dog's 2nd run-up, e.g. 3.5", '小狗', ' a\t\n dog ', 'a\x00\u200bdog')
_ALL_CHARACTERS = ''.join(map(chr, (*range(0x20, 0xD800), *range(0xE000, 0xFFFE))))


def _differing_text(theirs: Tokenizer, ours: Tokenizer) -> list[str]:
    """The first step of tokenization that treats a text in two ways, with the text."""
    tokenizers = theirs, ours
    added = {t.content for tok in tokenizers for t in tok.get_added_tokens_decoder().values()}
    texts = (*_TEXTS, ' '.join(f'a{token}a {token}' for token in sorted(added)), _ALL_CHARACTERS)
    for step, apply in _STEPS.items():
        for text in texts:
            if apply(theirs, text) == apply(ours, text):
                continue
            if text is _ALL_CHARACTERS:
                text = next((c for c in text if apply(theirs, c) != apply(ours, c)), text)
            their, our = (_short(apply(tokenizer, text)) for tokenizer in tokenizers)
            return [f'the {step}: {_short(text)} becomes {their}, here {our}']
    return []


def _normalized(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text


def _split(tokenizer: Tokenizer, text: str) -> list:
    splitter = tokenizer.pre_tokenizer
    return [part for part, _ in splitter.pre_tokenize_str(text)] if splitter else [text]


_STEPS = {
    'normalizer': _normalized,
    'pre-tokenizer': _split,
    'ids': lambda tokenizer, text: tokenizer.encode(text).ids,
}


def _vocabulary_difference(theirs: dict[str, int], ours: dict[str, int]) -> str:
    differing = [token for token in {*theirs, *ours} if theirs.get(token) != ours.get(token)]
    token = min(differing, key=lambda token: (theirs.get(token, len(theirs)), token))
    return (
        f'the vocabulary: {len(theirs)} tokens, here {len(ours)}; {len(differing)} differ, the '
        f'first is {token!r} with the id {theirs.get(token)}, here {ours.get(token)}'
    )


def _short(value) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f'{shown[:77]}...'
