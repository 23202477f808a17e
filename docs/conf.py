"""Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs build/docs``.

``-W`` makes a link that leads nowhere, a page that is in no list, and a docstring that cannot be
read an error. ``pip install '.[docs]'`` has what it takes.
"""

from __future__ import annotations

from supervisor_sio import __version__

project = "supervisor-sio"
author = "the authors of supervisor-sio"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4  # links to headings, with the names that forges give them
suppress_warnings = ["misc.highlighting_failure"]  # "…" stands for what a snippet leaves out

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"

html_theme = "furo"
html_title = f"supervisor-sio {release}"
