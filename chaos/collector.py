"""The controller's side of a run: what was expected, what was reported, and what becomes of it - verdict, evidence, exit code."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import __version__, attestation, ledger
from chaos.cases import Case, case_of, select
from chaos.config import Config, load
from chaos.errors import ChaosError, CleanupFailed, EvidenceUnwritable, PartFailed
from chaos.evidence import bundle, policy
from chaos.evidence.record import HostFacts, Run
from chaos.evidence.store import merge
from chaos.experiment.private import own_secrets
from chaos.gates import Gate, judge, verdict
from chaos.gates import load as load_gates
from chaos.model import ENVIRONMENT, EXIT_CODES, INTERRUPTED, Finding, GateResult, Outcome, Verdict, now
from chaos.processes import Reaper
from chaos.session import config_path, limits_for, scratch, worker_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

    from chaos.checks import Limits
    from chaos.terminal import Screen

TOLD = ("CHAOS_RUN", "CHAOS_RUN_DIR", "CHAOS_EVIDENCE", "CHAOS_SEED", "CHAOS_RUNNER", "CHAOS_BACKEND")  # to the workers of a run


@dataclass(kw_only=True)
class Request:
    """What was asked for on the command line.

    `settles`: the gates that the run has to prove, where neither its profile nor `only` says so. `resume`: goes on in `evidence`.
    """

    given: str | None = None
    profile: str = "quick"
    only: tuple[str, ...] = ()
    evidence: str | None = None
    seed: int | None = None
    command: str = "chaos-gate run"
    backend: str = "auto"
    settles: tuple[str, ...] = ()
    resume: bool = False


@dataclass
class Collector:
    """Registered with pytest as a plugin; also the run's clean-up, for what the workers share (its scratch directory)."""

    request: Request
    config: Config
    gates: dict[str, Gate]
    limits: Limits
    seed: int
    run_id: str
    directory: Path
    run_dir: Path
    screen: Screen | None
    bare: bool = False
    workers: int = 1
    started: float = field(default_factory=now)
    expected: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    running: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)
    error: ChaosError | None = None
    cleanup: str = ""
    broke: bool = False  # whether anything was
    called: str = ""  # the target's name in the evidence, where it is not chaos.toml's
    notes: list[str] = field(default_factory=list)  # what has to be said beside the verdict, whatever it is
    interrupted: bool = False
    fixed: bool = False  # whether policy.json has been written
    _reaper: Reaper | None = None

    # -- before ---------------------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, request: Request, *, screen: Screen | None, bare: bool = False) -> Collector:
        """Read the configuration, make the evidence directory and the scratch directory. Raises UsageError, EvidenceUnwritable."""
        attestation.key()  # one that cannot sign is told now, and not when all is done
        config = load(config_path(request.given))
        gates = load_gates(config.gates)
        seed = request.seed if request.seed is not None else random.SystemRandom().randrange(1, 10**6)
        run_id = secrets.token_hex(4)
        directory = _evidence_directory(request.evidence, run_id, anew=not request.resume)
        run_dir = scratch() / f"chaos-gate-{run_id}"
        run_dir.mkdir(mode=0o755)
        return cls(
            request=request,
            config=config,
            gates=gates,
            limits=limits_for(config, gates, seed=seed, given=request.given),
            seed=seed,
            run_id=run_id,
            directory=directory,
            run_dir=run_dir,
            screen=screen,
            bare=bare,
        )

    @classmethod
    def for_pytest(cls, config: pytest.Config) -> Collector:
        """For a bare `pytest tests/resilience tests/security`."""
        request = Request(
            given=config.getoption("--chaos-config"),
            profile=config.getoption("--chaos-profile"),
            only=tuple(config.getoption("--chaos-only")),
            evidence=config.getoption("--chaos-evidence"),
            seed=config.getoption("--chaos-seed"),
            command="pytest " + " ".join(sys.argv[1:]),
            backend=os.environ.get("CHAOS_BACKEND", "auto"),
        )
        return cls.prepare(request, screen=None, bare=True)

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What chaos.toml holds and no output may."""
        return own_secrets(self.config)

    @property
    def backend(self) -> str:
        """'local' or 'docker', whatever was asked for. 'auto' needs no container engine but for a target that is an image."""
        asked = self.request.backend
        return asked if asked != "auto" else "docker" if self.config.target.image is not None else "local"

    def own(self) -> None:
        """From here on the scratch directory goes when this process does, however it ends; workers learn what they need."""
        self._reaper = Reaper(self.run_id)
        self._reaper.own(self.run_dir)
        os.environ.update(
            CHAOS_RUN=self.run_id,
            CHAOS_RUN_DIR=str(self.run_dir),
            CHAOS_EVIDENCE=str(self.directory),
            CHAOS_SEED=str(self.seed),
            CHAOS_RUNNER=str(os.getpid()),
            CHAOS_BACKEND=self.backend,
        )

    def fix(self, experiments: Iterable[tuple[str, int]] = ()) -> None:
        """Write policy.json, before anything is broken. `experiments`: what, and how often. Raises UsageError when resumed."""
        self.fixed = True
        made = policy.compose(
            run=self.run_id,
            version=__version__,
            target=self.config.target.name,
            profile=self.request.profile,
            seed=self.seed,
            command=self.request.command,
            gates=self.gates,
            limits=self.limits,
            selected=self._selected,
            absent=absent(self.config, self.gates),
            overrides=dict(self.config.gates),
            waivers=dict(self.config.waivers),
            configuration=self.config.model_dump(mode="json", by_alias=True),
            secrets=self.secrets,
            experiments=experiments,
            plan=policy.plans(self.directory),
        )
        policy.fix(self.directory, made, resumed=self.request.resume)

    @property
    def _selected(self) -> frozenset[str] | None:
        return frozenset(self.request.settles) or selected_gates(self.request.only)

    def release(self) -> None:
        """Remove the scratch directory; CleanupFailed when something is left. Idempotent."""
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None
        for name in TOLD:
            os.environ.pop(name, None)

    # -- pytest's hooks ---------------------------------------------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What is going to be run, without workers."""
        self.expect(item.nodeid for item in session.items if item.get_closest_marker("families"))

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """The same, told by a worker."""
        del node
        self.expect(one for one in ids if one.endswith("]"))

    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A worker has ended; with an error when nobody asked it to."""
        worker_file(self.run_dir, node.gateway.id).unlink(missing_ok=True)
        if error and self.error is None and not self.interrupted:
            self.error = PartFailed(
                "a worker process of the suite died",
                remedy="look for the out-of-memory killer (dmesg), or run with fewer workers: -n 1",
                where=node.gateway.id,
            )
            self._end_workers()

    def pytest_keyboard_interrupt(self) -> None:
        """Workers heal, stop what they started and end, now rather than after the check that they are at."""
        self.interrupted = self.error is None
        self._end_workers()

    def _end_workers(self) -> None:
        for file in self.run_dir.glob(worker_file(self.run_dir, "*").name):
            with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or only about to come up
                os.kill(int(file.read_text(encoding="ascii")), signal.SIGTERM)

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """A case begins on some worker."""
        del location
        self.running[_case_id(nodeid)] = time.monotonic()
        self._show()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a case has ended; its result came with it."""
        name = _case_id(report.nodeid)
        told = dict(report.user_properties).get("chaos")
        if report.when == "call" and told:
            self._take(name, json.loads(str(told)))
        elif report.failed and name not in self.done:
            self._crashed(name, report.longreprtext)
        elif report.failed and report.when == "teardown" and self.error is None:
            self.error = CleanupFailed(
                "a worker could not take down what it had started",
                remedy="end and remove by hand what is named above",
                where="clean-up",
                tail=tuple(line for line in report.longreprtext.splitlines() if line.strip())[-6:],
            )
        if report.when == "teardown":
            self.running.pop(name, None)
        self._show()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A bare pytest run ends with the verdict, and with the same evidence as `chaos-gate run`."""
        if self.bare and self.expected:
            run, _ = self.conclude()
            failed = [gate.id for gate in run.gates if gate.outcome is Outcome.FAIL]
            terminalreporter.write_line(f"chaos-gate: {run.verdict.value} {' '.join(failed)}  {self.directory}/report.html")

    def pytest_unconfigure(self) -> None:
        """A bare run's scratch directory goes with it."""
        if self.bare:
            self.release()

    def expect(self, nodeids: Iterable[str]) -> None:
        """The cases that have to be heard of before the run may end well."""
        self.expected = list(dict.fromkeys([*self.expected, *map(_case_id, nodeids)]))
        if self.bare and not self.fixed:
            self.fix(Counter(name.partition("#")[0] for name in self.expected).items())

    def _take(self, name: str, told: Mapping[str, Any]) -> None:
        self.done.add(name)
        if told["parts"] and not self.parts and self.screen is not None:
            versions = " · ".join(f"{name} {version}" for name, version in told["parts"].items())
            self.screen.phase("environment", versions, None)
        self.parts.update(told["parts"])
        if told["error"] and self.error is None:
            raw = told["error"]
            self.error = ChaosError(raw["what"], remedy=raw["remedy"], where=raw["where"], tail=tuple(raw["tail"]))
            self.error.__dict__["exit_code"] = raw["exit"]
            self._end_workers()  # the others would only meet the same, or prove what is not a whole any more
        for raw in told["findings"]:
            lists = {"examples": tuple(raw["examples"]), "groups": tuple((what, count) for what, count in raw["groups"])}
            finding = Finding(**{**raw, **lists, "outcome": Outcome(raw["outcome"])})
            self.findings.append(finding)
            if finding.outcome is Outcome.FAIL and self.screen is not None:
                self.screen.failure(finding)

    def _crashed(self, name: str, text: str) -> None:
        """Something of ours broke outside the check (or a worker died): unknown, never a pass."""
        self.done.add(name)
        self.findings.append(self._unknown(name, text.strip().splitlines()[-1][:300] if text.strip() else "a worker died"))

    def _unknown(self, name: str, why: str) -> Finding:
        case = case_of(name.partition("#")[0])
        assert case is not None
        return Finding(
            check=case.id,
            gate=case.gate,
            outcome=Outcome.INCONCLUSIVE,
            detail=why,
            experiment=case.id,
            rerun=self.limits.again(case.id),
        )

    def _show(self) -> None:
        if self.screen is None or not self.expected:
            return
        oldest = min(self.running, key=lambda name: self.running[name], default="")
        case = case_of(oldest.partition("#")[0]) if oldest else None
        title = case.title if case else ""
        done, total = len(self.done), len(self.expected)
        elapsed = now() - self.started
        left = elapsed / done * (total - done) if done >= 3 else None
        self.screen.breaking(title, done, total, left)

    # -- after ------------------------------------------------------------------------------------------------------------------

    def conclude(self) -> tuple[Run, int]:
        """Judge, write the evidence, and say which exit code that is."""
        missing = [name for name in self.expected if name not in self.done]
        if missing and self.error is None and not self.interrupted:
            self.findings += [self._unknown(name, "it was never heard of again") for name in missing]
        self._settle()
        self.findings = attestation.concluded(
            self.directory,
            self.findings,
            self._judged if self.fixed else None,
            ended=self._ended,
            secrets=self.secrets,
            resumed=self.request.resume,
        )
        store = merge(self.directory)
        run = self._run()
        bundle.write(self.directory, run, store, secrets=self.secrets, limits=self.limits)
        store.close()
        if self.fixed:
            attestation.seal(self.directory, attestation.key())
        code = EXIT_CODES[run.verdict]
        if self.interrupted:
            code = INTERRUPTED
        elif self.error is not None:
            code = int(self.error.exit_code or ENVIRONMENT)
        return run, code

    @property
    def _ended(self) -> str:
        return self.error.render() if self.error is not None else "interrupted" if self.interrupted else ""

    def _judged(self, findings: Iterable[Finding]) -> tuple[GateResult, ...]:
        return judge(findings, self.gates, absent=absent(self.config, self.gates), waivers=dict(self.config.waivers))

    def _settle(self) -> None:
        """What the ledger still holds is healed now, or it is an environment error: nothing stays broken in silence."""
        path = self.directory / ledger.NAME
        left = ledger.settle(path, by="runner", wait=ledger.SETTLE if self.error or self.interrupted else 0.0)
        self.cleanup, self.broke = left.sentence, left.injected > 0
        if left.open:
            self.error = ledger.dirty(path, left)

    def _run(self) -> Run:
        target = self.config.target
        results = self._judged(self.findings)
        chosen = self._selected
        last = verdict(results, self.gates, profile=self.request.profile, selected=chosen)
        if (self.error is not None or self.interrupted) and last is not Verdict.NO_GO:
            last = Verdict.INCONCLUSIVE
        return Run(
            version=__version__,
            target=self.called or target.name,
            notes=tuple(self.notes),
            profile=self.request.profile,
            seed=self.seed,
            verdict=last,
            scope="soak" if self.request.profile == "soak" else "smoke",
            started=self.started,
            finished=now(),
            workers=self.workers,
            parts=self.parts,
            gates=results,
            findings=tuple(self.findings),
            command=self.request.command,
            only=" ".join(self.request.only),
            selected=tuple(chosen or ()),
            environment_error=self._ended,
            host=HostFacts.here(),
            titles={gate.id: gate.title for gate in self.gates.values()},
            recovery_limit=target.database.recovery,
            cleanup=self.cleanup,
            rates=self.limits.rates,
            seconds=self.limits.seconds,
        )


