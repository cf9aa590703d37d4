"""Configs are written over and over."""


def remember_formatting() -> None:
    """Format a config's text once per process: a run asks four times, for half a second of yapf."""
    from mmengine.config import config

    known, form = {}, config.FormatCode

    def remembered(text, *args, **kwargs):
        if text not in known:
            known[text] = form(text, *args, **kwargs)
        return known[text]

    config.FormatCode = remembered
