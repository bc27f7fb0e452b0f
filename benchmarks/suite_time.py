"""How long does a run take, where does the time go, and how much memory do all its processes take together?

    python benchmarks/suite_time.py                         the bundled service, three times
    python benchmarks/suite_time.py -r 5 -- -c PATH -n 2    another one; what follows -- goes to chaos-gate run

Wall and CPU seconds a run, the peak of the memory of everything it started (proportional set size, so that pages which several
processes share count once; sampled every half a second), and of the last run the slowest experiments. The median and the range at the
end. Exit status 1 when a run was not CLEAR.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil

EVERY = 0.5  # s between two looks at the memory


def memory(runner: psutil.Process) -> int:
    """Bytes of the runner and of all that descends from it or carries the mark of its run."""
    members = {runner, *runner.children(recursive=True)}
    marks = {_mark(one).partition(".")[0] for one in members} - {""}
    for one in psutil.process_iter():
        if marks and _mark(one).partition(".")[0] in marks:
            members.add(one)
    total = 0
    for one in members:
        with suppress(psutil.Error):
            full = one.memory_full_info()
            total += getattr(full, "pss", 0) or full.rss
    return total


def _mark(process: psutil.Process) -> str:
    with suppress(psutil.Error, OSError):
        return str(process.environ().get("CHAOS_RUN_ID", ""))
    return ""


def once(options: list[str], place: Path) -> tuple[int, float, float, int]:
    """Exit code, wall seconds, CPU seconds of all that was waited for, peak bytes."""
    before, at, peak = os.times(), time.monotonic(), 0
    done = subprocess.Popen(
        [sys.executable, "-m", "chaos", "run", "--evidence", str(place), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    runner = psutil.Process(done.pid)
    while done.poll() is None:
        with suppress(psutil.Error):
            peak = max(peak, memory(runner))
        time.sleep(EVERY)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return done.returncode, time.monotonic() - at, cpu, peak


def slowest(place: Path, most: int = 12) -> list[tuple[str, float]]:
    """Experiments and their seconds, the slowest first."""
    with closing(sqlite3.connect(place / "evidence.sqlite")) as store:
        rows = store.execute("SELECT experiment, finished - started FROM history ORDER BY 2 DESC").fetchall()
    print(f"{len(rows)} experiments, {sum(seconds for _, seconds in rows):.0f} s of them in all, side by side")
    return rows[:most]


def main() -> int:
    """Run, print, sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of chaos-gate run, after --")
    given = parser.parse_args()
    walls, worst = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.runs):
            place = Path(scratch) / str(number)
            code, wall, cpu, peak = once(given.options, place)
            walls.append(wall)
            worst = worst or code
            print(
                f"run {number + 1}  exit {code}  {wall:6.1f} s wall  {cpu:6.1f} s CPU  {peak / 1e6:6.0f} MB at the peak",
                flush=True,
            )
        for name, seconds in slowest(place):
            print(f"  {seconds:6.1f} s  {name}")
    print(f"wall: median {statistics.median(walls):.1f} s, {min(walls):.1f} to {max(walls):.1f} s in {len(walls)} runs")
    return int(worst != 0)


if __name__ == "__main__":
    sys.exit(main())
