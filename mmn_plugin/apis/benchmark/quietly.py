"""Work whose log would bury the figures."""

import logging
from contextlib import contextmanager


@contextmanager
def quietly():
    """Log warnings and worse only."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
