"""Solutions that are the same, or nearly, but for names, comments and white space: a hint, and nothing more.

A short exercise has few ways to be solved, so a group that is half the class says nothing.
"""

import ast
import builtins
import glob
import io
import token
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz.distance import Indel

from grader.errors import GraderError
from grader.grading.nbgrader.gradebook_file import course_config, course_directory
from grader.grading.running.plan import read_plan
from grader.grading.running.solutions import read_solutions
from grader.grading.running.submission import read_submission
from grader.grading.sandbox.dependencies import plain_python

NEARLY = 0.95  # of the tokens are the same
OWN_TOKENS = 20  # that a solution adds to the stub; with fewer, everybody writes the same
PUBLISHED = "the published solution"
_DROPPED = {token.NEWLINE, token.NL, token.INDENT, token.DEDENT, token.ENDMARKER, token.COMMENT, token.ENCODING}


@dataclass(frozen=True)
class Group:
    """Students whose solutions of an exercise are alike. of: how many solved it. published: whether the published
    solution is like them. likeness: of the two that are least alike among those compared, from 0 to 1."""

    exercise: str
    students: tuple[str, ...]
    of: int
    published: bool
    likeness: float


def similar(root: Path, lesson: str) -> list[Group]:
    """Groups among the submissions of a lesson, exercise by exercise, the smallest first: they say most."""
    config = course_config(root)
    directory = course_directory(root, config)
    plan = read_plan(root / directory.release_directory / lesson)
    published = read_solutions(root / directory.source_directory / lesson, plan)
    handed_in = {
        Path(folder).parent.name: read_submission(Path(folder) / f"{plan.name}.ipynb", plan)
        for folder in sorted(glob.glob(directory.format_path(directory.submitted_directory, "*", lesson)))
    }
    if not handed_in:
        raise GraderError(f"Nobody has submitted {lesson}.")
    found: list[Group] = []
    for step in plan.steps:
        if not step.exercise:
            continue
        sources = {student: text for student, s in handed_in.items() if (text := s.source_of(step.grade_id))}
        found += sorted(
            groups(step.exercise, sources, step.source, published.get(step.exercise)), key=lambda g: len(g.students)
        )
    return found


def groups(exercise: str, sources: Mapping[str, str], stub: str, published: str | None = None) -> Iterator[Group]:
    """Groups of two and more, or of one and the published solution. sources: of the exercise's cell, by student."""
    empty = normal_form(stub)
    forms = {student: normal_form(source) for student, source in sources.items()}
    solved = {student: form for student, form in forms.items() if len(form) >= len(empty) + OWN_TOKENS}
    by_form: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for student, form in solved.items():
        by_form[form].append(student)
    model = normal_form(published) if published else ()
    if len(model) >= len(empty) + OWN_TOKENS:
        by_form[model].append(PUBLISHED)
    for members, likeness in _joined(list(by_form)):
        people = [student for form in members for student in by_form[form]]
        students = sorted(student for student in people if student != PUBLISHED)
        if students and len(people) > 1:
            yield Group(exercise, tuple(students), len(solved), PUBLISHED in people, likeness)


def _joined(forms: Sequence[tuple[str, ...]]) -> Iterator[tuple[list[tuple[str, ...]], float]]:
    """Forms that are nearly the same, put together through each other; with the least likeness that did it."""
    letters = _letters(forms)
    texts = ["".join(letters[word] for word in form) for form in forms]
    leader = list(range(len(forms)))
    least: dict[int, float] = {}

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for i, text in enumerate(texts):
        for j in range(i):
            likeness = Indel.normalized_similarity(text, texts[j], score_cutoff=NEARLY)
            if likeness >= NEARLY:
                low, high = sorted((find(i), find(j)))
                leader[high] = low
                least[low] = min(likeness, least.get(low, 1.0), least.get(high, 1.0))
    together: defaultdict[int, list[tuple[str, ...]]] = defaultdict(list)
    for i, form in enumerate(forms):
        together[find(i)].append(form)
    for first, members in together.items():
        yield members, least.get(first, 1.0)


def _letters(forms: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """A character for each token, so that a form is a text, which rapidfuzz compares quickly."""
    words = dict.fromkeys(word for form in forms for word in form)
    return {word: chr(0xE000 + i) for i, word in enumerate(words)}


def normal_form(source: str) -> tuple[str, ...]:
    """A cell's tokens without comments, docstrings, annotations and layout; names that it chose itself are numbered.

    Of a cell that is not Python, or that Python reads but can't write (an integer of thousands of digits), its words.
    """
    try:
        tree = ast.parse(plain_python(source))
        text = ast.unparse(ast.fix_missing_locations(_Normal(_chosen_names(tree)).visit(tree)))
        words = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        return tuple(source.split())
    return tuple(word.string for word in words if word.type not in _DROPPED)


def _chosen_names(tree: ast.AST) -> set[str]:
    """The names that a cell gives to what it computes: arguments and variables, but no classes, functions, imports."""
    chosen = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    chosen |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return chosen - {"self"} - set(dir(builtins))


class _Normal(ast.NodeTransformer):
    """Numbers chosen names in the order in which they come, and drops docstrings and annotations."""

    def __init__(self, chosen: set[str]) -> None:
        self._chosen = chosen
        self._numbers: dict[str, str] = {}

    def _name(self, name: str) -> str:
        return self._numbers.setdefault(name, f"v{len(self._numbers)}") if name in self._chosen else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """A variable."""
        return ast.copy_location(ast.Name(self._name(node.id), node.ctx), node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """An argument."""
        return ast.copy_location(ast.arg(self._name(node.arg)), node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """A variable with its type."""
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function, whose result has no type here."""
        node.returns = None
        self._drop_docstring(node)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """A class."""
        self._drop_docstring(node)
        return self.generic_visit(node)

    def _drop_docstring(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