def absent(config: Config, gates: Mapping[str, Gate]) -> dict[str, str]:
    """The gates that do not apply to the target of this chaos.toml, each with the reason."""
    declares = config.target.declares
    return {
        gate.id: f"no {_table(gate.needs)} in chaos.toml" for gate in gates.values() if gate.needs and not declares(gate.needs)
    }


def _table(needs: str) -> str:
    """'target.read' -> '[[target.read]]', as it is written in the file."""
    lists = {"target.read", "target.write", "target.invalid"}
    return f"[[{needs}]]" if needs in lists else f"[{needs}]"


def selected_gates(only: tuple[str, ...]) -> frozenset[str] | None:
    """The gates that a run with these `--only` has to prove; None for all."""
    if not only:
        return None
    sides = {
        "invalid": "rel.no_400_to_500",
        "errors": "rel.error_schema",
        "writes": "res.durability",
        "handshakes": "sec.tls_handshake",
    }
    chosen: set[str] = set()
    for name in only:
        cases: tuple[Case, ...] = select((name,))
        if any(name in case.gates for case in cases):
            chosen.add(name)
        elif name.split(".")[0] in sides:
            chosen.add(sides[name.split(".")[0]])
        else:
            chosen |= {case.gate for case in cases}
    return frozenset(chosen)


