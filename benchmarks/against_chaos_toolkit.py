"""One fault cycle - steady, inject, confirm, heal, confirm - here and with Chaos Toolkit and chaostoolkit-toxiproxy.

    python benchmarks/against_chaos_toolkit.py [-n CYCLES] [--json]

Both break the same proxy in front of the same PostgreSQL, in turns, so that noise hits both alike; both look with the same kind of
session (verify-full, through the proxy). Three ways are timed:
- ours: a fault of this suite, as an experiment carries it out: into the ledger, injected, read back, confirmed, healed, confirmed;
- toolkit: `chaos run`, as people start it, with a steady-state hypothesis before and after, and a roll-back;
- toolkit, inside: the same run by its own journal, without the start of the interpreter.
What cannot be compared by time is said below the table: what each of the two would not have noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.environments.local import LocalEnvironment, provide
from chaos.environments.local.cache import shared_cache
from chaos.environments.local.environment import LocalSettings
from chaos.faults.network import NETWORK, NetworkInjector, SessionProber
from chaos.faults.probe import PROBE_NAME, connect
from chaos.faults.toxiproxy import ProxyControl
from chaos.ledger import Ledger
from chaos.processes import Reaper

if TYPE_CHECKING:
    from collections.abc import Callable

PINS = Path(__file__).parents[1] / "requirements" / "chaostoolkit.txt"
PROXY = "database"
TOXIC = "latency"  # both tools know it, and removing it leaves every connection alive
ROW = next(row for row in NETWORK if row.id == TOXIC)
MS = ROW.toxics[0].attributes


def toolkit() -> Path:
    """The `chaos` of a virtual environment of its own, made once: its pins are not ours."""
    place = shared_cache() / "chaostoolkit"
    command = place / "bin" / "chaos"
    if not command.exists():
        print("set up        Chaos Toolkit, once", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(PINS)]
        subprocess.run([*install, "--disable-pip-version-check"], check=True, timeout=600)
    return command


LOOK = """
import sys
import time
import psycopg
started = time.monotonic()
with psycopg.connect(sys.argv[1], connect_timeout=5, autocommit=True) as session:
    session.execute("SELECT 1")
print("slow" if time.monotonic() - started > 0.12 else "fast")
"""


def experiment(url: str, conninfo: str) -> dict[str, Any]:
    """The same cycle in Chaos Toolkit's words. A process probe looks, as it does for whoever has no Python package to name."""
    host, port = url.removeprefix("http://").split(":")

    def look(name: str, expected: str) -> dict[str, Any]:
        provider = {"type": "process", "path": sys.executable, "arguments": ["-c", LOOK, conninfo], "timeout": 20}
        return {"type": "probe", "name": name, "tolerance": {"type": "regex", "target": "stdout", "pattern": expected}} | {
            "provider": provider
        }

    def act(name: str, module: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "action",
            "name": name,
            "provider": {"type": "python", "module": "chaostoxi.toxic.actions", "func": module, "arguments": arguments},
        }

    toxic = {"for_proxy": PROXY, "toxic_name": TOXIC}
    during = look("slow", "slow")
    return {
        "title": "latency between a client and PostgreSQL",
        "description": "inject, confirm, heal, confirm",
        "configuration": {"toxiproxy_host": host, "toxiproxy_port": int(port)},
        "steady-state-hypothesis": {"title": "it answers fast", "probes": [look("fast", "fast")]},
        "method": [
            act("inject", "create_latency_toxic", {**toxic, "latency": MS["latency"], "jitter": MS["jitter"]}),
            during,
            act("heal", "delete_toxic", toxic),
        ],
        "rollbacks": [],
    }


