"""The file of nbgrader's gradebook, opened as the course's nbgrader_config.py says; trouble with it in words."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbgrader.api
from nbgrader.api import Gradebook, InvalidEntry
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import DatabaseError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from grader.errors import GraderError

CONFIG = "nbgrader_config.py"


def course_config(root: Path) -> Config:
    """What the course's nbgrader_config.py says. Raises GraderError where `root` has none."""
    if not (root / CONFIG).is_file():
        raise GraderError(f"{root} has no {CONFIG}, which says where nbgrader keeps things. Is it the course's folder?")
    return PyFileConfigLoader(CONFIG, path=str(root)).load_config()


def course_directory(root: Path, config: Config) -> CourseDirectory:
    """Where nbgrader keeps the things of the course at `root`."""
    config = Config(config)
    config.CourseDirectory.root = str(root)
    return CourseDirectory(config=config)


@contextmanager
def open_gradebook(root: Path, config: Config) -> Iterator[tuple[CourseDirectory, Gradebook]]:
    """The course at `root` and its gradebook. Raises GraderError where that does not let itself be read or written,
    also from within."""
    directory = course_directory(root, config)
    nbgraders_log = logging.getLogger("tornado.application")
    was_disabled, nbgraders_log.disabled = nbgraders_log.disabled, True  # it prints tracebacks of what is told below
    asked, nbgrader.api.get_alembic_version = nbgrader.api.get_alembic_version, _newest_migration
    try:
        with Gradebook(directory.db_url, directory.course_id) as gradebook:
            yield directory, gradebook
    except (DatabaseError, InvalidEntry) as error:
        raise GraderError(_in_words(error, directory.db_url)) from None
    finally:
        nbgraders_log.disabled = was_disabled
        nbgrader.api.get_alembic_version = asked


def _newest_migration() -> str:
    """What nbgrader asks the program `alembic` for when it makes a gradebook, told in this process, in a fifth of a
    second instead of one and a half."""
    from alembic.config import Config as AlembicConfig
    from alembic.script import ScriptDirectory
    from nbgrader.dbutil import _temp_alembic_ini

    with _temp_alembic_ini("sqlite://") as ini:
        return str(ScriptDirectory.from_config(AlembicConfig(ini)).get_current_head())


def _in_words(error: Exception, url: str) -> str:
    said = str(error.orig if isinstance(error, DatabaseError) else error)
    if "locked" in said:
        said = "another program holds it for writing (the formgrader, another nbgrader?)"
    return (
        f"The gradebook {url.removeprefix('sqlite:///')} can't be used: {said}. What was graded is in the journal, and"
        " is not graded again: put that right, and run this again."
    )
