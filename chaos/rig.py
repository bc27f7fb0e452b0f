"""Everything that one worker runs, put together: environment, path to the database, target, traffic.

    target -> Toxiproxy -> wire -> PostgreSQL

The path has a twin ('start'), so that a second instance of the target can meet an impostor at its start while the first one goes
on. Parts that may not import each other (environments, targets, faults, traffic) meet here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from chaos.certs import Identity, Zoo
from chaos.checks.recovery import describe
from chaos.config import candidate_of
from chaos.environments.abort import Watch
from chaos.environments.remote import RemoteEnvironment, refusal
from chaos.errors import Aborted, PartFailed, TargetFailed
from chaos.faults.network import Prober, SessionProber
from chaos.faults.probe import PROBE_NAME
from chaos.faults.raw_probe import RawProber
from chaos.faults.toxiproxy import ProxyControl
from chaos.faults.wire import Wire
from chaos.ledger import NAME, Ledger
from chaos.model import Kind, Operation, now
from chaos.paths import PATHS, DatabasePath, SharedPath
from chaos.processes import Reaper
from chaos.targets import CommandTarget, UrlTarget
from chaos.traffic.driver import Driver
from chaos.traffic.requests import Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.config import Config, Target
    from chaos.environments import Environment

AFTERMATH = 10.0  # s after the time in which a target has to have recovered: it may still die of what was broken
CONVINCED = 3.0  # s after which a new target's 404 is no question of time any more
WRONG_REQUEST = {400, 401, 403, 404, 405, 406, 410, 415, 422}
STEADY_PATIENCE = 15.0  # s in which a target that is not under any fault has to be healthy again


@dataclass
class Rig:
    """One worker's whole installation. `start()` brings it up or raises what is wrong; `close()` takes everything down."""

    config: Config
    run_id: str
    run_dir: Path
    worker: str
    seed: int
    runner: int = 0
    backend: str = "local"
    evidence: Path | None = None
    ledger: Ledger = field(init=False)
    reaper: Reaper = field(init=False)
    environment: Environment = field(init=False)
    control: ProxyControl = field(init=False)
    path: DatabasePath = field(init=False)
    target: CommandTarget | UrlTarget = field(init=False)
    driver: Driver = field(init=False)
    abort: Watch | None = None  # the conditions that stop everything, where there are any
    behind: str | None = None  # why the target is not behind a proxy that is not ours; '' when it is; None: not looked at yet
    broken: list[tuple[float, float]] = field(default_factory=list)  # when anything was: (injected, healed), in seconds
    posed: list[tuple[float, float]] = field(default_factory=list)  # when the wire was somebody else: over as soon as it is
    shelf: dict[str, object] = field(default_factory=dict)  # what experiments keep from each other's work, by their own names
    exit_told: bool = False  # the target's end is in a history already: it may be started again
    status: int | None = None  # of the last answer that `steady` had
    controls: dict[tuple[str, str], bool] = field(
        default_factory=dict
    )  # (host, certificate) -> an instance on the twin path took it
    once: dict[str, int] = field(default_factory=dict)  # how often one write's {unique} is in its read_back, by sample

    # -- life -----------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up, the target last, and see it healthy."""
        # The wire shares this interpreter: a thread that computes must not hold up each of its relayed packets for 5 ms.
        sys.setswitchinterval(0.0005)
        self.reaper = Reaper(self.run_id, runner=self.runner or None)
        self.ledger = Ledger((self.evidence or self.run_dir) / NAME, of=f"{self.run_id}.{self.worker}")
        self.reaper.heals(self.ledger.path, self.ledger.of)
        self.driver = Driver(self.config.target, seed=self.seed)
        self.driver.start()
        if self.config.environment.abort is not None:
            self.abort = Watch(self.config.environment.abort, self.driver.recorder.since)
            self.abort.start()
        if self.config.target.url is None:
            self.environment = self._environment()
            self.environment.start()
            self.control = ProxyControl(self.environment.toxiproxy_url, mark=self.run_id)
            self.path = self._path("database")
            target = self._instance(self.path, "target")
            target.prepare_database()
            self.target = target
            target.start()
        else:
            self.target = UrlTarget(self.config.target)
            self._attach()
        self._ready()
        sick = self.steady(convinced=CONVINCED)
        self.check_alive()
        if sick:
            raise TargetFailed(
                f"the target is not healthy with nothing broken: {sick}",
                remedy="mend the request (or its `expect`) in chaos.toml, or the target; nothing can be proven about a sick one",
                where=self.config.target.name,
                tail=self.target.log_tail(12),
            )

    def close(self) -> None:
        """Take everything down; safe at any stage of `start()`. What fails in between does not spare the rest."""
        with contextlib.ExitStack() as ending:  # in reverse
            if hasattr(self, "ledger"):
                ending.callback(self.ledger.close)
            if hasattr(self, "reaper"):
                ending.callback(self.reaper.close)
            if hasattr(self, "environment"):
                ending.callback(self.environment.stop)
            for path in (getattr(self, "path", None), self.__dict__.get("start_path")):
                if path is not None:
                    ending.callback(path.stop)
            if self.abort is not None:
                ending.callback(self.abort.stop)
            if hasattr(self, "driver"):
                ending.callback(self.driver.stop)
                ending.callback(self._drop_requests)

    def _drop_requests(self) -> None:
        """Requests that an interruption left under way end here: Python complains of a task that nobody ends, on people's screens."""

        async def drop() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        with contextlib.suppress(TimeoutError, RuntimeError):  # the loop was never started, or has ended
            self.driver.end_clients()
            self.driver.call(drop(), 3.0)

    @property
    def versions(self) -> dict[str, str]:
        """What the environment is made of: part -> version."""
        return dict(self.environment.versions) if self.injects else {}

    @property
    def injects(self) -> bool:
        """Whether there is anything that faults can be injected into."""
        return hasattr(self, "environment")

    @property
    def ours(self) -> bool:
        """Whether target and database were started here, and can be started again."""
        return self.config.target.url is None

    # -- parts ----------------------------------------------------------------------------------------------------------------

    def _environment(self) -> Environment:
        """Of the backend that was asked for, not started."""
        if self.backend == "docker":
            from chaos.environments.docker import DockerEnvironment  # noqa: PLC0415  (only the one that is used is loaded)

            return DockerEnvironment(
                reaper=self.reaper,
                run_dir=self.run_dir,
                run_id=self.run_id,
                settings=self.config.environment,
                worker=self.worker,
                target=self.config.target.image,
            )
        from chaos.environments.local import LocalEnvironment  # noqa: PLC0415  (the same)

        return LocalEnvironment(reaper=self.reaper, run_dir=self.run_dir, settings=self.config.environment, worker=self.worker)

    def _attach(self) -> None:
        """To the Toxiproxy in front of a database that is not ours, where one is known and allowed."""
        if refusal(self.config):
            return
        environment = RemoteEnvironment(self.config.environment)
        environment.start()
        self.environment = environment
        self.control = ProxyControl(environment.toxiproxy_url, mark=self.run_id, ours=False)
        self.path = SharedPath(environment.proxy, environment.proxy_address, self.control)
        seen = self.prober.connect()
        if seen.how not in {"answer", "no TLS"}:
            raise PartFailed(
                f"proxy {environment.proxy!r} cannot be reached from here at {':'.join(map(str, environment.proxy_address))} ({seen}): "
                "nothing would show that a fault took effect",
                remedy='say where it can be: [environment] probe = "host:port"',
                where=environment.toxiproxy_url,
            )

    @property
    def prober(self) -> Prober:
        """Makes connections of our own on the target's path: with its own account where that is ours, else without one."""
        if isinstance(self.path, SharedPath):
            return RawProber(self.path.address)
        return SessionProber(self.conninfo, self.path.port)

    def _path(self, name: str) -> DatabasePath:
        reach = self.environment.reach
        wire = Wire(("127.0.0.1", self.environment.postgres.port), reach.wire)
        listen = reach.listen[PATHS.index(name)] if reach.listen else "127.0.0.1:0"
        return DatabasePath(name, wire, self.control.create(name, wire.start(), host=reach.upstream, listen=listen))

    def hides(self, case: str) -> str:
        """Why this environment cannot show a case; '' when it can."""
        known = self.environment.reach.hides if self.injects else {}
        return next((why for name, why in known.items() if case == name or case.startswith(f"{name}.")), "")

    @cached_property
    def start_path(self) -> DatabasePath:
        """The twin path, for instances that are only started."""
        return self._path("start")

    def _instance(
        self, path: DatabasePath, name: str, *, values: Mapping[str, str] | None = None, release: Target | None = None
    ) -> CommandTarget:
        postgres = self.environment.postgres
        target = release or self.config.target
        placeholders = {
            "database_url": postgres.database_url(path.port),
            "pg_host": postgres.host,
            "pg_port": str(path.port),
            "pg_user": postgres.app_user,
            "pg_password": postgres.app_password,
            "pg_database": postgres.app_database,
            "ca_file": str(postgres.ca_file),
            # What `setup` put there (a binary, say) is there for every instance; their logs are kept apart.
            "work_dir": str(self.run_dir / self.worker / "target"),
        }
        work = self.run_dir / self.worker / name
        work.mkdir(parents=True, exist_ok=True)
        runner = self.environment.runner(target.image) if target.image else None
        made = CommandTarget(
            target,
            placeholders={**placeholders, **(values or {})},
            reaper=runner or self.reaper,
            work_dir=work,
            extra_env=self._bundled_env(),
        )
        if runner is not None:
            runner.publish(int(port) for name, port in made.values.items() if name.partition(":")[0] == "port")
        return made

    def _bundled_env(self) -> dict[str, str]:
        """The bundled service runs on our interpreter, and finds our package; anyone else's finds their own."""
        if Path(__file__).parent not in Path(self.config.path).resolve().parents:
            return {}
        here = str(Path(sys.executable).parent)
        root = str(Path(__file__).parent.parent)
        return {
            "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        }

    def second_instance(
        self,
        name: str,
        *,
        values: Mapping[str, str] | None = None,
        path: DatabasePath | None = None,
        env: Mapping[str, str] | None = None,
        release: Target | None = None,
    ) -> CommandTarget:
        """Another instance of the target, not started, on the twin path.

        `values` replace placeholders (a wrong CA file), `env` goes on top of the release's own (a flag).
        """
        if env:
            own = release or self.config.target
            release = own.model_copy(update={"env": {**own.env, **env}})
        return self._instance(path or self.start_path, name, values=values, release=release)

    def candidate(self, path: DatabasePath | None = None) -> CommandTarget:
        """[target.candidate], not started, on the target's own path (or another) and its database: side by side.

        Its `setup` is run where it differs from the target's own: a release that brings a migration. Raises UsageError without one.
        """
        release = candidate_of(self.config.target)
        made = self._instance(path or self.path, "candidate", release=release)
        if release.setup != self.config.target.setup:
            made.prepare_database()
        return made

    def trusting(self, ca_file: Path, path: DatabasePath) -> dict[str, str]:
        """The placeholders of an instance that trusts another CA file."""
        postgres = self.environment.postgres
        url = postgres.database_url(path.port)
        here, there = (quote(str(one), safe="/") for one in (postgres.ca_file, ca_file))
        return {"ca_file": str(ca_file), "database_url": url.replace(here, there)}

    @cached_property
    def zoo(self) -> Zoo:
        """The certificates that can be presented."""
        return Zoo.load()

    def identity(self, name: str) -> Identity:
        """A certificate of the zoo; 'valid' is the very one that PostgreSQL serves (channel binding holds through the wire)."""
        return self.environment.authority.issue(name)

    @property
    def conninfo(self) -> str:
        """Verify-full, as the target's own role, through the proxy: what probes connect with."""
        return self.conninfo_at(self.path.port)

    def conninfo_at(self, port: int) -> str:
        """The same at another port. The probe's name is in the server's certificate beside localhost."""
        postgres = self.environment.postgres
        return (
            f"host={PROBE_NAME} hostaddr=127.0.0.1 port={port} user={postgres.app_user} password={postgres.app_password} "
            f"dbname={postgres.app_database} sslmode=verify-full sslrootcert={postgres.ca_file} gssencmode=disable"
        )

    # -- the target's health ----------------------------------------------------------------------------------------------------

    @cached_property
    def live(self) -> Sample | None:
        """The liveness request, when the target has one on its own address."""
        from chaos.config import Request  # noqa: PLC0415

        live = self.config.target.live
        if not live or "://" in live:
            return None
        return Sample(kind=Kind.LIVE, key="live", request=Request(method="GET", path=live))

    def _ready(self) -> None:
        self.target.wait_ready(self.config.target.startup_timeout)
        self.driver.attach(self.target.base_url, self.target.values)

    def restart(self) -> None:
        """A fresh target: after a check that it did not survive, or did not recover from."""
        self.target.stop()
        self.exit_told = False
        self.target.start()
        self._ready()

    def renew(self) -> None:
        """A fresh target on fresh ports, in place of one that was stopped: one that sets no SO_REUSEADDR cannot have its old ones."""
        self.target.stop()
        self.exit_told = False
        self.target = self._instance(self.path, "target")
        self.target.start()
        self._ready()

    def steady(self, *, convinced: float = math.inf) -> str:
        """'' when every configured request is answered as it should be, else what was wrong last. Tries for a while.

        An answer that says that the request itself is wrong is believed after `convinced` seconds: waiting does not mend it.
        """
        begun = time.monotonic()
        wrong = ""
        while time.monotonic() < begun + max(STEADY_PATIENCE, self.config.target.database.recovery):
            wrong = self._round()
            if not wrong or (self.status in WRONG_REQUEST and time.monotonic() > begun + convinced):
                return wrong
            if self.target.exited():
                return f"the target ended ({self.target.exited()})"
            time.sleep(0.2)
        return wrong

    def _round(self) -> str:
        """Each request once, and a write looked up again."""
        for kind in (Kind.READ, Kind.WRITE):
            for sample in self.driver.samples[kind]:
                done = self.driver.once(sample)
                self.status = done.status
                if not done.ok:
                    return describe(done) + f", expected {done.expected}" + _excerpt(done)
                if kind is Kind.WRITE and sample.key not in self.once:
                    shown = self.driver.read_back([done]).get(done.unique)
                    if shown is not None and shown.occurrences < 1:
                        return f"{sample.key} was acknowledged, but its read_back does not show {{unique}}: {describe(shown)}"
                    if shown is not None:
                        self.once[sample.key] = 1 if shown.row == "list" else shown.occurrences
        for sample in self.driver.samples[Kind.INVALID]:
            done = self.driver.once(sample)
            if done.status is None or done.status < 400:
                return f"{describe(done)}, where a 4xx was expected"
        return ""

    def healthy_or_restarted(self) -> str:
        """Before each check: '' when steady, at the worst after one restart of the target; else why not."""
        self.check_parts()
        if not self.ours:
            return self.steady()
        if self.target.exited() and self.exit_told:
            self.restart()
        gone = self._gone()
        sick = "" if gone else self.steady()
        gone = gone or self._gone()
        if gone or sick:
            self.restart()
            sick = self.steady()
        return gone or sick

    def _gone(self) -> str:
        """'' when the target runs; why it may have ended when a fault was there a moment ago. Else TargetFailed: nothing broke it."""
        how = self.target.exited()
        if not how:
            return ""
        healed = max((end for _, end in (*self.broken[-1:], *self.posed[-1:])), default=-math.inf)
        if self.target.killed_from_outside() or now() - healed > self.config.target.database.recovery + AFTERMATH:
            self.check_alive()
        return f"the target ended ({how}) after the last fault had gone"

    def check_alive(self) -> None:
        """TargetFailed when the target has ended, and no fault of ours can be why."""
        how = self.target.exited()
        if not how:
            return
        if self.target.killed_from_outside():
            what, remedy = f"somebody else ended the target ({how})", "see who did: chaos-gate did not, nor did the target itself"
        else:
            what, remedy = f"the target ended ({how}) with nothing broken", "mend what its last log lines say"
        raise TargetFailed(what, remedy=remedy, where=self.config.target.name, tail=self.target.log_tail(12))

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Within, an abort condition ends whatever is waited for at once, by Aborted."""
        return self.abort.interrupting(self._stop) if self.abort is not None else contextlib.nullcontext()

    def _stop(self) -> None:
        raise Aborted(
            f"stopped: {self.abort.reason if self.abort else ''}",
            remedy="see what that is about; then run again, or mend the condition",
            where="[environment] abort",
        )

    def check_parts(self) -> None:
        """PartFailed or TargetFailed when somebody else ended a part of the environment, or the target; Aborted by a condition."""
        if self.abort is not None and self.abort.reason:
            self._stop()
        if self.injects:
            self.environment.check()
        if self.target.killed_from_outside():
            self.check_alive()


def _excerpt(done: Operation) -> str:
    line = " ".join(done.body.split())[:160]
    return f": {line}" if line else ""
