"""The page of `mmn web`. Gradio is imported when it is built."""

from .sessions import Limits, PageError, SessionStore, UserSession

__all__ = ['Limits', 'PageError', 'SessionStore', 'UserSession']
