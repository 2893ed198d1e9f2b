"""Whose code a solution is: the learner's, or what was there before.

A class answers with the functions of its methods, those that it inherits included; a function with itself. It is no
answer where all of these were given: by this package, or by cells of the lesson.
"""

import inspect
import os
from collections.abc import Collection
from functools import partial
from types import CodeType
from typing import Any

from grader.checks.probe.running import is_learners
from grader.package import package_folder

_OWN_FOLDER = os.path.join(package_folder(), "")


def is_given(solution: Any, files: Collection[str] = ()) -> bool:
    """Whether a class or function is made of given code alone. files: the names of the files of the lesson's cells.

    What has no Python code, or only a library's, such as nn.Linear, is not given: taking it is the learner's choice.
    """
    codes = _codes(solution)
    given = [code for code in codes if code.co_filename in files or code.co_filename.startswith(_OWN_FOLDER)]
    return bool(given) and not any(_is_own(code) for code in codes if code not in given)


def _is_own(code: CodeType) -> bool:
    """Whether a learner wrote it: no library did, and no decorator such as `dataclass` made it."""
    return is_learners(code.co_filename) and code.co_filename != "<string>"


def _codes(solution: Any) -> list[CodeType]:
    """The code of a function, or of the methods that a class has."""
    if not isinstance(solution, type):
        return _codes_of_function(solution)
    methods: dict[str, Any] = {}
    for kind in reversed(inspect.getmro(solution)):
        methods.update(vars(kind))
    return [code for method in methods.values() for code in _codes_of_function(method)]


def _codes_of_function(function: Any) -> list[CodeType]:
    """The code of a function and of what it wraps; nothing for what is no Python function."""
    codes = []
    for _ in range(20):
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, property):
            function = function.fget
        elif isinstance(function, staticmethod | classmethod) or inspect.ismethod(function):
            function = function.__func__
        else:
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                codes.append(code)
            wrapped = getattr(function, "__dict__", {}).get("__wrapped__")
            if wrapped is None:
                break
            function = wrapped
    return codes
