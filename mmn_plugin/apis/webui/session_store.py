"""The videos of all visitors, and when they are deleted."""

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from mmn_plugin.features import VIDEO_SUFFIXES, VideoLimitError, VideoReadError, probe_video

from .limits import Limits
from .page_error import PageError
from .user_session import UserSession, link_or_copy

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

        Returns:
            UserSession: The visitor's session.

        Raises:
            PageError: If the file is no video, too large or too long, or there are too many
                visitors.
        """
        path, shown = Path(path), Path(name).name[:80]
        self._require_room(user)
        folder = self.videos / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        suffix = Path(name).suffix.lower()
        kept = folder / ('video' + (suffix if suffix in VIDEO_SUFFIXES else ''))
        try:
            link_or_copy(path, kept)
            info = probe_video(kept, self.limits.pixels, self.limits.work_seconds)
            self.limits.check_video(kept.stat().st_size, info.duration)
        except VideoLimitError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise PageError(f'“{shown}” is too much for this page: {error.reason}.') from error
        except (VideoReadError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise PageError(
                f'“{shown}” cannot be read as a video. Try an .mp4, .webm or .mov file.'
            ) from error
        except PageError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._keep(user, UserSession(shown, kept, info.duration, folder))

    def open_example(self, user: str, path: Path, name: str, truth: dict) -> UserSession:
        """Give a visitor a built-in video, in place of the one before.

        Raises:
            PageError: If too many visitors are here.
        """
        self._require_room(user)
        return self._keep(user, UserSession(name, path, probe_video(path).duration, None, truth))

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
        """Delete what a visitor had; nothing happens where there is nothing."""
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
        for user in [
            user for user, session in list(self._sessions.items()) if session.used < oldest
        ]:
            self.close(user)
        for path in sorted(self.uploads.rglob('*'), reverse=True):  # files before their folders
            try:
                if time.time() - path.stat().st_mtime < self.upload_seconds:
                    continue
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                continue  # still being written to, or gone already

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
