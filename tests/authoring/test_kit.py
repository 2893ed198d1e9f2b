"""The author's side: what a lesson imports of the engine is public, and what one lesson alone uses stands in it."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from toy_course import write_course
from transformers import Qwen3Config, Qwen3ForCausalLM

from grader.authoring import drives, kit
from grader.authoring.kit import clear, configs, hf
from grader.authoring.made_from import made_from
from grader.authoring.mistakes import FAMILIES, files_read
from grader.lessons.lesson import Lesson, lessons

ROOT = Path(__file__).resolve().parents[2]
LESSONS = lessons(ROOT)
PUBLIC = ("grader.authoring.kit", "grader.authoring.drives", "grader.instruments", "grader.kv", "grader.atlas")
KIT, DRIVES = Path(kit.__file__).parent, Path(drives.__file__).parent
by_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def own_files(lesson: Lesson) -> list[Path]:
    """The Python files of a lesson but its twin."""
    return [path for path in sorted(lesson.folder.glob("*.py")) if path != lesson.twin]


@cache
def imported(file: Path) -> frozenset[str]:
    """The modules, and the names in them, that a file imports from the package."""
    return frozenset(name for name in _imported(file) if name.partition(".")[0] == "grader")


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reached(files: list[Path]) -> set[Path]:
    """The package's files that are imported from these, directly or not."""
    found: set[Path] = set()
    while files:
        for name in imported(files.pop()):
            parts = name.split(".")
            for path in (ROOT / "/".join(parts[:n]) for n in range(2, len(parts) + 1)):
                for file in (path.with_suffix(".py"), path / "__init__.py"):
                    if file.is_file() and file not in found:
                        found.add(file)
                        files.append(file)
    return found


@by_lesson
def test_a_lesson_imports_what_is_public(lesson: Lesson) -> None:
    for file in own_files(lesson):
        for name in imported(file):
            module, _, what = name.rpartition(".")
            assert module == "grader" or name.startswith(PUBLIC), f"{file.name} imports {what} from {module}"


def test_every_module_of_authoring_is_the_engines_or_serves_two_lessons() -> None:
    """The engine's are reached from the command line, or from what tests ask of every lesson."""
    asked = [ROOT / "tests" / "lessons" / f"test_{name}.py" for name in ("every_lesson", "minutes", "sly")]
    engines = reached([*(ROOT / "grader" / "cli").glob("*.py"), *asked])
    of_lessons = [reached(own_files(lesson)) for lesson in LESSONS]
    authoring = ROOT / "grader" / "authoring"
    for file in authoring.rglob("*.py"):
        in_library = file.is_relative_to(KIT) or file.is_relative_to(DRIVES)
        served = sum(file in files for files in of_lessons)
        assert served >= 2 or (file in engines and not in_library), f"{file.relative_to(ROOT)} serves {served} lessons"


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("file", [*DRIVES.glob("*.py"), KIT / "toy.py", KIT / "caches.py"], ids=lambda file: file.stem)
def test_every_function_that_lessons_share_serves_two(file: Path) -> None:
    """A lesson's own functions stand in its drives.py and its reference.py."""
    library = [*DRIVES.glob("*.py"), *KIT.glob("*.py")]
    users = {path: path.parent.name for lesson in LESSONS for path in own_files(lesson)}
    words = {path: set(re.findall(r"\w+", path.read_text(encoding="utf-8"))) for path in [*library, *users]}
    uses = {
        name: {word.id for word in ast.walk(node) if isinstance(word, ast.Name)}
        for path in library
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in defined(node)
    }
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        names, before = {node.name}, set[str]()
        while names != before:
            before, names = names, names | {name for name, used in uses.items() if used & names}
        found = {lesson for path, lesson in users.items() if words[path] & names}
        assert len(found) >= 2, f"{file.stem}.{node.name} serves {sorted(found)}"


def test_every_family_of_mistakes_serves_two_lessons() -> None:
    for family in FAMILIES.glob("*.toml"):
        assert sum(family in files_read(lesson.folder) for lesson in LESSONS) >= 2, family.name


def test_the_kits_list_names_all_that_it_has() -> None:
    listed = set(re.findall(r"`(\w+)`", kit.__doc__ or ""))
    assert set(kit.__all__) | {path.stem for path in KIT.glob("[a-z]*.py")} <= listed


# What the kit does


def test_a_second_config_has_no_number_of_the_firsts_and_no_two_equal_sizes() -> None:
    first = {"hidden_size": 24, "num_heads": 4, "head_dim": 6, "num_layers": 3, "eps": 1e-3, "tied": True, "kind": "x"}
    made = configs.second(first, num_heads=5)
    assert made.keys() == first.keys() and (made["num_heads"], made["kind"]) == (5, "x")
    assert not [name for name in first.keys() - {"kind"} if made[name] == first[name]]
    numbers = [
        config[name] for config in (first, made) for name in ("hidden_size", "num_heads", "head_dim", "num_layers")
    ]
    assert len(set(numbers)) == len(numbers)
    assert [made[name] % 2 for name in ("hidden_size", "head_dim", "num_layers")] == [0, 0, 1]


