"""`grader update`: a learner's folder is brought to the newest release, and nothing of theirs is lost."""

import shutil
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from grader.digest import digest
from grader.guesses import read_guesses, write_guesses
from grader.learning.damaged import is_damaged, rescued
from grader.learning.home import Home, write_json, write_own
from grader.learning.merge import TRUSTED, Merged, merge, renamed_exercises, unknown_base
from grader.learning.release import Release, release_it_came_from
from grader.learning.trust import read_own
from grader.progress import read_progress, write_progress

SAME_NOTEBOOK = 0.5  # of a release's cells: so many are in the new one too where a notebook got another name


def update(home: Home, release: Release, version: str) -> list[str]:
    """Bring the folder to that release; returns what was done, in sentences, and nothing where there was nothing to do.

    Each file is replaced whole or not at all, and an update that was stopped goes on where it was.
    """
    done = _follow_renamed(home, release)
    for name in release.files():
        said = _update_notebook(home, release, name) if name.endswith(".ipynb") else _update_file(home, release, name)
        if said:
            done.append(said)
    done += _forget_dropped(home, release)
    about = home.about()
    if about.get("version") != version:
        write_json(home.hidden / "home.json", about | {"version": version})
    return done


def needs_update(home: Home, release: Release) -> bool:
    """Whether the release has another notebook or file than the one that the folder was last brought up to."""
    known = home.digests()
    changed = [name for name in release.files() if known.get(name) != digest((release.folder / name).read_bytes())]
    return any(not name.endswith(".ipynb") or release.notebook(name) not in (None, home.base(name)) for name in changed)


def take_over(home: Home, release: Release) -> list[str]:
    """Bring work that was done in the released notebooks themselves into the learner's folder, once; what was done.

    The files it comes from are left as they are.
    """
    about, done = home.about(), []
    taken = dict(about.get("taken", {}))
    for name in release.worked_in(home.digests()):
        path = release.folder / name
        if is_damaged(home.folder / name) or not (home.folder / name).is_file():
            continue  # `grader update` mends it; then there is something to bring the work into
        now = digest(path.read_bytes())
        if taken.get(name) == now:
            continue
        pristine = release.pristine(name)
        theirs, _ = (rescued(path, pristine)) if is_damaged(path) else (read_own(path), "")
        if theirs is None:
            continue
        own = read_own(home.folder / name)
        base = release_it_came_from(path, theirs) or pristine or unknown_base(theirs, own)
        merged = merge(base, theirs, own)
        if _as_saved(merged.notebook) != _as_saved(own):
            kept = home.keep(name)
            write_own(merged.notebook, home.folder / name)
            done.append(
                f"{name}: your work in {path} is in your folder now ({_counted(merged)}); "
                f"the copy before that is {_shown(home, kept)}."
            )
        taken[name] = now
    write_json(home.hidden / "home.json", about | {"taken": taken})
    if done:
        done.append(f"{release.folder} holds your changes still. To undo them there, so that `git pull` works again:")
        done.append(f"  git -C {release.folder} checkout -- .")
    return done


