"""`chaos-gate run` on the tiny target as a process that can be broken, interrupted and looked at; and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil

from chaos.evidence.store import STORE, Store
from chaos.watchdog import strays
from tests.detection.conftest import TARGETS, with_environment

TINY = TARGETS / "tiny" / "chaos.toml"
ONE = "network.refused.pooled"
PATIENCE = 60.0  # s for anything that takes one on an idle machine


def until(what, seconds=PATIENCE):
    """The first true answer of `what()`; the last one when the time is over."""
    end = time.monotonic() + seconds
    while not (answer := what()) and time.monotonic() < end:
        time.sleep(0.02)
    return answer


class Run:
    """One run, in a session of its own, in a directory of its own: its evidence below `evidence/`, its temporary files in `tmp/`."""

    def __init__(self, place, config=TINY, *, only=(ONE,), workers=1, env=None, options=(), before=(), limits=None):
        self.place = Path(place)
        (self.place / "tmp").mkdir(exist_ok=True)
        self.scratch_before = scratch()
        command = [*before, sys.executable, "-m", "chaos", "run", "-c", str(config), "--seed", "1", "-n", str(workers)]
        command += [part for name in only for part in ("--only", name)] + list(options)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CHAOS_R"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with (self.place / "stdout").open("wb") as out, (self.place / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=self.place,
                env={**kept, "PATH": path, "TMPDIR": str(self.place / "tmp"), "COLUMNS": "200", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    # -- while it runs ----------------------------------------------------------------------------------------------------------

    @property
    def directory(self):
        """Its evidence directory, whose name ends in the run's id; None when there is none."""
        return next((path for path in (self.place / "evidence").glob("*-*") if not path.is_symlink()), None)

    @property
    def id(self):
        return until(lambda: self.directory).name.rpartition("-")[2]

    def processes(self):
        """Everything it started that lives, by the mark in its environment (the mark of a reaper begins with the run's id)."""
        return [one for one in _marked() if one[1].startswith(self.id + ".")]

    def part(self, *words):
        """The process, when there is one, whose command line has all these words; the runner itself is none."""
        for process, _ in self.processes():
            with suppress(psutil.Error):
                if all(any(word in part for part in process.cmdline()) for word in words):
                    return process
        return None

    def wait_for(self, *words):
        return until(lambda: self.part(*words) or self._gone(words))

    def wait_for_fault(self):
        """Until a proxy of its Toxiproxy is disabled or holds a toxic: the run is in mid-fault."""
        toxiproxy = self.wait_for("toxiproxy-server", "-port")
        arguments = toxiproxy.cmdline()
        port = arguments[arguments.index("-port") + 1]

        def broken():
            self._gone(("fault",))
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/proxies", timeout=2) as answer:
                return any(not one["enabled"] or one["toxics"] for one in json.loads(answer.read()).values())
            return False

        assert until(broken), "no fault was ever injected"

    def _gone(self, words):
        if self.process.poll() is not None:
            raise AssertionError(f"ended ({self.process.returncode}) before there was {words}:\n{self.told()}")

    def told(self):
        return self.stdout + self.stderr

    # -- when it has ended ------------------------------------------------------------------------------------------------------

    def wait(self, seconds=PATIENCE * 2):
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s:\n{self.told()}") from None

    @property
    def stdout(self):
        return (self.place / "stdout").read_text(encoding="utf-8", errors="replace")

    @property
    def stderr(self):
        return (self.place / "stderr").read_text(encoding="utf-8", errors="replace")

    @property
    def evidence(self):
        return json.loads((self.directory / "evidence.json").read_text(encoding="utf-8"))

    @property
    def recorded_error(self):
        """The environment error in its evidence store."""
        with Store(self.directory / STORE) as store:
            return store.run().environment_error

    def left(self, seconds=5.0):
        """What is still there of it after so many seconds: processes, scratch, temporary files. Nothing, if all is well."""

        def rest():
            found = [f"pid {one}" for one in strays(self.id)] if self.directory else []
            if self.directory:
                found += [f"pid {process.pid}" for process, _ in self.processes()]
            found += [str(path) for path in (self.place / "tmp").iterdir()]
            return found + [str(path) for path in scratch() - self.scratch_before if not _used_by_another(path)]

        found = ["never looked"]

        def nothing():
            found[:] = rest()  # looked at once: another run may be about to make, or to remove, what it keeps
            return not found

        until(nothing, seconds)
        return found


def _marked():
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if mark := process.environ().get("CHAOS_RUN_ID"):
                yield process, mark


def scratch():
    """What runs keep outside of TMPDIR."""
    return {path for base in ("/dev/shm", "/tmp", "/var/tmp") for path in Path(base).glob("chaos-*")}


def _used_by_another(path):
    """Another run on this machine, in which somebody lives: its watchdog, at the least, is called with the run's id."""
    words = {str(path), path.name.removeprefix("chaos-gate-") + "."} if path.name.startswith("chaos-gate-") else {str(path)}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            told = (*process.cmdline(), process.cwd(), *process.environ().values())
            if any(word in part for part in told for word in words):
                return True
    return False


def one_error(run, code, *words):
    """The exit code; one message that holds all the words; no traceback, on either stream."""
    assert run.wait() == code, run.told()
    assert "Traceback" not in run.told(), run.told()
    errors = [line for line in run.stderr.splitlines() if line.startswith("chaos-gate: ")]
    assert len(errors) == 1, run.told()
    assert run.stderr.count("  -> ") <= 1, run.stderr
    for word in words:
        assert word in run.stderr, run.stderr


def tiny(place, mode="", **changes):
    """A chaos.toml for the tiny target, with MODE, and with text replaced: `old` by `new`."""
    made = with_environment(TINY, Path(place), {"MODE": mode})
    if changes:
        text = made.read_text(encoding="utf-8")
        assert changes["old"] in text
        made.write_text(text.replace(changes["old"], changes["new"]), encoding="utf-8")
    return made
