"""Ours, vegeta and Locust on a server that is frozen 1 s in every 20: see README.md.

python -m benchmarks.load_accuracy.compare [--seconds 58] [--only ours,vegeta,vegeta-few,locust]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.load_accuracy import vegeta
from benchmarks.load_accuracy.frozen import truth
from chaos.config import Target
from chaos.histogram import merged
from chaos.processes import Reaper
from chaos.traffic.load import Load, LoadPlan, Mix
from chaos.traffic.load.arrivals import Arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RATE = 200
FEW = 80  # workers or users: twice what the rate takes while the server is well
SHARES = (0.50, 0.95, 0.99)
SHAPE = {"service": 0.2, "freeze": 1.0, "every": 20.0, "begin": 18.0}
LOCUSTFILE = """
from locust import FastHttpUser, constant_throughput, task
RATE, FEW = 200, 80
class User(FastHttpUser):
    wait_time = constant_throughput(RATE / FEW)
    @task
    def ask(self):
        self.client.get("/")
"""


def preferred() -> str:
    """This process and all that it starts go before other work on the machine, where that is allowed: what is compared is the tools."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        return "before all other work on this machine (SCHED_FIFO)"
    return "beside whatever else this machine does, which is in every number"


@contextlib.contextmanager
def frozen(**options: float) -> Iterator[tuple[int, float]]:
    """The server: (port, when its schedule began)."""
    argv = [sys.executable, "-m", "benchmarks.load_accuracy.frozen", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port, begun = process.stdout.readline().split()
            yield int(port), float(begun)
        finally:
            process.kill()


def quantiles(values: Sequence[float]) -> list[float]:
    """Of a sample: the smallest value with at least that share at or below it."""
    ordered = sorted(values)
    return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in SHARES]


def evenly(start: float, count: int, begun: float) -> list[float]:
    """What evenly spaced requests have to wait."""
    return [truth(start + number / RATE, begun=begun, **SHAPE) for number in range(count)]


def ours(seconds: float, directory: Path) -> list[tuple[str, list[float], list[float]]]:
    """(name, seen, truth); Poisson arrivals, as the soak has them, and evenly spaced ones, as the others have them."""
    found = []
    for name, paced in (("ours, evenly spaced", True), ("ours, Poisson", False)):
        with frozen(**SHAPE) as (port, begun), Reaper("compare") as reaper:
            target = Target.model_validate({"name": "x", "url": f"http://127.0.0.1:{port}", "live": "/", "read": [{"path": "/"}]})
            plan = LoadPlan(
                target=target, base_url=f"http://127.0.0.1:{port}", rate=RATE, seed=1, every=10.0, mix=Mix(invalid=0), paced=paced
            )
            load = Load(plan, reaper=reaper, directory=directory / name)
            load.start()
            time.sleep(seconds)
            load.stop()
            intervals, _ = load.take()
        arrivals = Arrivals(seed=1, weights=[1.0], rate=RATE, start=intervals[0].started, paced=paced)
        planned = [arrivals.take()[0] for _ in range(sum(one.planned for one in intervals))]
        lag = merged(one.lag for one in intervals).quantile(0.99)
        print(
            f"{name}: {len(planned)} planned, {sum(one.dropped for one in intervals)} dropped, P99 of the send lag {lag * 1000:.2f} ms"
        )
        latency = merged(one.latency for one in intervals)
        found.append((name, [latency.quantile(one) for one in SHARES], [truth(at, begun=begun, **SHAPE) for at in planned]))
    return found


def with_vegeta(seconds: float, _directory: Path, *workers: str) -> list[tuple[str, list[float], list[float]]]:
    """As it reports, and what its own time stamps say when latency is counted from the plan."""
    name = "vegeta" + (f" -max-workers {FEW}" if workers else "")
    program = vegeta.binary()
    with frozen(**SHAPE) as (port, begun):
        attack = subprocess.run(
            [program, "attack", f"-rate={RATE}", f"-duration={seconds:g}s", *workers],
            input=f"GET http://127.0.0.1:{port}/\n".encode(),
            capture_output=True,
            check=True,
        )
    rows = subprocess.run([program, "encode", "--to", "json"], input=attack.stdout, capture_output=True, check=True).stdout
    sent = sorted((_moment(one["timestamp"]), one["latency"] / 1e9) for one in map(json.loads, rows.splitlines()))
    start = sent[0][0]
    expected = evenly(start, int(seconds * RATE), begun)
    planned = [at + latency - (start + number / RATE) for number, (at, latency) in enumerate(sent)]
    return [
        (name, quantiles([latency for _, latency in sent]), expected),
        (f"{name}, from the plan", quantiles(planned), expected),
    ]


def _moment(text: str) -> float:
    """Of Go's nine digits Python reads six."""
    head, _, tail = text.partition(".")
    digits = "".join(itertools.takewhile(str.isdigit, tail))
    return datetime.fromisoformat(head + tail[len(digits) :]).timestamp() + float(f"0.{digits or 0}")


def with_locust(seconds: float, directory: Path) -> list[tuple[str, list[float], list[float]]]:
    """Users with constant_throughput, as its documents have it for a rate."""
    file = directory / "locustfile.py"
    file.write_text(LOCUSTFILE, encoding="utf-8")
    options = ["--headless", "-u", str(FEW), "-r", str(FEW), "-t", f"{seconds:g}s", "--json", "--loglevel", "ERROR"]
    with frozen(**SHAPE) as (port, begun):
        start = time.time()
        argv = [sys.executable, "-m", "locust", "-f", str(file), "-H", f"http://127.0.0.1:{port}", *options]
        done = subprocess.run(argv, cwd=directory, capture_output=True, check=True)
    (row,) = json.loads(done.stdout)
    print(f"locust: {row['num_requests']} of {int(seconds * RATE)} planned were sent")
    seen = [
        float(took) / 1000 for took, count in row["response_times"].items() for _ in range(count)
    ]  # rounded, as it keeps them
    return [("locust, constant_throughput", quantiles(seen), evenly(start, int(seconds * RATE), begun))]


TOOLS = {
    "ours": ours,
    "vegeta": with_vegeta,
    "vegeta-few": lambda seconds, directory: with_vegeta(seconds, directory, f"-max-workers={FEW}"),
    "locust": with_locust,
}


def main() -> int:
    """A table; the exit code is 1 when ours is more than 2 % away from the truth."""
    parser = argparse.ArgumentParser(description="accuracy of the load on a frozen server, side by side")
    parser.add_argument("--seconds", type=float, default=58)
    parser.add_argument("--only", default=",".join(TOOLS))
    options = parser.parse_args()
    print(f"run {preferred()}")
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        for tool in options.only.split(","):
            for what, seen, waits in TOOLS[tool](options.seconds, Path(name)):
                expected = quantiles(waits)
                rows.append((what, seen, expected))
                if tool == "ours":
                    worst = max(worst, *(abs(one / other - 1) for one, other in zip(seen, expected, strict=True)))
    print(f"\n{'':32}" + "".join(f"{f'P{share:.0%}'.rstrip('%'):>10} {'truth':>8} {'off':>8}" for share in SHARES))
    for what, seen, expected in rows:
        cells = (
            f"{one * 1000:>7.1f} ms {other * 1000:>8.1f} {one / other - 1:>+8.1%}"
            for one, other in zip(seen, expected, strict=True)
        )
        print(f"{what:32}" + "".join(cells))
    return int(worst > 0.02)


if __name__ == "__main__":
    sys.exit(main())
