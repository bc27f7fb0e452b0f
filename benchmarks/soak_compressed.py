"""What a compressed soak of 72 hours makes of a modelled service, and of six that are wrong in one way each.

python benchmarks/soak_compressed.py [MODEL]... [--rate 200] [--hours 72]

Prints, for each model: verdict and reason, how long it took, the memory of the runner (first and last tenth), the size of the evidence
an hour, and how long `recheck` of it takes. Exit 1 when a verdict, the memory (+- 5 %) or the recheck (60 s) is wrong.
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

from chaos.evidence.store import SEGMENTS, Store
from chaos.soak.modelled import MODELS

# What has to become of each, and a word of the reason.
WANTED = {
    "healthy": ("GO", ""),
    "bad-hour": ("NO-GO", "red"),
    "gap": ("INCONCLUSIVE", "grey"),
    "leak-memory": ("NO-GO", "memory"),
    "leak-connections": ("NO-GO", "sessions"),
    "leak-latency": ("NO-GO", "latency"),
}
FLAT = 0.05
RECHECKED = 60.0  # s


def command(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """`chaos-gate`, and how long it took."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "chaos", *arguments], capture_output=True, text=True, check=False)
    return done, time.monotonic() - begun


def memory(directory: Path) -> tuple[float, float]:
    """The runner's, in the first and the last tenth of the minutes, but for the first hour: medians, in MB."""
    with Store(directory / SEGMENTS / "soak.sqlite") as store:
        seen = [one.value / 1e6 for history in store.histories() for one in history.gauges if one.name == "runner.memory"][60:]
    tenth = max(1, len(seen) // 10)
    return statistics.median(seen[:tenth]), statistics.median(seen[-tenth:])


def measure(model: str, *, rate: float, hours: float) -> bool:
    """One model; whether all is as it should be."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "evidence"
        options = ["--compress", "--model", model, "--hours", f"{hours:g}", "--rate", f"{rate:g}", "--seed", "1"]
        _, took = command("soak", *options, "--evidence", str(directory))
        evidence = json.loads((directory / "evidence.json").read_text(encoding="utf-8"))
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6 / hours
        early, late = memory(directory)
        again, rechecked = command("recheck", str(directory))
    bad = [one for one in evidence["gates"] if one["verdict"] in {"fail", "inconclusive"}]
    reasons = "; ".join(
        f"{one['id']}: {one['reason']}" for one in bad if one["id"].startswith(("rep.go", "rel.", "res.", "sec."))
    )
    verdict, word = WANTED[model]
    well = {
        "verdict": evidence["verdict"] == verdict and word in reasons,
        "memory": abs(late / early - 1) <= FLAT,
        "recheck": rechecked <= RECHECKED and again.stdout.startswith(evidence["verdict"]),
    }
    print(
        f"{model:<17} {evidence['verdict']:<13} {took:5.0f} s   memory {early:.0f} -> {late:.0f} MB ({late / early - 1:+.1%})   "
        f"{size:.2f} MB an hour   recheck {rechecked:.0f} s   {'well' if all(well.values()) else f'NOT WELL: {well}'}"
    )
    print(f"{'':<17} {reasons[:300] or 'every gate that applies is proven'}")
    return all(well.values())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--hours", type=float)
    given = parser.parse_args()
    results = [measure(model, rate=given.rate, hours=given.hours or 72.0) for model in given.models]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
