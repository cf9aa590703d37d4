"""Sphinx configuration: ``python -m sphinx -W docs docs/_build/html``.

Nothing is downloaded. With ``DOCS_ONLINE=1`` names of PyTorch, NumPy and MMEngine link to their
documentation, whose indexes are fetched.
"""

import os
import re
from pathlib import Path

import mmn_plugin

project = 'mmn_plugin'
author = 'mmn_plugin authors'
copyright = '2026, mmn_plugin authors'
version = release = mmn_plugin.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build', 'results']
html_theme = 'furo'
html_title = f'mmn_plugin {version}'
html_copy_source = False

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 4

default_role = 'literal'  # `name` in a docstring is code
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False
autodoc_typehints = 'signature'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

if os.environ.get('DOCS_ONLINE') == '1':
    extensions.append('sphinx.ext.intersphinx')
    intersphinx_mapping = {
        'python': ('https://docs.python.org/3', None),
        'torch': ('https://docs.pytorch.org/docs/stable', None),
        'numpy': ('https://numpy.org/doc/stable', None),
        'mmengine': ('https://mmengine.readthedocs.io/en/latest', None),
    }


def setup(app):
    """Connect what changes docstrings and pages on their way into the site."""

    def without_colon(app, what, name, obj, options, lines):
        """Keep napoleon from reading "Ground truth: ..." of a property as its type."""
        if what == 'property' and lines:
            lines[0] = lines[0].replace(': ', ' \N{EN DASH} ', 1)

    def link_to_included(app, docname, source):
        """Files of tools/data/ are links on GitHub; in the site they are sections of data.md."""

        def section(match):
            title, *_ = (Path(app.srcdir) / match[1]).read_text(encoding='utf-8').splitlines()
            return f'](data.md#{match[2] or title.removeprefix("# ").lower().replace(" ", "-")})'

        link = r'\]\((\.\./tools/data/\w+/README\.md)(?:#([\w-]+))?\)'
        source[0] = re.sub(link, section, source[0])

    app.connect('autodoc-process-docstring', without_colon, priority=400)  # before napoleon
    app.connect('source-read', link_to_included)