def _as_saved(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The cells without Jupyter's marks of trust."""
    return [{**cell, "metadata": {**cell.metadata, TRUSTED: None}} for cell in notebook.cells]


def _update_notebook(home: Home, release: Release, name: str) -> str:
    """Merge one notebook; what was done, or an empty string."""
    path, base = home.folder / name, home.base(name)
    new = release.notebook(name) or base  # without it somebody works in the release itself, and it is not known
    if new is None:
        return ""
    if not path.exists():
        write_own(new, path)
        home.install(name, new, release)
        return f"{name} {'is new' if base is None else 'was missing, and is there again'}."
    mended = ""
    if is_damaged(path):
        mine, mended = rescued(path, base)
        mine = mine if mine is not None else new
    else:
        mine = read_own(path)
    if not mended and base == new:
        return ""
    merged = merge(base if base is not None else unknown_base(mine, new), mine, new)
    said = ""
    if not mended and merged.notebook.cells == mine.cells:
        write_own(merged.notebook, path)
    else:
        kept = _shown(home, home.keep(name))
        write_own(merged.notebook, path)
        what = f"{mended}; {_counted(merged)}" if mended else _counted(merged)
        said = f"{name}: {what}; the copy before that is {kept}."
    if base is not None:
        _rename_progress(home, name, base, new)
    home.install(name, new, release)
    return said


def _rename_progress(home: Home, name: str, base: NotebookNode, new: NotebookNode) -> None:
    lesson, names = name.partition("/")[0], renamed_exercises(base, new)
    if names and (progress := read_progress(home.folder, lesson)):
        write_progress(home.folder, lesson, {names.get(each, each): entry for each, entry in progress.items()})


def _update_file(home: Home, release: Release, name: str) -> str:
    """Replace a file that is no notebook; one that the learner changed is kept aside first."""
    path, source = home.folder / name, release.folder / name
    new, before = digest(source.read_bytes()), home.digests().get(name)
    now = digest(path.read_bytes()) if path.is_file() else None
    said = ""
    if now != new and (now is None or before != new):
        if now not in (None, before):
            said = f"{name} is new; yours, which you had changed, is {_shown(home, home.keep(name))}."
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(path)
    if before != new:
        home.install(name, None, release)
    return said


def _follow_renamed(home: Home, release: Release) -> list[str]:
    """Give lessons and notebooks of the folder the names that they have in the new release."""
    done = []
    gone = [name for name in home.release.notebooks() if name not in release.notebooks()]
    come = [name for name in release.notebooks() if name not in home.release.notebooks()]
    for old in gone:
        new = _most_like(home, release, old, come)
        if new is None:
            continue
        (before, _), (after, _) = old.split("/"), new.split("/")
        if before != after and not (home.folder / after).exists():
            for folder in (home.folder, home.release.folder):
                if (folder / before).is_dir():
                    (folder / before).rename(folder / after)
            digests = {_moved(name, before, after): value for name, value in home.digests().items()}
            write_json(home.hidden / "files.json", digests)
            write_progress(home.folder, after, read_progress(home.folder, before))
            write_guesses(home.folder, after, read_guesses(home.folder, before))
        moved = _moved(old, before, after)
        for folder in (home.folder, home.release.folder):
            if (folder / moved).is_file() and not (folder / new).exists():
                (folder / moved).rename(folder / new)
        come.remove(new)
        done.append(f"{old} is called {new} now.")
    return done


def _moved(name: str, before: str, after: str) -> str:
    return f"{after}/{name.partition('/')[2]}" if name.startswith(f"{before}/") else name


def _most_like(home: Home, release: Release, old: str, names: list[str]) -> str | None:
    """The new notebook that has most of an old one's cells, if that is half of them."""
    base = home.base(old)
    ids = {cell.id for cell in base.cells} if base is not None else set()
    shares: dict[str, float] = {}
    for name in names:
        new = release.notebook(name)
        shares[name] = len(ids & {cell.id for cell in new.cells}) / len(ids) if ids and new is not None else 0.0
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] >= SAME_NOTEBOOK else None


def _forget_dropped(home: Home, release: Release) -> list[str]:
    """Stop following what the new release has no more; the learner's copies stay."""
    done, names = [], release.files()
    for name in home.release.notebooks():
        if name not in names:
            (home.release.folder / name).unlink()
            done.append(f"{name} is no longer in the course; your copy stays where it is.")
    digests = home.digests()
    if dropped := [name for name in digests if name not in names]:
        write_json(home.hidden / "files.json", {name: each for name, each in digests.items() if name not in dropped})
    return done


def _counted(merged: Merged) -> str:
    said = [f"{merged.new} {'cell is' if merged.new == 1 else 'cells are'} new"] if merged.new else []
    said += [f"{merged.yours} of yours stay{'s' if merged.yours == 1 else ''}"] if merged.yours else []
    said += [f"{merged.twice} of yours and the course's stand side by side"] if merged.twice else []
    return ", ".join(said) or "no other cell has changed"


def _shown(home: Home, path: Path) -> str:
    return path.relative_to(home.folder).as_posix()
