"""How the documentation is built. Every warning of sphinx fails the build (see Makefile)."""

import sys
from pathlib import Path

import skmm

sys.path.insert(0, str(Path(__file__).parent))  # sphinx-gallery imports gallery_order by name

project = "skmm"
author = "the skmm developers"
copyright = "2026, the skmm developers"
version = release = skmm.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "code"
# A reference to a name of skmm that is not there fails the build; others have no pages here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(sklearn|torch|skorch)\..*")]

# numpydoc sections say what a parameter may be; hints would say it again, less well.
autodoc_typehints = "none"
autosummary_generate = True
# A class page lists its methods by the template in _templates/autosummary.
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "skmm"
html_static_path = ["_static"]
html_css_files = ["skmm.css"]
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "doc_module": ("skmm",),
    "backreferences_dir": "gen_modules",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1,
    "within_subsection_order": "gallery_order.QuickstartFirst",
}


def skip_inherited(app, what, name, obj, skip, options):
    """Leave what scikit-learn and torch document to their own pages."""
    home = getattr(obj, "__module__", None) or ""
    return True if home.startswith(("sklearn", "torch")) else None


def setup(app):
    app.connect("autodoc-skip-member", skip_inherited)
