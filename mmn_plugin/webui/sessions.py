"""Sessions of visitors, and what limits them."""

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from mmn_plugin.errors import InputError
from mmn_plugin.features import VIDEO_SUFFIXES, VideoLimitError, VideoReadError, probe_video
from mmn_plugin.structures import VideoEmbedding


class PageError(InputError):
    """A message for the visitor, to be shown on the page."""


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Args:
        megabytes (float): Size of an upload, in units of 2 ** 20 bytes. Defaults to 200.
        seconds (float): Length of an uploaded video. Defaults to 600.
        sentences (int): Sentences of a question. Defaults to 8.
        characters (int): Characters of a sentence. Defaults to 300.
        idle_seconds (float): An upload is deleted after so long without a question, even if its
            page is still open. Defaults to 1800.
        visitors (int): Visitors that can have a video at the same time. Defaults to 16.
        pixels (int): Pixels of a video's picture. Defaults to those of 4096 x 2304.
        work_seconds (float): Time that may be spent on reading a video. Defaults to 120.

    Raises:
        ValueError: If a limit is not above 0.
    """

    megabytes: float = 200
    seconds: float = 600
    sentences: int = 8
    characters: int = 300
    idle_seconds: float = 1800
    visitors: int = 16
    pixels: int = 4096 * 2304
    work_seconds: float = 120

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f'the limit {name}={value} must be above 0')

    @property
    def bytes(self) -> int:
        """Size of an upload."""
        return int(self.megabytes * 2**20)

    def check_video(self, size: int, seconds: float) -> None:
        """Raise a `PageError` if a video is too large (bytes) or too long."""
        if size > self.bytes:
            raise PageError(
                f'The file has {size / 2**20:.1f} MB; at most {self.megabytes:g} MB are taken here.'
            )
        if seconds > self.seconds:
            raise PageError(
                f'The video is {_minutes(seconds)} long; at most '
                f'{_minutes(self.seconds)} are taken here.'
            )

    def split_sentences(self, text: str) -> list[str]:
        """The sentences of a text, one a line, each once.

        Raises:
            PageError: If there is none, there are too many, or one is too long.
        """
        lines = (' '.join(line.split()) for line in text.splitlines())
        sentences = list(dict.fromkeys(line for line in lines if line))
        if not sentences:
            raise PageError('Type a sentence that says what to look for.')
        if len(sentences) > self.sentences:
            raise PageError(
                f'These are {len(sentences)} sentences; ask for at most {self.sentences} at a time.'
            )
        for sentence in sentences:
            if len(sentence) > self.characters:
                raise PageError(
                    f'The sentence “{sentence[:40]}…” has {len(sentence):,} '
                    f'characters; at most {self.characters} are taken.'
                )
        return sentences


def _minutes(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f'{whole} min {rest} s' if whole and rest else f'{whole} min' if whole else f'{rest} s'


@dataclass
class UserSession:
    """A video that one visitor chose, with what the model has made of it.

    Attributes:
        name (str): The video's name, as the visitor knows it.
        path (Path): The file that is played.
        duration (float): Seconds.
        folder (Path | None): Folder to delete with the session; None for an example's, which
            all visitors share.
        truth (dict): Sentence -> its true windows (start, end), where known.
        encoded (VideoEmbedding | None): None until the model has seen the video.
        used (float): When it was last asked about (`time.monotonic`).
        deleted (bool): Whether the visitor has left it; nothing more is to be done for it.
    """

    name: str
    path: Path
    duration: float
    folder: Path | None = None
    truth: dict = field(default_factory=dict)
    encoded: VideoEmbedding | None = None
    used: float = field(default_factory=time.monotonic)
    deleted: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def delete(self) -> None:
        """Forget the video; its file is deleted if it was uploaded."""
        self.encoded, self.deleted = None, True
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


PREFIX = 'mmn_webui_'
# Gradio names an upload after its contents, so that two visitors' same file is one file. A visitor
# holds a link of his own; the upload itself goes as soon as nobody can still be about to link it.
UPLOAD_SECONDS = 10.0


class SessionStore:
    """Keeps an upload as long as its visitor is there, in a folder that is deleted at the end.

    Args:
        limits (Limits): Size, length, idle time.
        upload_seconds (float): When to delete an upload under the name that Gradio gave it.
            Defaults to 10.

    Attributes:
        folder (Path): Everything that is ever written lies below it.
        uploads (Path): Where Gradio puts uploads (``GRADIO_TEMP_DIR``).
        videos (Path): Where visitors' videos lie, each in a folder with an unguessable name.
    """

    def __init__(self, limits: Limits, upload_seconds: float = UPLOAD_SECONDS) -> None:
        _delete_remains()
        self.limits, self.upload_seconds = limits, upload_seconds
        self.folder = Path(tempfile.mkdtemp(prefix=f'{PREFIX}{os.getpid()}_'))
        self.uploads, self.videos = self.folder / 'uploads', self.folder / 'videos'
        self.uploads.mkdir()
        self.videos.mkdir()
        self._sessions: dict[str, UserSession] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()

    def __enter__(self) -> 'SessionStore':
        threading.Thread(target=self._sweep_regularly, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.close_all()

    def open_upload(self, user: str, path: str | Path, name: str) -> UserSession:
        """Give a visitor the video that was uploaded, in place of the one before.

        Args:
            user (str): The visitor.
            path (str | Path): The upload.
            name (str): Its name on the visitor's machine.

        Raises:
            PageError: If the file is no video, too large or too long, or there are too many
                visitors.
        """
        self._require_room(user)
        folder = self.videos / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        suffix = Path(name).suffix.lower()
        kept = folder / ('video' + (suffix if suffix in VIDEO_SUFFIXES else ''))
        try:
            try:
                os.link(path, kept)  # lives on when the upload is deleted
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(path, kept)
            session = self._open(kept, Path(name).name[:80], folder)
            self.limits.check_video(kept.stat().st_size, session.duration)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):  # such as a full disk
                reason = error.strerror
                raise PageError(f'“{name}” could not be stored here: {reason}.') from error
            raise
        return self._keep(user, session)

    def open_example(self, user: str, path: Path, name: str, truth: dict) -> UserSession:
        """Give a visitor a built-in video, in place of the one before.

        Raises:
            PageError: If the file is no video, or too many visitors are here.
        """
        self._require_room(user)
        return self._keep(user, self._open(path, name, truth=truth))

    def get(self, user: str) -> UserSession:
        """The visitor's session.

        Raises:
            PageError: If the visitor has no video, or it was deleted after a while.
        """
        with self._lock:
            session = self._sessions.get(user)
            if session is None:
                raise PageError(
                    'Choose a video first. (A video is deleted after '
                    f'{self.limits.idle_seconds / 60:g} minutes without a question.)'
                )
            session.used = time.monotonic()
            return session

    def close(self, user: str) -> None:
        """Delete what a visitor had, if anything."""
        with self._lock:
            session = self._sessions.pop(user, None)
        if session is not None:
            session.delete()

    def close_all(self) -> None:
        """Delete everything."""
        self._stop.set()
        for user in list(self._sessions):
            self.close(user)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what was left: uploads that are linked by now, and videos nobody asks about."""
        oldest = time.monotonic() - self.limits.idle_seconds
        for user, session in list(self._sessions.items()):
            if session.used < oldest:
                self.close(user)
        for path in sorted(self.uploads.rglob('*'), reverse=True):  # files before their folders
            try:
                if time.time() - path.stat().st_mtime < self.upload_seconds:
                    continue
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                continue  # still being written to, or gone already

    def _open(self, path: Path, name: str, folder: Path | None = None, **more) -> UserSession:
        try:
            info = probe_video(path, self.limits.pixels, self.limits.work_seconds)
        except VideoLimitError as error:
            raise PageError(f'“{name}” is too much for this page: {error.reason}.') from error
        except VideoReadError as error:
            raise PageError(
                f'“{name}” cannot be read as a video. Try an .mp4, .webm or .mov file.'
            ) from error
        return UserSession(name, path, info.duration, folder, **more)

    def _keep(self, user: str, session: UserSession) -> UserSession:
        self.close(user)
        with self._lock:
            self._sessions[user] = session
        return session

    def _require_room(self, user: str) -> None:
        if user not in self._sessions and len(self._sessions) >= self.limits.visitors:
            raise PageError(
                'Too many people are looking at videos here; try again in some minutes.'
            )

    def _sweep_regularly(self) -> None:
        while not self._stop.wait(min(self.upload_seconds, self.limits.idle_seconds) / 2):
            self.sweep()


def _delete_remains() -> None:
    """Delete the folders of earlier pages of this user that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f'{PREFIX}*'):
        found = re.match(rf'{PREFIX}(\d+)_', folder.name)
        if found and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
            except PermissionError:
                continue
