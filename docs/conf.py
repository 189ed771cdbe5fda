"""How the documentation is built."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.util import logging

import fastfisher
from fastfisher._version import __version__

sys.path.insert(0, str(Path(__file__).parent))
from _gallery import gallery

project = "fastfisher"
author = "fastfisher contributors"
copyright = "2026, fastfisher contributors"
version = release = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
numpydoc_show_class_members = False
default_role = "autolink"  # of docstrings: `DenseFisher` is a link, `scores` is not
autodoc_typehints = "none"
html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = f"fastfisher {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_sidebars = {"**": ["contents"]}
html_theme_options = {
    "navbar_center": [],
    "navbar_persistent": [],
    "navbar_end": ["search-button", "theme-switcher"],
    "show_prev_next": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sphinx = False

MARK = "<!-- examples -->"
NAME = re.compile(r"(?:ff\.|fastfisher\.)?(\w+(?:\.\w+)*)(?:\(.*\))?")


def fill_gallery(app, docname, source):
    """Put the entries where the page of the gallery has its mark."""
    if docname == "gallery":
        source[0] = source[0].replace(MARK, gallery())


def link_names(app, document):
    """Make each public name that stands as code in a text a link to its entry."""
    for literal in list(document.findall(nodes.literal)):
        found = NAME.fullmatch(literal.astext())
        linked = isinstance(literal.parent, nodes.reference | addnodes.pending_xref)
        if linked or not found or found[1].split(".")[0] not in fastfisher.__all__:
            continue
        target = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=f"fastfisher.{found[1]}", refwarn=False
        )
        literal.replace_self(target)
        target += literal


def write_formula(writer, node):
    """Write a formula as MathML, which browsers draw themselves: no script, no network."""
    try:
        writer.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logging.getLogger(__name__).warning("%s", error, location=node)
    raise nodes.SkipNode


def setup(app):
    """Connect what is generated here."""
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("source-read", fill_gallery)
    app.connect("doctree-read", link_names)
