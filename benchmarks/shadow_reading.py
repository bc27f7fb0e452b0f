"""How fast a log of any size is read for a replay, and in how much memory: `python benchmarks/shadow_reading.py [MEGABYTES]`.

Writes a log of Caddy's form with writes and garbage in it, draws from it, and prints lines a second and the process's peak memory. The
memory does not depend on the size: run it with two sizes.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from chaos.traffic.shadow import draw


def write(path: Path, megabytes: int) -> None:
    """A log of about that size, with writes in it, and garbage."""
    rng = random.Random(1)  # noqa: S311  (a reproducible log, not a secret)
    written, number = 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < megabytes * 1_000_000:
            number += 1
            request = {
                "method": rng.choice(["GET", "GET", "GET", "HEAD", "POST"]),
                "host": "api.example.test",
                "uri": f"/items/{number}",
            }
            request["headers"] = {"User-Agent": ["Mozilla/5.0"], "Accept": ["*/*"], "Referer": ["https://www.example.test/a/b/c"]}
            line = json.dumps(
                {"ts": 1_790_000_000 + number / 200, "request": request, "status": 200, "duration": rng.random() / 50}
            )
            written += file.write((line if number % 1000 else "\x00garbage" * 20) + "\n")


def main() -> None:
    """Write, draw, tell."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "access.log"
        write(path, megabytes)
        begun = time.perf_counter()
        drawn = draw(path, seed=1, most=10_000)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(drawn.told())
    print(
        f"{megabytes} MB in {seconds:.1f} s: {drawn.lines / seconds:,.0f} lines/s, {megabytes / seconds:.0f} MB/s; peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
