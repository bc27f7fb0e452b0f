"""How does the time of a run grow with the number of its checks, and with that of its workers?

    python benchmarks/suite_growth.py [-c PATH] [--json]

Runs of 4, 16 and 48 checks of one kind (the certificate rows of the wire, on reconnect) with 1, 2 and 4 workers; each worker has a
PostgreSQL, a Toxiproxy and an instance of the target of its own. By least squares over the runs of one worker: seconds before the
first check, and seconds a check. Ratios between the rows are what to look at; absolute times are the machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos.cases import CASES

CHECKS, WORKERS = (4, 16, 48), (1, 2, 4)


def names(count: int) -> list[str]:
    """`count` experiments of one family that apply to every target that is started here."""
    of_one_kind = [case.id for case in CASES if case.family == "reconnect" and not case.reason]
    if len(of_one_kind) < count:
        sys.exit(f"there are {len(of_one_kind)} such checks, {count} were wanted")
    return of_one_kind[:count]


def once(config: list[str], checks: int, workers: int, folder: Path) -> float:
    """Wall seconds of one run; it has to be CLEAR."""
    only = [part for name in names(checks) for part in ("--only", name)]
    command = [sys.executable, "-m", "chaos", "run", *config, *only, "-n", str(workers), "--evidence", str(folder / "evidence")]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"a run of {checks} checks was not CLEAR:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - started


def main() -> int:
    """Measures and prints; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-c", "--config", help="another chaos.toml than the bundled service's")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    config = ["-c", options.config] if options.config else []
    seen: dict[tuple[int, int], float] = {}
    for checks in CHECKS:
        for workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder:
                seen[checks, workers] = once(config, checks, workers, Path(folder))
            print(f"{checks} checks, {workers} workers: {seen[checks, workers]:.1f} s", file=sys.stderr)
    line = statistics.linear_regression(CHECKS, [seen[checks, 1] for checks in CHECKS])
    if options.json:
        rows = [{"checks": checks, "workers": workers, "seconds": value} for (checks, workers), value in seen.items()]
        told = {"benchmark": "suite_growth", "results": rows, "seconds_before": line.intercept, "seconds_a_check": line.slope}
        print(json.dumps(told))
        return 0
    print("seconds of a run        " + "".join(f"{workers:>4} worker{'s' if workers > 1 else ' '}" for workers in WORKERS))
    for checks in CHECKS:
        print(f"  {checks:3} checks            " + "".join(f"{seen[checks, workers]:>12.1f}" for workers in WORKERS))
    print(f"one worker: {line.intercept:.1f} s, and {line.slope:.2f} s a check")
    return 0


if __name__ == "__main__":
    sys.exit(main())