class Scene:
    """The environment both work on, and one cycle of each."""

    def __init__(self, folder: Path, reaper: Reaper, command: Path) -> None:
        self.environment = LocalEnvironment(reaper=reaper, run_dir=folder)
        self.environment.start()
        postgres = self.environment.postgres
        self.control = ProxyControl(self.environment.toxiproxy_url)
        self.port = self.control.create(PROXY, postgres.port)
        self.conninfo = (
            f"host={PROBE_NAME} hostaddr=127.0.0.1 port={self.port} user={postgres.app_user} password={postgres.app_password} "
            f"dbname={postgres.app_database} sslmode=verify-full sslrootcert={postgres.ca_file} gssencmode=disable"
        )
        self.ledger = Ledger(folder / "faults.jsonl", of="benchmark")
        self.folder, self.command = folder, command
        self.plan = folder / "experiment.json"
        self.plan.write_text(json.dumps(experiment(self.environment.toxiproxy_url, self.conninfo)), encoding="utf-8")
        self.inside: list[float] = []

    def ours(self) -> float:
        """Seconds of one cycle of ours."""
        started = time.monotonic()
        assert connect(self.conninfo).how == "answer"
        fault = NetworkInjector(ROW, "pooled", self.control, PROXY, SessionProber(self.conninfo, self.port), sever=lambda: 0)
        entry = self.ledger.begin(fault)
        try:
            fault.inject()
            effect = fault.confirm()
        finally:
            fault.heal()
            self.ledger.healed(entry)
        assert effect.took, effect.seen
        assert connect(self.conninfo).how == "answer"
        return time.monotonic() - started

    def theirs(self) -> float:
        """Seconds of one `chaos run`; what its journal says went by inside is kept in `inside`."""
        journal = self.folder / "journal.json"
        command = [str(self.command), "--no-version-check", "run", "--journal-path", str(journal), str(self.plan)]
        started = time.monotonic()
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, env=_quiet())
        seconds = time.monotonic() - started
        told = json.loads(journal.read_text(encoding="utf-8")) if journal.exists() else {}
        if done.returncode or told.get("status") != "completed" or told.get("deviated"):
            sys.exit(f"Chaos Toolkit did not do it: {told.get('status')}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        begun, ended = (datetime.fromisoformat(told[name]) for name in ("start", "end"))
        self.inside.append((ended - begun).total_seconds())
        return seconds


def _quiet() -> dict[str, str]:
    return {**os.environ, "DO_NOT_TRACK": "1", "NO_COLOR": "1"}


def measure(scene: Scene, cycles: int) -> dict[str, list[float]]:
    """Seconds by way, in turns; one of each beforehand, so that all imports are in the page cache."""
    ways: dict[str, Callable[[], float]] = {"ours": scene.ours, "toolkit": scene.theirs}
    for way in ways.values():
        way()
    scene.inside.clear()
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(cycles):
        for name, way in ways.items():
            seen[name].append(way())
    return {**seen, "toolkit, inside": scene.inside}


NOT_BY_TIME = """\
beside the time, of this cycle:
  killed between inject and heal   ours: the ledger's entry is healed by a watchdog (tests/detection/test_ledger_of_each_fault.py)
                                   toolkit: the toxic stays; roll-backs are run by the process that has been killed
  the toxic did not take           ours: read back, and both probes have rules of their own; a pass becomes INCONCLUSIVE
                                   toolkit: only what the author wrote as a probe with a tolerance notices it"""


def main() -> int:
    """Measures and prints; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", dest="cycles", type=int, default=7, help="cycles of each (default: 7)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    provide(LocalSettings(), say=lambda text: print(text, file=sys.stderr))
    command = toolkit()
    with tempfile.TemporaryDirectory() as place, Reaper("benchmark") as reaper:
        folder = Path(place)
        folder.chmod(0o755)
        scene = Scene(folder, reaper, command)
        try:
            seen = measure(scene, options.cycles)
        finally:
            scene.ledger.close()
            scene.environment.stop()
    rows = {
        name: {"n": len(all_), "median": statistics.median(all_), "min": min(all_), "max": max(all_)}
        for name, all_ in seen.items()
    }
    ratio = {name: row["median"] / rows["ours"]["median"] for name, row in rows.items()}
    if options.json:
        print(json.dumps({"benchmark": "against_chaos_toolkit", "unit": "s", "results": rows, "ratio_to_ours": ratio}))
        return 0
    print("seconds of one fault cycle (steady, inject, confirm, heal, confirm)")
    for name, row in rows.items():
        times = f"{row['median']:.3f}  ({row['min']:.3f} to {row['max']:.3f}, n={row['n']})"
        print(f"  {name:16} median {times}  {60 / row['median']:6.0f} cycles a minute  {ratio[name]:5.2f} times ours")
    print(NOT_BY_TIME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
