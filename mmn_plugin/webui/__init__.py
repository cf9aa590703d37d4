"""The page of tools/webui.py. Gradio is imported when it is built."""

from .sessions import Limits, PageError, SessionStore, UserSession

__all__ = ['Limits', 'PageError', 'SessionStore', 'UserSession']
