"""Past one machine: a real Dask cluster of two workers, each with its own jail."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from attack_course import LESSON, make_course, submit
from graded import journal, points, scores
from real_nbgrader import SCORES, STUDENTS

from grader.errors import GraderError
from grader.grading.classroom.command import Chosen, _settings
from grader.grading.classroom.engine import Settings, grade_class
from grader.grading.sandbox.jail import JailError

distributed = pytest.importorskip("distributed", reason="Dask is not installed (pip install -e '.[dask]')")


@pytest.mark.slow
def test_a_worker_killed_mid_run_loses_and_repeats_no_grade(tmp_path: Path) -> None:
    make_course(tmp_path)
    kinds = list(STUDENTS)
    expected = {f"s{i:02}": SCORES[kinds[i % 4]] for i in range(40)}
    for i, student in enumerate(expected):
        submit(tmp_path, student, STUDENTS[kinds[i % 4]])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        victim = cluster.workers[0]
        killer = threading.Thread(target=kill_when_under_way, args=(tmp_path, victim.pid))
        killer.start()
        with _settings(Chosen(LESSON, dask=cluster.scheduler_address)) as settings:
            graded = grade_class(tmp_path, LESSON, settings)
        killer.join()
    assert KILLED and points(graded) == expected
    assert scores(tmp_path) == expected
    entries = [entry["student"] for entry in journal(tmp_path) if entry["entry"] == "graded"]
    assert sorted(map(str, entries)) == sorted(expected)


def test_a_worker_without_a_jail_is_refused_before_any_score_changes(tmp_path: Path) -> None:
    make_course(tmp_path)
    submit(tmp_path, "ada", STUDENTS["ada"])
    grade_class(tmp_path, LESSON, Settings())
    earned = scores(tmp_path)
    assert earned["ada"] > 0
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            client.run(without_a_jail, workers=[cluster.workers[1].worker_address])
        chosen = Chosen(LESSON, dask=cluster.scheduler_address, force=True)
        with _settings(chosen) as settings, pytest.raises(JailError, match=r"On the Dask worker tcp://.*escape"):
            grade_class(tmp_path, LESSON, settings)
    assert scores(tmp_path) == earned


def without_a_jail() -> None:
    """In a worker: the trial at the start finds a way out."""
    from grader.grading.running import worker

    worker.prove = lambda jail: ["escape"]


KILLED: list[int] = []


def kill_when_under_way(root: Path, pid: int) -> None:
    """Kill a worker once a few grades are in the journal."""
    path = root / "journal" / f"{LESSON}.jsonl"
    for _ in range(6000):
        if path.exists() and path.read_text().count('"graded"') >= 5:
            os.kill(pid, signal.SIGKILL)
            KILLED.append(pid)
            return
        time.sleep(0.05)


def test_a_cluster_that_cannot_grade_is_refused_before_anything_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grader.grading.classroom.command.WAIT_FOR_WORKERS", 1)
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as cluster:
        chosen = Chosen(LESSON, dask=cluster.scheduler_address)
        with pytest.raises(GraderError, match="has no workers"), _settings(chosen):
            pass
        cluster.scale(1)
        with distributed.Client(cluster) as client:
            client.wait_for_workers(1)
            client.run(lambda: sys.modules.update({"grader.grading.running.engine_version": None}))  # type: ignore[dict-item]
            with pytest.raises(GraderError, match="can't load this package"), _settings(chosen):
                pass
    with pytest.raises(GraderError, match="no Dask scheduler answers"), _settings(Chosen(LESSON, dask="nonsense")):
        pass
