"""Settings of Sphinx: ``python -m sphinx -W --keep-going docs docs/_build`` builds the pages."""

import sys
from pathlib import Path

# The package beside these pages is what they describe, installed or not.
sys.path.insert(0, str(Path(__file__).parent.parent))

from gpuconv import __version__

project = "gpuconv"
release = __version__
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"gpuconv {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

# Quotes in docstrings are those of strings.
smartquotes = False
# `a name` is a link where there is such an object, and code where there is none.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# The template of a class lists its members, those of its base too.
numpydoc_show_class_members = False
# Some file systems take Plan.rst and plan.rst for one file.
autosummary_filename_map = {
    f"gpuconv.{name}": f"gpuconv.{name}-class"
    for name in ("Plan", "report.Checkerboard", *(f"dialects.pytorch.Conv{ndim}d" for ndim in (1, 2, 3)))
}

# Headings can be linked to, as on code hosts.
myst_heading_anchors = 3
