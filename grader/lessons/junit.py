"""The results of a notebook in JUnit's XML, which CI systems show as tests."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from grader.errors import GraderError
from grader.lessons.results import CheckResult

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(
    path: Path, notebook: Path, results: Sequence[CheckResult], notes: Sequence[str] = (), stopped: str = ""
) -> None:
    """Write a test suite with a test case for each exercise; what did not pass is a failure with its report.

    notes: what else is to be known of the notebook. stopped: why it did not run to its end, which is an error of
    the suite. Raises GraderError where the file can't be written.
    """
    suite = ET.Element("testsuite", name=_clean(notebook.stem), tests=str(len(results) + bool(stopped)))
    suite.set("failures", str(sum(not result.passed for result in results)))
    suite.set("errors", str(int(bool(stopped))))
    suite.set("skipped", "0")
    for result in results:
        case = ET.SubElement(suite, "testcase", classname=_clean(notebook.stem), name=_clean(result.exercise))
        case.set("file", _clean(notebook.as_posix()))
        if not result.passed:
            failure = ET.SubElement(case, "failure", message=_clean(_headline(result)))
            failure.text = _clean(result.report or _headline(result))
    if stopped:
        case = ET.SubElement(suite, "testcase", classname=_clean(notebook.stem), name="the notebook runs to its end")
        ET.SubElement(case, "error", message=_clean(stopped)).text = _clean(stopped)
    if notes:
        ET.SubElement(suite, "system-out").text = _clean("\n".join(notes))
    root = ET.Element("testsuites")
    root.append(suite)
    tree = ET.ElementTree(root)
    ET.indent(tree)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise GraderError(f"{path} can't be written: {error.strerror or error}.") from None


def _headline(result: CheckResult) -> str:
    points = f"{result.points:g} of {result.max_points:g} points" if result.max_points else "not passed"
    if result.waits and result.waits_for:
        return f"{points}; it waits for {' and '.join(result.waits_for)}"
    return f"{points}: {result.reason}" if result.reason else points


def _clean(text: str) -> str:
    """Text without the characters that XML has no way to write."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
