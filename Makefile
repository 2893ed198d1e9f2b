# make lab     install what learners need, open the course in JupyterLab   (ARGS="--no-browser --port 9999")
# make test    install what authors need too, run every check              (ARGS="-k gpt2")
#              of lessons whose proof is on record (tests/proved.toml) a sample, of all others everything
#              with LESSON=NN-name: only what a change of that lesson needs
# make prove   the same with all tests of every lesson that is not on record as it is, and an entry for it there; goes on
#              where it was stopped (ARGS="--all": every lesson; LESSON=NN-name: that lesson and no more)
# make quick   style, types, rooms, the tests of what changed against main, and of every lesson five programs
# make bench   measure the engine, the models against transformers, and grading against nbgrader and otter-grader;
#              count the lines of each lesson, wherever they stand
# make site    build the web edition of the course, build/site/index.html  (ARGS="--to build/course.pdf": and a PDF)
# make gallery write the atlas of architectures as a site that opens from its folder  (ARGS="--to gallery")
# PYTHON=/path/to/python3 chooses the Python that .venv is made with.

SHELL := /bin/sh
inputs := pyproject.toml constraints.txt scripts/environment.sh
export PYTHON

# A .venv that was moved or has lost its Python does not count as made.
ifeq ($(shell .venv/bin/grader --version 2>/dev/null),)
$(shell rm -f .venv/lab.stamp .venv/test.stamp)
endif

.PHONY: help lab quick check test prove bench site gallery
help:
	@sed -n 's/^# //p' Makefile

lab: .venv/lab.stamp
	@.venv/bin/grader lab $(ARGS)

test: .venv/test.stamp
	@test -n "$(LESSON)" || sh scripts/chromium.sh
	@test -n "$(LESSON)" || sh scripts/libseccomp.sh
	@PROVE="$(PROVE)" LESSON="$(LESSON)" sh scripts/test.sh $(ARGS)

prove:
	@$(MAKE) --no-print-directory test PROVE=1

quick check: .venv/test.stamp
	@sh scripts/libseccomp.sh
	@sh scripts/quick.sh $(ARGS)

bench: .venv/test.stamp
	@failed=0; \
	for each in benchmarks/bench.py benchmarks/lessons.py solutions/*/benchmark.py; do \
		.venv/bin/python "$$each" || failed=1; \
	done; \
	OTTER="$$(sh scripts/otter.sh)" .venv/bin/python benchmarks/grading.py || failed=1; \
	exit $$failed

site: .venv/test.stamp
	@.venv/bin/python -c 'import myst_nb, furo; __import__("sphinx-mathjax-offline")' 2>/dev/null || \
		.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[site]'
	@.venv/bin/grader site $(ARGS)

gallery: .venv/lab.stamp
	@.venv/bin/grader gallery $(ARGS)

.venv/lab.stamp: $(inputs)
	@sh scripts/environment.sh lab

.venv/test.stamp: $(inputs)
	@sh scripts/environment.sh test
