"""Sphinx builds the documentation with these settings; `make docs` runs it."""

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

project = "s5jax"
author = "the authors of s5jax"
html_title = "s5jax"
html_theme = "furo"
html_math_renderer = "mathml"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]

exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebooks` executes them

default_role = "py:obj"  # names in single backquotes in docstrings are references
autodoc_typehints = "none"  # the docstrings give shapes and types
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

nitpick_ignore_regex = [
    (r"py:.*", r"(jax|flax|numpy|optax|collections)\..*"),  # their pages are not on this machine
    (r"py:class", r"Numbers|Number"),  # aliases of Preprocessing's fields
]


def visit_math(translator: HTML5Translator, node: nodes.Element) -> None:
    """Writes an equation as MathML, which browsers show without scripts and fonts."""
    block = isinstance(node, nodes.math_block)
    try:
        equation = latex2mathml.tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s", error, location=node)
        equation = node.astext()
    translator.body.append(f'<div class="math">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Registers the renderer of equations."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
