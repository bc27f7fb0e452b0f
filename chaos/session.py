"""A worker's side of a run: its rig, its segment of the evidence, and how a case becomes findings."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import random
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import cases, experiment
from chaos.checks import Limits, judge
from chaos.config import load
from chaos.errors import ChaosError, EvidenceUnwritable, UsageError
from chaos.evidence import accepted
from chaos.evidence.store import Segment
from chaos.experiment.private import own_secrets
from chaos.faults import schedule
from chaos.gates import Gate, named
from chaos.gates import load as load_gates
from chaos.model import Finding, Outcome
from chaos.rollout import drill, expiry, rotation
from chaos.shrinking import shrink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType

    import pytest

    from chaos.cases import Case
    from chaos.config import Config
    from chaos.faults.schedule import Schedule
    from chaos.model import History
    from chaos.rig import Rig

REFERENCE = Path(__file__).parent / "targets" / "reference" / "chaos.toml"
REPEATS = {"quick": 1, "nightly": 3}
ONCE = {
    "steady",
    "hosts",
    "pentest",
    "edge",
    "server",
    "injection",
    "rotation",
    "expiry",
    "corpus-sample",
    "corpus-steady",
    "corpus-fault",
    "corpus-candidate",
    "replicas",
    "recovery",
    "restore",
    "schedule",
    "contract",
    "shadow",
    "delta",
    "documents",
    *("cross", "life", "bouncer", "starting", "flapping", "replica"),  # these take long enough as it is
    "logs",
    "logs-fault",
    "metrics",
    "metrics-tls",
    "metrics-pool",
    "safeguards",
}  # repeating these says no more than they do at once
LOSE = {"_remove", "remove", "__del__", "__call__"}  # callbacks of weak references, and finalizers
COMMAND = (sys.executable, "-m", "chaos")


def config_path(given: str | None) -> Path:
    """The caller's chaos.toml, or the bundled service's."""
    return Path(given) if given else REFERENCE


def cases_for(families: Sequence[str], config: pytest.Config) -> list[tuple[str, Case]]:
    """The selected cases of these families, each with the id of its pytest item ('...#2' when it is repeated).

    A family that does not exist is a UsageError with 'did you mean'.
    """
    known = {case.family for case in cases.CASES}
    for family in families:
        named(family, known)
    only, profile = tuple(config.getoption("--chaos-only")), config.getoption("--chaos-profile")
    chosen = [case for case in cases.select(only) if case.family in families and cases.due(case, only, profile)]
    times = REPEATS[profile]
    return [
        (case.id if turn == 0 else f"{case.id}#{turn + 1}", case)
        for turn in range(times)
        for case in chosen
        if turn == 0 or not (case.family in ONCE or case.reason)
    ]


def worker_file(run_dir: Path, worker: str) -> Path:
    """Where a worker says which process it is."""
    return run_dir / f"worker-{worker}.pid"


def follow_runner(worker: str) -> None:
    """A worker's end is the runner's business: Ctrl-C at the terminal, which reaches the whole group, is for the runner to answer.

    It ends its workers by SIGTERM, which interrupts a worker as Ctrl-C would: healed, stopped. Should the runner die, the kernel
    ends the worker (Linux); elsewhere the watchdog does, which watches the runner's pid.
    """
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which whatever is started from here would inherit
    signal.signal(signal.SIGTERM, _end)
    if "CHAOS_RUN_DIR" in os.environ:
        worker_file(Path(os.environ["CHAOS_RUN_DIR"]), worker).write_text(str(os.getpid()), encoding="ascii")
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


def _end(_number: int, frame: FrameType | None) -> None:
    if frame is not None and frame.f_code.co_name in LOSE:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGTERM)).start()  # Python drops what is raised in there
        return
    signal.signal(signal.SIGTERM, lambda *_: None)  # once: the cleaning that follows is not to be interrupted
    raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Result:
    """What `prove` made of one case; `error` is an environment error, which ends the run."""

    findings: tuple[Finding, ...] = ()
    skipped: str = ""
    error: ChaosError | None = None
    parts: Mapping[str, str] | None = None

    @property
    def problems(self) -> list[str]:
        """Findings that are no pass, as text."""
        bad = [one for one in self.findings if one.outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}]
        return [explain(one) for one in bad]

    def as_json(self) -> str:
        """For the controller, which may be another process."""
        error = self.error
        return json.dumps(
            {
                "findings": [asdict(one) for one in self.findings],
                "skipped": self.skipped,
                "parts": dict(self.parts or {}),
                "error": error
                and {
                    "what": error.what,
                    "remedy": error.remedy,
                    "where": error.where,
                    "tail": error.tail,
                    "exit": error.exit_code,
                },
            }
        )


def explain(one: Finding) -> str:
    """A finding as a bug report of a few lines."""
    lines = [f"{one.outcome.upper()}  {one.check}  ({one.gate})", f"  seen      {one.detail}", f"  expected  {one.expected}"]
    if one.fault:
        lines.insert(1, f"  broken    {one.fault}")
    lines += [f"  example   {text}" for text in one.examples]
    return "\n".join([*lines, f"  again     {one.rerun}"])


def limits_for(config: Config, gates: Mapping[str, Gate], *, seed: int, given: str | None) -> Limits:
    """What the checks are held against."""
    target = config.target
    schema: str | Mapping[str, Any] | None = None
    if target.errors is not None:
        schema = target.errors.schema
        if target.errors.schema_file is not None:
            schema = json.loads(target.errors.schema_file.read_text(encoding="utf-8"))
    return Limits(
        recovery=target.database.recovery,
        fail_fast=target.database.fail_fast,
        schema=schema,
        policy=dict(config.policy),
        accepted=accepted.known(config.path),
        seconds={gate.id: gate.seconds for gate in gates.values() if gate.seconds},
        rates={gate.id: gate.limit for gate in gates.values() if gate.rule in {"rate", "budget", "worst_class"}},
        retention=gates["sec.logs"].limit,
        rerun=f"chaos-gate run -c {given}" if given else "chaos-gate run",
        seed=seed,
    )


@dataclass
class Session:
    """One worker's session. The rig is started by the first case that needs it and reused by all."""

    config: Config
    limits: Limits
    run_id: str
    run_dir: Path
    worker: str
    seed: int
    segment: Segment
    runner: int
    backend: str = "local"

    @classmethod
    def of(cls, pytest_config: pytest.Config) -> Session:
        """From pytest's options and what the runner put into the environment."""
        given = pytest_config.getoption("--chaos-config")
        seed = int(
            os.environ.get("CHAOS_SEED") or pytest_config.getoption("--chaos-seed") or random.SystemRandom().randrange(1, 10**6)
        )
        config = load(config_path(given))
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        run_id = os.environ["CHAOS_RUN"]
        run_dir = Path(os.environ["CHAOS_RUN_DIR"])
        return cls(
            config=config,
            limits=limits_for(config, load_gates(config.gates), seed=seed, given=given),
            run_id=run_id,
            run_dir=run_dir,
            worker=worker,
            seed=seed,
            segment=Segment(Path(os.environ["CHAOS_EVIDENCE"]) / "segments" / f"{worker}.sqlite", secrets=own_secrets(config)),
            runner=int(os.environ.get("CHAOS_RUNNER", "0")),
            backend=os.environ.get("CHAOS_BACKEND", "local"),
        )

    @cached_property
    def rig(self) -> Rig:
        """Brought up on first use; what was started is taken down again when that fails."""
        from chaos.rig import Rig  # noqa: PLC0415

        rig = Rig(
            config=self.config,
            run_id=self.run_id,
            run_dir=self.run_dir,
            worker=self.worker,
            seed=self.seed,
            runner=self.runner,
            backend=self.backend,
            evidence=self.segment.path.parents[1],
        )
        try:
            rig.start()
        except BaseException as error:
            cause = _dead_part(rig)
            rig.close()
            if cause is not None and isinstance(error, Exception):
                raise cause from error
            raise
        return rig

    def prove(self, case: Case) -> Result:
        """Run one case. Environment errors are returned; anything else that is raised is a defect of ours: INCONCLUSIVE."""
        if absent := case.absent(self.config):
            return _not_applicable(case, absent)
        try:
            rig = self.rig
            if hidden := rig.hides(case.id):
                return _not_applicable(case, hidden)
            with self._turn(alone=case.family == "steady"):
                history = experiment.run(rig, case, self._composed())
            rig.check_parts()
            findings = judge(history, self.limits)
            if case.family == "schedule":
                findings = self._shrunk(case, history, findings)
            self.segment.append(history, findings)
        except (UsageError, EvidenceUnwritable) as error:
            return Result(error=error)
        except ChaosError as error:
            return Result(error=self._cause(error))
        except Exception as error:  # noqa: BLE001  (a check that crashed is unknown, never a pass)
            cause = self._cause(None)
            return Result(error=cause) if cause else Result((self._crashed(case, error),))
        return Result(findings, parts=rig.versions)

    def _shrunk(self, case: Case, history: History, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """The findings of a schedule that failed, with the smallest one that still fails at the same gates, and its command."""
        gates = {one.gate for one in findings if one.outcome is Outcome.FAIL}
        if not gates:
            return findings

        def fails(smaller: Schedule) -> bool:
            again = cases.scheduled(cases.WORD + schedule.spelt(smaller))
            seen = judge(experiment.run(self.rig, again), self.limits)
            return any(one.outcome is Outcome.FAIL and one.gate in gates for one in seen)

        whole = schedule.read(history.facts["schedule"])
        smallest = schedule.spelt(shrink(whole, fails))
        told = f"the smallest schedule that still fails: {smallest}" if smallest != case.what else "nothing smaller failed"
        rerun = self.limits.again(cases.WORD + smallest)
        failed = Outcome.FAIL
        return tuple(
            replace(one, detail=f"{one.detail}; {told}", rerun=rerun) if one.outcome is failed else one for one in findings
        )

    @contextlib.contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        """Latency is measured while no other worker breaks anything: a machine that is busy with us says nothing of the target."""
        with (self.run_dir / ".turn").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def _composed(self) -> dict[str, experiment.Runner]:
        """The runners of families that are composed above experiments; each carries out commands of ours as operators would."""
        runners = {"rollback": drill.run, "rotation": rotation.run, "expiry": expiry.run}
        return {family: partial(run, command=COMMAND) for family, run in runners.items()}

    def _cause(self, error: ChaosError | None) -> ChaosError | None:
        """A part that died explains whatever went wrong after it better than the symptom does."""
        rig = self.__dict__.get("rig")
        return (_dead_part(rig) if rig is not None else None) or error

    def _crashed(self, case: Case, error: Exception) -> Finding:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return Finding(
            check=case.id,
            gate=case.gate,
            outcome=Outcome.INCONCLUSIVE,
            detail=f"the check itself crashed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
            experiment=case.id,
            expected="a check that ends",
            examples=tuple(traceback.format_exc().splitlines()[-6:]),
            rerun=self.limits.again(case.id),
        )

    def close(self) -> None:
        """Take the rig down."""
        rig = self.__dict__.get("rig")
        if rig is not None:
            rig.close()


def _not_applicable(case: Case, why: str) -> Result:
    found = Finding(check=case.id, gate=case.gate, outcome=Outcome.NOT_APPLICABLE, detail=why, experiment=case.id)
    return Result((found,), skipped=f"not applicable: {why}")


def _dead_part(rig: Rig) -> ChaosError | None:
    """The error of a part of the environment that died by itself."""
    try:
        if hasattr(rig, "environment"):
            rig.environment.check()
    except ChaosError as error:
        return error
    return None


def scratch() -> Path:
    """Where runs keep what is gone afterwards: a RAM disk that has room (ten times faster), else the temporary directory."""
    memory = Path("/dev/shm")  # noqa: S108  (a file system, not a file name to guess)
    try:
        room = os.statvfs(memory)
        if os.access(memory, os.W_OK) and room.f_bavail * room.f_frsize >= 1 << 30:
            return memory
    except OSError:
        pass
    return Path(tempfile.gettempdir())
