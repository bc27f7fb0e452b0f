"""How long `chaos-gate verify` takes for the bundle of a soak: every minute of it kept, sealed as a run seals it.

python -m benchmarks.verify_long_bundle [HOURS]        (72 by default; issue: 72 h in at most 60 s)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from chaos.checks.longrun import Account
from chaos.collector import Collector, Request
from chaos.evidence.store import SEGMENTS, Segment
from tests.unit.long_run import Service


def bundle(directory: Path, hours: float) -> None:
    """A made-up soak, recorded minute by minute and concluded by the controller."""
    request = Request(evidence=str(directory), seed=1, profile="soak", command="chaos-gate soak")
    collector = Collector.prepare(request, screen=None)
    collector.fix()
    account = Account(collector.limits)
    with Segment(directory / SEGMENTS / "soak.sqlite") as segment:
        for minute in Service(hours=hours, every=1).minutes():
            segment.append(minute)
            account.feed(minute)
    collector.findings += account.findings()
    collector.conclude()
    collector.run_dir.rmdir()


def main() -> None:
    """Make one, and verify it in a process of its own."""
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 72.0
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "soak"
        begun = time.perf_counter()
        bundle(directory, hours)
        made = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "chaos", "verify", str(directory)], capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - begun
        print(done.stdout + done.stderr)
        print(f"{hours:g} h, {size:.0f} MB: made in {made:.0f} s, verified in {took:.1f} s, exit {done.returncode}")


if __name__ == "__main__":
    main()