def _case_id(nodeid: str) -> str:
    """'...::test_network[network.refused.pooled]' -> 'network.refused.pooled' (with '#2' where it is repeated)."""
    return nodeid.rsplit("[", 1)[1][:-1] if nodeid.endswith("]") else nodeid.rsplit("::", 1)[-1]


def _evidence_directory(given: str | None, run_id: str, *, anew: bool) -> Path:
    """Made now, so that an unwritable place is known before anything is started."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    directory = Path(given) if given else Path("evidence") / f"{stamp}-{run_id}"
    try:
        (directory / "segments").mkdir(parents=True, exist_ok=True)
        for old in (directory / "segments").glob("*.sqlite*") if anew else ():  # a named directory is written anew
            old.unlink()
        _unbroken(directory / ledger.NAME, anew=anew)
        probe = directory / ".writable"
        probe.write_bytes(b"x" * 65_536)
        probe.unlink()
    except OSError as error:
        raise EvidenceUnwritable(
            f"cannot write the evidence: {error.strerror}",
            remedy="make room, or name another place with --evidence DIR",
            where=str(directory),
        ) from error
    return directory.resolve()


def _unbroken(path: Path, *, anew: bool) -> None:
    """A named directory is written anew, but for a ledger that still tells how something is mended: that is mended first."""
    if alive := ledger.living(path):
        raise EvidenceUnwritable(
            f"another run writes its evidence here (pid {', '.join(map(str, alive))})",
            remedy="wait for it, or name another place with --evidence DIR",
            where=str(path.parent),
        )
    if ledger.settle(path, by="hand", wait=0.0).open:
        raise EvidenceUnwritable(
            "the last run into this directory left faults that nobody has healed",
            remedy=f"heal them first: chaos-gate heal --ledger {path}",
            where=str(path),
        )
    if anew:
        path.unlink(missing_ok=True)


def sweep_stale(base: Path) -> None:
    """Scratch directories of runs that are long dead (a machine that lost power): removed when older than a day."""
    for path in base.glob("chaos-gate-*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > 86_400:
            shutil.rmtree(path, ignore_errors=True)
