"""Command lines: the command ``mmn``, and what the scripts in tools/ share."""
