"""Pools of processes: results, progress, failures, and workers that end with whom they work for."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hourllava import processes
from hourllava.errors import DataError
from hourllava.processes import report_progress, run_jobs, worker_pool
from jobs_of_workers import be_killed, fail_at_three, square, wait_for_file
from running import wait_until_gone


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("jobs_per_call", [1, 3])
def test_results_come_in_the_order_of_the_jobs(num_processes, jobs_per_call, monkeypatch):
    monkeypatch.setattr(processes, "CALLS_AHEAD", 2)
    progress: list[int] = []
    with worker_pool(num_processes, 100, 1000) as pool:
        for repeat in range(2):  # one pool serves several calls
            found = list(run_jobs(square, range(8), pool, jobs_per_call=jobs_per_call, on_progress=progress.append))
            assert [result for result, _ in found] == [job * job + 1100 for job in range(8)]
            assert sum(progress) == (repeat + 1) * sum(range(8))
            assert ({pid for _, pid in found} == {os.getpid()}) == (num_processes == 1)


def test_results_come_as_soon_as_they_are_there(tmp_path):
    with worker_pool(2, tmp_path / "made") as pool:
        assert list(run_jobs(wait_for_file, [None, "second"], pool, in_order=False)) == ["second", None]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_jobs_error_comes_out_and_the_pool_ends(num_processes):
    with pytest.raises(ValueError, match="three"), worker_pool(num_processes) as pool:
        list(run_jobs(fail_at_three, range(1000), pool))


def test_a_killed_worker_is_one_line():
    with pytest.raises(DataError, match="a worker process was killed, perhaps for memory"), worker_pool(2) as pool:
        list(run_jobs(be_killed, range(3), pool))


def test_a_report_outside_a_job_is_heard_by_nobody():
    progress: list[int] = []
    with worker_pool(1) as pool:
        list(run_jobs(square, [5], pool, on_progress=progress.append))
    report_progress(7)
    assert progress == [5]


KILLED = """
import sys
from pathlib import Path
from hourllava.processes import run_jobs, worker_pool
from jobs_of_workers import wait_for_ever
with worker_pool(2) as pool:
    list(run_jobs(wait_for_ever, [Path(sys.argv[1])] * 2, pool))
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    variables = {**os.environ, "PYTHONPATH": folders}  # imports no PyTorch, so there is nothing to fork
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], env=variables) as process:
        deadline = time.monotonic() + 60
        while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        wait_until_gone(workers)
