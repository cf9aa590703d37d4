"""The page of tools/webui.py. Gradio is imported by `GroundingPage` alone, when it is built."""

from .limits import Limits
from .page_error import PageError
from .session_store import SessionStore
from .user_session import UserSession

__all__ = ['Limits', 'PageError', 'SessionStore', 'UserSession']
