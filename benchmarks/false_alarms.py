"""How often is a healthy service accused? Run the whole suite again and again on healthy targets; anything but CLEAR is a false alarm.

    python benchmarks/false_alarms.py                        the bundled service, ten times
    python benchmarks/false_alarms.py -r 20 PATH/chaos.toml  others, twenty times each

Prints a line a run (seed, seconds, verdict, and each gate that failed or stayed open though it had to be proven) and, at the end,
how many of n runs were CLEAR with the one-sided 95 % bound on the rate of false alarms. Exit status 1 when there was one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos.session import REFERENCE
from chaos.statistics import upper


def once(config: Path, seed: int) -> tuple[str, float, str]:
    """Verdict, seconds, and what was wrong."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "chaos", "run", "-c", str(config), "--json", "--seed", str(seed), "--evidence", place]
        at = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - at
    try:
        read = json.loads(done.stdout)
    except ValueError:
        return f"exit {done.returncode}", seconds, " ".join(done.stderr.split()[-30:])
    bad = [f"{one['id']}: {one['detail'][:300]}" for one in read["checks"] if one["outcome"] in {"fail", "inconclusive"}]
    return read["verdict"], seconds, "" if read["verdict"] == "CLEAR" else "; ".join(bad)


def main() -> int:
    """Run, print, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", type=Path, default=[REFERENCE])
    parser.add_argument("-r", "--runs", type=int, default=10)
    given = parser.parse_args()
    alarms = runs = 0
    for config in given.targets:
        for seed in range(1, given.runs + 1):
            verdict, seconds, wrong = once(config, seed)
            runs += 1
            alarms += verdict != "CLEAR"
            print(f"{config.parent.name:<18} seed {seed:<3} {seconds:6.1f} s  {verdict}  {wrong}", flush=True)
    print(f"{runs - alarms} of {runs} CLEAR; false alarms at most {upper(alarms, runs):.0%} of runs (95 %)")
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
