"""Whether a sentence is anywhere in a library: its best score among those of unrelated ones."""

import hashlib
import json
from contextlib import suppress

import numpy as np

from mmn_plugin.errors import InputError, UserError
from mmn_plugin.models.heads.zero_shot_head import read_sentences

FEWEST = 20  # unrelated sentences, below which nothing is said


class LibraryPresence:
    """Best scores of unrelated sentences over a whole library, kept until it changes.

    Args:
        library (MomentLibrary): The library.
    """

    KEY = 'unrelated'  # of the store's setting

    def __init__(self, library) -> None:
        self._library = library
        self._queries = self._known = None

    def of(self, scores: np.ndarray) -> np.ndarray | None:
        """Presence of moments by their scores: with k of K unrelated sentences whose best moment
        has a lower score s, ``(k + s) / (K + 1)``.

        None where the model knows the words of too few unrelated sentences.
        """
        unrelated = self.measured()
        if unrelated is None:
            return None
        below = np.searchsorted(unrelated, scores)
        return (below + scores) / (len(unrelated) + 1)

    def measured(self) -> np.ndarray | None:
        """(K,) best scores of unrelated sentences, rising; measured where they are not known."""
        snapshot, search = self._library.current()
        numbers = np.sort(np.fromiter(snapshot.videos, np.int64, len(snapshot.videos)))
        key = self._key(numbers)
        if self._known is None or self._known['key'] != key:
            with suppress(InputError):  # damaged: measured again
                self._known = self._library.store.get(self.KEY)
        if self._known is None or self._known['key'] != key:
            self._measure(snapshot, search, numbers)
        scores = self._known['scores']
        return np.sort(scores) if len(scores) >= FEWEST else None

    def _measure(self, snapshot, search, numbers: np.ndarray) -> None:
        """Measure; where nothing but new videos has changed since the last time, in these alone."""
        known, new = self._known, None
        if known is not None and self._key(numbers[numbers <= known['last']]) == known['key']:
            new = numbers[numbers > known['last']].tolist()
        scores = self._best(search, snapshot.allowed(new))
        if new is not None:
            scores = np.maximum(scores, known['scores'])
        last = int(numbers[-1]) if len(numbers) else -1
        self._known = dict(key=self._key(numbers), last=last, scores=scores.tolist())
        if not self._library.store.readonly:
            with suppress(UserError):  # disk full: the library is complete without
                self._library.store.set(self.KEY, self._known)

    def _best(self, search, allowed) -> np.ndarray:
        """(K,) best scores of the unrelated sentences among some moments."""
        if self._queries is None:
            sentences = read_sentences(None)
            checks = self._library.model.model.inspect_sentences(sentences)
            known = [s for s, (_, wrong) in zip(sentences, checks, strict=True) if wrong is None]
            self._queries = self._library.embed_statements(known) if len(known) >= FEWEST else {}
        if not self._queries:
            return np.zeros(0)
        hits = search(self._queries, 1, allowed)
        return np.nan_to_num(hits.score[:, 0])

    def _key(self, numbers: np.ndarray) -> str:
        """What the scores depend on: the videos, whose numbers never come again, and the score."""
        settings = json.dumps(self._library.settings, sort_keys=True).encode()
        return hashlib.sha256(numbers.tobytes() + settings).hexdigest()[:16]