def test_a_case_has_the_fields_that_are_asked_for_and_there() -> None:
    assert configs.fields_of({"a": 1, "b": 2}, "b", "c") == {"b": 2}
    assert configs.sizes("a")({"config": {"a": 1, "b": 2}}) == {"a": 1}


def test_only_inputs_of_clear_choice_are_taken_and_in_order() -> None:
    drawn = iter(torch.arange(8.0).view(8, 1))
    found = clear.clear(lambda: next(drawn), lambda x: x.item() % 3 == 0, 3)
    assert found.flatten().tolist() == [0, 3, 6]
    with pytest.raises(ValueError, match="of 2000 inputs that were drawn, 0 have clear choices; 1 are needed"):
        clear.clear(lambda: torch.zeros(1), lambda x: False, 1)
    assert clear.gap(torch.tensor([[1.0, 4.0, 2.5]]), 1).tolist() == [1.5]
    assert clear.gap(torch.ones(2, 3), 3).tolist() == [float("inf")] * 2


def test_transformers_config_is_eager_has_no_ends_and_fills_in_what_is_none() -> None:
    made = hf.config(Qwen3Config, {"hidden_size": 8, "head_dim": None, "eos_token_id": 5})
    assert (made.hidden_size, made.head_dim, made.eos_token_id, made.bos_token_id) == (8, 128, None, None)
    assert made._attn_implementation == made._experts_implementation == "eager"
    assert hf.config(Qwen3Config, {"hidden_size": 8}, hidden_size=9).hidden_size == 9


def test_names_that_a_solution_lacks_are_left_out() -> None:
    renamed = hf.without("act_fn", endings=("gate",))
    assert [renamed(name) for name in ("mlp.act_fn", "mlp.gate", "mlp.gate.weight")] == [None, None, "mlp.gate.weight"]


def test_what_transformers_gives_for_a_text() -> None:
    made = hf.config(Qwen3Config, {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1})
    model, ids = Qwen3ForCausalLM(made).eval(), torch.tensor([[1, 2, 3]])
    assert torch.equal(model.lm_head(hf.hidden_states(model.model, ids)), hf.logits(model, ids, "what else drives get"))
    cos, sin = hf.rope_table(model.model.rotary_emb, torch.arange(3))
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(3, made.head_dim))
    assert (hf.causal_mask(made, torch.zeros(1, 3, 8))[0, 0] == 0).tolist() == torch.ones(3, 3).tril().bool().tolist()


# What a recording is made from


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """A lesson whose exercises.py takes from a file of its own, which takes from the kit."""
    first, _ = write_course(tmp_path)
    text = first.exercises_file.read_text(encoding="utf-8")
    first.exercises_file.write_text(f"from .reference import ONE\n{text}", encoding="utf-8")
    (first.folder / "reference.py").write_text("from grader.authoring.kit import toy\nONE = 1\n", encoding="utf-8")
    (first.folder / "others.py").write_text("from grader.authoring.kit.declared import Numbers\n", encoding="utf-8")
    return first


def test_a_recording_is_made_from_what_exercises_py_imports_and_no_other_file(lesson: Lesson) -> None:
    before = made_from(lesson)
    assert before.keys() == {
        "solutions",
        "exercises.py",
        "reference.py",
        "grader/authoring/kit/toy.py",
        "grader/recordings/toy_lm.py",
    }
    for path in (lesson.folder / "others.py", lesson.folder / "drives.py"):  # the second is imported by nothing
        path.write_text("ONE = 2\n", encoding="utf-8")
    assert made_from(lesson) == before
    (lesson.folder / "reference.py").write_text("ONE = 2\n", encoding="utf-8")
    after = made_from(lesson)
    assert after["reference.py"] != before["reference.py"]
    assert before.keys() - after.keys() == {"grader/authoring/kit/toy.py", "grader/recordings/toy_lm.py"}


def test_a_module_of_the_kit_that_changes_makes_a_recording_stale(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "grader"
    for name in ("authoring/kit/toy.py", "authoring/kit/caches.py", "recordings/toy_lm.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes((ROOT / "grader" / name).read_bytes())
    monkeypatch.setattr("grader.authoring.made_from.package_folder", lambda: package)
    before = made_from(lesson)
    for name, stale in (("caches", False), ("toy", True)):
        with (package / f"authoring/kit/{name}.py").open("a", encoding="utf-8") as file:
            file.write("\nMORE = 1\n")
        assert (made_from(lesson) != before) == stale, name


def test_lessons_files_of_the_same_names_are_kept_apart() -> None:
    """Whichever other lessons were read before in this process."""
    for lesson in (*LESSONS, *LESSONS):
        lesson.exercises()
        if (lesson.folder / "drives.py").exists():
            file = lesson.module("drives").__file__
            assert file is not None and Path(file) == lesson.folder / "drives.py"


def test_what_was_read_keeps_its_source_when_exercises_are_read_again() -> None:
    lesson = next(lesson for lesson in LESSONS if (lesson.folder / "others.py").exists())
    programs = [value for value in vars(lesson.module("others")).values() if inspect.isclass(value)]
    own = [program for program in programs if program.__module__ == lesson.module("others").__name__]
    lesson.exercises()
    assert own and all(inspect.getsource(program).startswith("class ") for program in own)
