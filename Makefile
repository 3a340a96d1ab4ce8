# Plain `make` lists the targets.
PYTHON ?= python3
N ?= 50
ONLY ?=
RUN = .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help html table measure publish-measurements test doctest notebooks demos soak new-demo setup-block serve lab epub audit linkcheck lint lock inventories bench-build clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

html:  ## set up, execute demos and notebooks, check their claims, write the site to build/html/
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/build.py html

table:  ## measure the truth table and the guard's ablation (minutes; remembered), for make html to show
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/measure.py table ablation

measure:  ## measure all that the site's tables show, or ONLY=one of them, for make html to show
	@$(PYTHON) tools/bootstrap.py html test
	@$(RUN) tools/measure.py $(ONLY)

publish-measurements:  ## keep in doc/measured what was measured last (all, or ONLY=one of them)
	@$(RUN) tools/measure.py --publish $(ONLY)

test:  ## set up and run the whole test suite, doctest included
	@$(PYTHON) tools/bootstrap.py html test
	@$(RUN) -m pytest -n 2 --dist loadgroup $(ARGS)

doctest:  ## execute every block of every page against a real PostgreSQL
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/build.py doctest

notebooks:  ## execute the notebooks, without Sphinx
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/run_notebooks.py notebooks/*.ipynb

demos:  ## run the demos as plain scripts, without Sphinx (ONLY=part of a name)
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/run_demos.py $(ONLY)

soak:  ## run every demo N times (default 50) with every core kept busy
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/run_demos.py --load -n $(N) $(ONLY)

new-demo:  ## start a demo: make new-demo NAME=2_fixes/my_claim
	@$(PYTHON) tools/new_demo.py $(NAME)

setup-block:  ## copy demos/_setup.py into every demo
	@$(PYTHON) tools/setup_block.py

serve:  ## live reload while writing, on 127.0.0.1
	@$(PYTHON) tools/bootstrap.py html serve
	@$(RUN) -m sphinx_autobuild --host 127.0.0.1 --port 0 --open-browser --watch demos --watch notebooks \
		--re-ignore 'doc/(gallery|notebooks)/' -c . -d build/doctrees doc build/html

lab:  ## open the notebooks in JupyterLab (installs it)
	@$(PYTHON) tools/bootstrap.py html lab
	@$(RUN) -m jupyterlab --notebook-dir notebooks $$(test "$$(id -u)" != 0 || echo --allow-root)

epub:  ## the site as one book, build/epub/poolfork.epub
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/build.py epub

audit:  ## weigh the built site's pages, run axe-core and Lighthouse on them (ONLY=part of a name; needs a browser, npx)
	@$(PYTHON) tools/bootstrap.py html test
	@$(RUN) tools/audit.py $(ONLY)

linkcheck:  ## check the links to other sites (needs the network)
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/build.py linkcheck

lint:  ## ruff, mypy, codespell, sphinx-lint
	@$(PYTHON) tools/bootstrap.py html test lint
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/codespell
	@.venv/bin/sphinx-lint --enable all --disable line-too-long,default-role doc/*.rst doc/stacks/*.rst demos/*/*.rst demos/*.rst
	@$(PYTHON) tools/setup_block.py --check

lock:  ## resolve requirements/*.in again (needs uv and the network)
	@tools/lock.sh --upgrade

inventories:  ## refresh doc/_inventories from the projects' own (needs the network)
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/inventories.py refresh

bench-build:  ## what executing costs: ratios of full and no-op builds to their floors
	@$(PYTHON) tools/bootstrap.py html
	@$(RUN) tools/bench_build.py

clean:  ## remove what the build made (.venv stays)
	rm -rf build doc/gallery doc/notebooks
