# make reproduce   run the notebook series (quick), results in build/reproduction/index.html
# make reproduce-full   fill in whatever the ledger of a size lacks: make reproduce-full SIZE=scratch CORES=2
# make test        lint, unit tests, tests on an emulated GPU, notebooks
# make test-cuda   the tests on an emulated GPU alone (tests/cuda/README.md); make test-cuda-notebooks: every notebook there, some minutes
# make gpu-report  on a machine with a GPU: measures it, writes data/results/gpu-report.md and .csv, to hand in as a pull request
# make stress      how hard it is to break: faults, bad input, mutants, coverage (hours on 2 cores), and the table of what was found
# make lab         JupyterLab at notebook 00
# make explorer    the latent explorer as a page of its own, at the address that is printed; build/explorer.html needs no server
# make labs        the assignments: student copies, solutions, answer sheets and graders in build/labs (see notebooks/labs/README.md)
# make book        the stored notebooks and the library's reference as a site: build/book/index.html
# make report      the ledger's verdicts as the book's page Results so far and as one file, build/report.html: make report SIZE=scratch
# make release     sdist and wheel in build/release, built from nothing and checked; sizes are printed
# make slides      slides of the notebooks, which need no internet: build/slides/index.html
# All of them install what they need into .venv first; PYTHON=python3.12 chooses the interpreter.
# What the repository ships is made by scripts in tests/benchmarks: zoo.py, train_classifier.py, references.py, compare_signals.py.
PYTHON ?= python3
BIN := .venv/bin

SIZE ?= scratch
CORES ?= 2
# A word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'

.PHONY: reproduce reproduce-full test stress lab explorer labs book slides report release lint unit test-cuda test-cuda-notebooks gpu-report notebooks clean

reproduce: .venv/run.stamp
	$(BIN)/python -m s2dm_mini reproduce

# Another snakemake in this folder would write the same files; a lock left by one that was killed is removed first.
reproduce-full: .venv/pipeline.stamp
	$(BIN)/snakemake --unlock --config $(call quoted,size=$(SIZE))
	$(BIN)/snakemake --cores $(call quoted,$(CORES)) --rerun-incomplete --config $(call quoted,size=$(SIZE))

test: lint unit test-cuda notebooks

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

unit: .venv/test.stamp
	$(BIN)/pytest -n $(call quoted,$(CORES)) --dist loadfile tests

# Needs a C++ compiler, else says so and passes.
test-cuda: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python tests/cuda/fake_cuda.py pytest -n $(call quoted,$(CORES)) --dist load tests/test_gpu.py tests/cuda

test-cuda-notebooks: .venv/test.stamp
	OMP_NUM_THREADS=1 S2DM_CUDA_NOTEBOOKS=1 $(BIN)/python tests/cuda/fake_cuda.py pytest -v tests/cuda/test_cuda_notebooks.py

gpu-report: .venv/test.stamp
	$(BIN)/python tests/benchmarks/gpu_report.py

# Each notebook twice: as stored, its marked outputs compared; and through papermill with another seed.
notebooks: .venv/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(call quoted,$(CORES)) --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout 300 notebooks
	$(BIN)/python -m s2dm_mini reproduce --set seed=1 --out build/seed1

stress: .venv/test.stamp
	$(BIN)/python tests/stress/crash.py
	$(BIN)/python tests/stress/fuzz.py
	$(BIN)/python tests/stress/mutants.py
	$(BIN)/python tests/stress/covered.py
	$(BIN)/python tests/stress/table.py

# Both answer this machine only, and only with the token that stands in the address they print. JupyterLab opens that address itself;
# Voilà would open one without the token, and leaves the kernel of a page that was closed or loaded again: five minutes later it is ended.
lab: .venv/run.stamp
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb --ip=127.0.0.1

explorer: .venv/explorer.stamp
	@echo "The explorer is at the address with a token that Voilà prints now; open it in a browser. Ctrl-C ends."
	$(BIN)/voila notebooks/explorer/latent_explorer.ipynb --Voila.ip=127.0.0.1 --token --no-browser \
	  --MappingKernelManager.cull_idle_timeout=300 --MappingKernelManager.cull_interval=60

# `otter assign` runs each solution through its grader, and fails if it does not get all points.
labs: .venv/labs.stamp
	rm -rf build/labs/student build/labs/solutions build/labs/graders build/labs/answers build/labs/otter
	mkdir -p build/labs/student build/labs/solutions build/labs/graders
	@for lab in $(basename $(notdir $(wildcard notebooks/labs/lab*.ipynb))); do \
	  $(BIN)/otter assign notebooks/labs/$$lab.ipynb build/labs/otter/$$lab && \
	  cp build/labs/otter/$$lab/student/$$lab.ipynb build/labs/student/ && \
	  cp build/labs/otter/$$lab/autograder/$$lab.ipynb build/labs/solutions/ && \
	  cp build/labs/otter/$$lab/autograder/*.zip build/labs/graders/$$lab.zip || exit 1; \
	  echo "$$lab: the solution gets all points; student copy, solution and grader are in build/labs"; \
	done
	rm -rf build/labs/otter
	$(BIN)/python notebooks/labs/answers.py build/labs/answers

# The explorer without a kernel: one file for any web server. The book shows it.
build/explorer.html: $(wildcard s2dm_mini/explorer/*) data/checkpoints/manifest.json | .venv/book.stamp
	$(BIN)/python -m s2dm_mini.explorer.page $@

# From nothing each time, so that no page is left of a notebook that is gone, and no warning is missed: each fails the build.
book: .venv/book.stamp build/explorer.html
	rm -rf build/book
	$(BIN)/sphinx-build -W --keep-going -q -c notebooks/book . build/book
	@echo "build/book/index.html"

# The wheel is built from the sdist, and both hold the student copies, and the explorer's page.
release: labs build/explorer.html .venv/release.stamp
	rm -rf build/release
	$(BIN)/python -m build --no-isolation --outdir build/release .
	$(BIN)/twine check --strict build/release/*
	@du -h build/release/*

# The page of the book with the ledger's verdicts, and the same as one file, build/report.html.
report: .venv/run.stamp
	$(BIN)/python notebooks/book/report.py --size $(call quoted,$(SIZE))

slides: .venv/slides.stamp
	rm -rf build/slides
	$(BIN)/python notebooks/book/slides.py build/slides $(sort $(wildcard notebooks/[0-9][0-9]*_*.ipynb))
	@echo "build/slides/index.html"

clean:
	rm -rf .venv build

.venv/bin/python:
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "Python 3.11 to 3.13 is needed, not " + sys.version.split()[0] + ": make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

# An extra of pyproject.toml: test, pipeline, explorer, labs, book, slides, release.
.venv/%.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@ .venv/run.stamp
