#!/bin/sh
# mypy over everything: the engine and the benchmarks strictly; tests, training and the lessons' own files (exercises,
# other programs, tests) without what PyTorch's and transformers' own types stand in the way of.
# Lessons have files of the same names, so each lesson is a run, as a package `lesson`, which is what `from .drives` needs.
# Arguments are lessons; all of them without any.
set -u

export PATH="$PWD/.venv/bin:$PATH"
failed=0
relaxed="--allow-untyped-calls --allow-untyped-decorators --no-warn-return-any --implicit-reexport --no-warn-unused-ignores
    --disable-error-code type-arg --disable-error-code union-attr --disable-error-code operator
    --disable-error-code index"  # the attributes of an nn.Module are `Tensor | Module` to PyTorch's types

relaxed_mypy() {
    # shellcheck disable=SC2086  # one word for each option
    mypy --no-error-summary $relaxed "$@" || failed=1
}

if [ $# -eq 0 ]; then
    mypy || failed=1
    # shellcheck disable=SC2046  # one word for each file
    MYPYPATH=tests/support:tests/lessons:training relaxed_mypy \
        $(find tests -name '[a-z]*.py' -not -path '*/attacks/*' -not -name sitecustomize.py)
    relaxed_mypy training/*.py
    set -- solutions/*/
fi
packages=$(mktemp -d)
trap 'rm -r "$packages"' EXIT
for lesson in "$@"; do
    lesson=$(basename "$lesson")
    ln -sfn "$PWD/solutions/$lesson" "$packages/lesson"
    modules=$(find "solutions/$lesson" -maxdepth 1 -name '[a-z]*.py' | while read -r file; do
        [ -f "${file%.py}.ipynb" ] || echo "-m lesson.$(basename "$file" .py)"  # a twin is a notebook
    done)
    # shellcheck disable=SC2086  # two words for each file
    MYPYPATH="$packages:training" relaxed_mypy $modules > "$packages/said"
    sed "s|^[^ ]*/lesson/|solutions/$lesson/|" "$packages/said"
done
exit $failed
