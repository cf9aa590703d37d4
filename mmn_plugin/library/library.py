"""Videos that are embedded once, and searched for sentences."""

import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from mmn_plugin.apis import Candidate, GroundingInferencer
from mmn_plugin.errors import InputError, UserError
from mmn_plugin.features.feature_file import require_same_extractor
from mmn_plugin.files import OutputFolder
from mmn_plugin.structures import VideoEmbedding

from .adding import INCOMING, Adder, LibraryReport, Source, find_sources
from .answers import GROUPS, Hit, LibraryPresence, best_moments, hit_candidates, reranked
from .database import NAME
from .model_folder import (
    file_digests,
    identity_of,
    read_model,
    require_same_model,
    write_model,
)
from .moment_store import MomentStore, Snapshot, StoredVideo
from .search import ExactSearch
from .store import FolderStore

SENTENCES = 256  # that are ranked together


class MomentLibrary:
    """A folder of embedded videos, which sentences are searched in.

    Which video, and when: all moments of all videos are ranked by the model's score, the first n
    exactly (`ExactSearch`), moments that overlap a better one of their video suppressed. A search
    needs the folder alone: it holds the model too. Several threads may search; one process adds at
    a time, and searches go on meanwhile.

    Args:
        folder (str | Path): The library; `create` makes one.
        model (GroundingInferencer, optional): The library's model, where it is loaded already.
            Defaults to None: it is loaded from the folder when it is needed.
        device (str, optional): Of the model, and of the search. Defaults to None: the accelerator
            if there is one for the model, and the CPU for the search.
        readonly (bool): Whether changes are refused. Defaults to True.
        store (MomentStore, optional): Where videos and moments are kept. Defaults to None: in the
            folder (`FolderStore`).

    Attributes:
        settings (dict): Of the score over all videos, ``nms_threshold`` and
            ``presence_threshold``: the config's ``library``, see ``BaseHead.library_defaults``.

    Raises:
        FileNotFoundError: If it is no library.
        ValueError: If another model made it.

    Examples:
        >>> library = MomentLibrary.create('LIB', GroundingInferencer('zero_shot_siglip2'))
        >>> library.add('videos/')
        >>> library.search('a red ball moves left', top=5)
        [[Hit(video_id='a', path='/videos/a.mp4', start=3.0, end=4.5, score=0.8, ...), ...]]
    """

    def __init__(
        self,
        folder: str | Path,
        model: GroundingInferencer | None = None,
        device: str | None = None,
        readonly: bool = True,
        store: MomentStore | None = None,
    ) -> None:
        self.folder, self._device = Path(folder), device
        self.store = FolderStore(self.folder, readonly) if store is None else store
        self._identity = self.store.get('identity')
        self.settings: dict = self.store.get('settings')
        if self._identity is None or self.settings is None:
            raise InputError(
                f'{self.folder} was never finished: make it again (`mmn library add` with a model)'
            )
        if model is not None:
            require_same_model(self._identity, identity_of(model), self.folder)
            self.model = model
        self._lock = threading.Lock()
        self._searcher: tuple[Snapshot, ExactSearch] | None = None
        self.presence = LibraryPresence(self)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: GroundingInferencer,
        settings: Mapping | None = None,
        dtype: str = 'float16',
    ) -> 'MomentLibrary':
        """Make an empty library, with what a search needs of the model.

        Args:
            folder (str | Path): Does not exist, or is empty.
            model (GroundingInferencer): Embeds videos and sentences.
            settings (Mapping, optional): In place of the config's ``library``. Defaults to None.
            dtype (str): How vectors are stored, ``'float16'`` or ``'float32'``. Defaults to
                ``'float16'``.

        Raises:
            ValueError: If the folder is a library or holds something else, or there is no such
                setting.
            OutputError: If it cannot be written.
        """
        folder, head = Path(folder), model.model.head
        given = dict(model.config.get('library') or {}) | dict(settings or {})
        if unknown := given.keys() - head.library_defaults:
            raise InputError(
                f'library.{min(unknown)}: the settings of a library of this model are '
                f'{", ".join(head.library_defaults)}'
            )
        settings = head.library_defaults | given
        head.library_score(settings)  # which refuses what it cannot use
        if cls.exists(folder):
            raise InputError(f'{folder} is a library already: open it, or name another folder')
        begun = (folder / NAME).is_file()
        store = FolderStore(folder) if begun else FolderStore.create(folder, dtype)
        write_model(folder, model)
        for key, value in dict(
            settings=settings, files=file_digests(folder), identity=identity_of(model)
        ).items():
            store.set(key, value)
        return cls(folder, model, readonly=False, store=store)

    @staticmethod
    def exists(folder: str | Path) -> bool:
        """Whether there is a library; one that `create` was interrupted at is none yet."""
        if not (Path(folder) / NAME).is_file():
            return False
        return FolderStore(folder, readonly=True).get('identity') is not None

    @cached_property
    def model(self) -> GroundingInferencer:
        """The model."""
        return read_model(self.folder, self._device)

    @cached_property
    def score(self) -> Callable:
        """The score over all videos, see ``BaseHead.library_score``."""
        return self.model.model.head.library_score(self.settings)

    def current(self) -> tuple[Snapshot, ExactSearch]:
        """The library as it is now, and the search over it."""
        snapshot = self.store.snapshot()
        with self._lock:
            if self._searcher is None or self._searcher[0] is not snapshot:
                search = ExactSearch(snapshot.segments, self.score, self._device or 'cpu')
                self._searcher = snapshot, search
            return self._searcher

    def add(
        self,
        videos,
        workers: int | None = None,
        progress: Callable | None = None,
        durations: Mapping[str, float] | None = None,
    ) -> LibraryReport:
        """Add videos that are not there yet; called again after a kill it goes on.

        Args:
            videos: Paths of videos, folders of videos, files or folders of features, see
                `find_sources`.
            workers (int, optional): Videos that are decoded at a time, as of `extract_videos`.
                Defaults to None: as many as suit the extractor.
            progress (Callable, optional): See `Adder`; such as `ProgressBar`. Defaults to None.
            durations (Mapping[str, float], optional): Seconds by name, of features that do not
                tell how long their videos are. Defaults to None.

        Returns:
            LibraryReport: What was added, and why some could not be.

        Raises:
            ValueError: If features come from another extractor than those that are there.
            FileInUseError: If another process is adding.
        """
        report = LibraryReport()
        sources = find_sources(videos, report)
        Adder(self, report, durations, progress).add(sources, workers)
        return report

    def update(
        self,
        videos=None,
        remove_missing: bool = False,
        workers: int | None = None,
        progress: Callable | None = None,
        durations: Mapping[str, float] | None = None,
    ) -> LibraryReport:
        """Embed anew the videos whose files have changed.

        Args:
            videos: As of `add`; new ones are added. Defaults to None: all that are there.
            remove_missing (bool): Remove videos whose files are gone. Defaults to False.
            workers (int, optional): As of `add`.
            progress (Callable, optional): Likewise.
            durations (Mapping[str, float], optional): Likewise; by default as long as they were.

        Returns:
            LibraryReport: As of `add`.
        """
        report = LibraryReport()
        if videos is None:
            rows = self.store.snapshot().videos.values()
            sources = [Source(row.path, row.folder, row.video_id) for row in rows if row.path]
        else:
            sources = find_sources(videos, report)
        Adder(self, report, durations, progress, update=True).add(sources, workers)
        if remove_missing and report.missing:
            self.remove(report.missing)
            report.removed, report.missing = report.missing, []
        return report

    def add_encoded(
        self, videos: Iterable[VideoEmbedding], paths: Mapping[str, str] | None = None
    ) -> None:
        """Add videos that `GroundingInferencer.encode` (or a dataset's `encode_pooled`) gave.

        In one transaction, in place of videos of the same ids.

        Args:
            videos (Iterable[VideoEmbedding]): With their ids.
            paths (Mapping[str, str], optional): Their files by id. Defaults to None: none.
        """
        paths = paths or {}
        rows = []
        for video in videos:
            path = paths.get(video.video_id, '')
            folder = Path(path).parent.name if path else ''
            rows.append(
                StoredVideo(
                    video.video_id, path, folder, video.duration, None, {}, self.units(video)
                )
            )
        self.store.add(rows, replace=True)

    def units(self, video: VideoEmbedding) -> VideoEmbedding:
        """What is stored of a video: its moments in the spaces of the score."""
        units = self.model.model.head.library_units(video)
        spaces = {space: units.embeddings[space] for space in self.score.spaces}
        return replace(units, embeddings=spaces)

    def require_extractor(self, fingerprint: dict | None, name: str) -> None:
        """Refuse features of another extractor than those that are there; the first tells it."""
        theirs = self.store.get('extractor')
        if theirs is not None:
            require_same_extractor([theirs], [fingerprint], str(self.folder), [name])
        elif fingerprint is not None:
            self.store.set('extractor', fingerprint)

    def remove(self, video_ids: str | Sequence[str]) -> int:
        """Remove videos; their moments' rows are freed by `compact`.

        Returns:
            int: How many.

        Raises:
            ValueError: If one is not there.
        """
        ids = [video_ids] if isinstance(video_ids, str) else list(video_ids)
        self.store.select(video_ids=ids)  # which refuses unknown ones
        count = self.store.remove(ids)
        with suppress(UserError):  # other videos' moments are damaged
            self.presence.measured()
        return count

    def compact(self) -> None:
        """Write all moments into new segments, with rotations of their own, and free the space of
        removed ones, and of features that an interrupted `add` has left.
        """
        (self.folder / INCOMING).unlink(missing_ok=True)
        shutil.rmtree(self.folder / f'{INCOMING}.parts', ignore_errors=True)
        self.store.compact()

    def verify(self) -> list[str]:
        """Compare all files with their checksums; one line for each damage."""
        kept, found = self.store.get('files', {}), file_digests(self.folder)
        damaged = [
            f'{self.folder / name}: {"is gone" if name not in found else "has changed"}: restore '
            'it from a copy, or make the library anew'
            for name, digest in kept.items()
            if found.get(name) != digest
        ]
        return damaged + self.store.verify()

    def info(self) -> dict:
        """Sizes as of ``FolderStore.info``, with the ``settings``, the ``model`` (its method, and
        ``model_bytes``), the ``extractor`` of the features, and ``presence``: of how many unrelated
        sentences.
        """
        model = self._identity['settings']
        tower = (model.get('tower') or {}).get('model')
        known = self.store.get(LibraryPresence.KEY)
        files = [self.folder / name for name in self.store.get('files', {})]
        return dict(
            self.store.info(),
            model=model['type'] if tower is None else f'{model["type"]} ({tower})',
            model_bytes=sum(file.stat().st_size for file in files if file.is_file()),
            settings=self.settings,
            extractor=self.store.get('extractor'),
            presence=0 if known is None else len(known['scores']),
        )

    def export(self, path: str | Path) -> None:
        """Write all moments into an HDF5 file, see `Snapshot.export`."""
        self.store.snapshot().export(path, settings=self.settings, identity=self._identity)

    def search(
        self,
        sentences: str | Sequence[str],
        top: int = 20,
        videos: str | Sequence[str] | None = None,
        where: str | None = None,
        group: str = 'moment',
        page: int = 1,
        rerank: Callable[[list[Hit]], list[Hit]] | None = None,
    ) -> list[list[Hit]]:
        """The best moments of each sentence, in all videos or some.

        Args:
            sentences (str | Sequence[str]): One or more.
            top (int): Moments of a page. Defaults to 20.
            videos (str | Sequence[str], optional): Ids of the videos to look at. Defaults to None:
                all.
            where (str, optional): Which videos to look at, see ``FolderStore.select``:
                ``"folder = 'kitchen' and duration < 600"``. Defaults to None: all.
            group (str): ``'moment'``, or ``'video'``: the best moment of each video. Defaults to
                ``'moment'``.
            page (int): 2 is what follows the first ``top``, and so on. Defaults to 1.
            rerank (Callable, optional): Gets the hits of a page of a sentence, and returns them in
                another order, or some of them. Defaults to None.

        Returns:
            list[list[Hit]]: Of each sentence, best first; fewer where there are no more.

        Raises:
            ValueError: If a sentence is empty or holds no word that the model knows, a video is
                not there, or ``where`` cannot be used.
        """
        for name, value in dict(top=top, page=page).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f'{name}={value!r}: give a whole number of 1 or more')
        if group not in GROUPS:
            raise InputError(f'group={group!r}; it must be one of {list(GROUPS)}')
        sentences = self.model.check_sentences(sentences)
        snapshot, search = self.current()
        videos = [videos] if isinstance(videos, str) else videos
        some = where is not None or videos is not None
        allowed = snapshot.allowed(self.store.select(where, videos) if some else None)
        answers = []
        for first in range(0, len(sentences), SENTENCES):
            queries = self.embed(sentences[first : first + SENTENCES])
            count, threshold = top * page, self.settings['nms_threshold']
            for found in best_moments(search, snapshot, queries, allowed, count, threshold, group):
                own = (column[top * (page - 1) :] for column in found)
                answers.append(self._hits(snapshot, *own))
        return answers if rerank is None else [reranked(hits, rerank) for hits in answers]

    def candidates(
        self,
        sentence: str,
        n: int = 3,
        pad: float = 5.0,
        out_dir: str | Path | None = None,
        refine: Callable | None = None,
        **options,
    ) -> list[Candidate]:
        """Clips of the best moments of a sentence, for a video LLM that may refine them.

        Args:
            sentence (str): What to look for.
            n (int): Candidates at most. Defaults to 3.
            pad (float): As of `find_candidates`. Defaults to 5.
            out_dir (str | Path, optional): Likewise.
            refine (Callable, optional): Likewise.
            **options: Of `search`.

        Returns:
            list[Candidate]: As of `find_candidates`.

        Raises:
            FileNotFoundError: If a video is not where it was.
        """
        (hits,) = self.search(sentence, max(n, 1), **options)
        folder = OutputFolder(out_dir) if out_dir else None
        return hit_candidates(sentence, hits, n, pad, folder, refine)

    def embed(self, sentences: list[str]) -> dict[str, Tensor]:
        """Unit vectors (S, J) of sentences in the spaces of the score, on the CPU."""
        rewrite = self.model.rewrite
        return self.embed_statements(list(map(rewrite, sentences)) if rewrite else sentences)

    def embed_statements(self, sentences: list[str]) -> dict[str, Tensor]:
        """As `embed`, of sentences that are not rewritten."""
        found = self.model.model.sentence_vectors(sentences, self.model.sentence_batch)
        return {space: found[space] for space in self.score.spaces}

    def _hits(self, snapshot: Snapshot, videos, spans, scores) -> list[Hit]:
        presence = self.presence.of(scores)
        presence = [None] * len(scores) if presence is None else presence.tolist()
        found = zip(videos.tolist(), spans.tolist(), scores.tolist(), presence, strict=True)
        hits = []
        for video, span, score, there in found:
            row = snapshot.videos[video]
            hits.append(Hit(row.video_id, row.path, *span, score, there, row.duration))
        return hits
