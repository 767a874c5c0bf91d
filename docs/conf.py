"""Sphinx builds the documentation with these settings; `make docs` runs it."""

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from flax import nnx
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

project = "s5jax"
author = "the authors of s5jax"
html_title = "s5jax"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # `make notebooks` executes them

default_role = "py:obj"  # names in single backquotes in docstrings are references
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the docstrings give shapes and types
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

nitpick_ignore_regex = [
    (r"py:.*", r"(jax|flax|numpy|optax|collections)\..*"),  # their pages are not on this machine
    (r"py:class", r"Numbers|Number"),  # aliases of Preprocessing's fields
]


FOLDER = Path(__file__).parent
shutil.rmtree(FOLDER / "notebooks", ignore_errors=True)
shutil.copytree(FOLDER.parent / "notebooks", FOLDER / "notebooks")  # Sphinx reads one folder


def link_notebooks(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces links to the notebooks by links to the copies that are made above."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


def show_constructor(
    app: Sphinx, what: str, name: str, cls: Any, options: Any, signature: str, returns: str
) -> tuple[str, None] | None:
    """Shows a module's constructor, where Sphinx would show the metaclass of Flax."""
    if what != "class" or not issubclass(cls, nnx.Module):
        return None
    found = inspect.signature(cls.__init__)
    parameters = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    return re.sub(r"<class '([\w.]+)'>", r"\1", str(inspect.Signature(parameters[1:]))), None


def visit_math(translator: HTML5Translator, node: nodes.Element) -> None:
    """Writes an equation as MathML, which browsers show without scripts and fonts."""
    block = isinstance(node, nodes.math_block)
    try:
        equation = latex2mathml.tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s", error, location=node)
        equation = node.astext()
    equation = equation.replace(' accent="true"', "")  # with it, Chrome draws bars into letters
    translator.body.append(f'<div class="math">{equation}</div>' if block else equation)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Registers the functions above."""
    app.connect("source-read", link_notebooks)
    app.connect("autodoc-process-signature", show_constructor)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
