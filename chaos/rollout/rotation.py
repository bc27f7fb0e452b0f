"""The certificate rotation SOP, carried out under load: its own commands (`chaos.rollout.sop`), two instances of the target.

    new leaf, same authority     installed, reloaded; a drained instance must come back to it
    bundle with both authorities both instances are restarted, one after the other
    new leaf, new authority      installed, reloaded; a drained instance must come back to it
    old authority withdrawn      an instance is restarted; an impostor with a certificate of the old authority must be refused

Requests go to one instance; what is done to an instance is done to the other one, which is drained first: that is what a load
balancer does in a rolling restart, and a request that fails then is the target's failure. A service may read its bundle once, at
its start: that is why the SOP restarts it, and nothing is held against it before. In between the server is bungled as servers are
(rows R1, R5, and R6 when the load has ended), and the SOP's own `verify` has to see it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psycopg

from chaos.certs.authority import write
from chaos.errors import ChaosError
from chaos.experiment.impostors import SETTLE
from chaos.faults.database import OURS, admin
from chaos.faults.wire import Impostor, Relay
from chaos.model import Connection, History, Kind, Operation, Rung, now
from chaos.rollout.sop import STEPS
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import Session, prepare, send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.cases import Case
    from chaos.certs import Identity
    from chaos.environments import FileControl
    from chaos.experiment import Recording
    from chaos.paths import DatabasePath
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

HOLD = 0.7  # s of load after each step, at least
CONTROL = 1.0  # s of load on each instance before anything is changed
COMMAND = 60.0  # s for one step's commands
WITHDRAWN = "withdrawn-ca"
REFUSED_TO_RELOAD = "SSL configuration was not reloaded"


class _Stopped(Exception):  # noqa: N818  (a way out, no error)
    """The playbook cannot go on; the facts say why."""


@dataclass(slots=True)
class Instance:
    """One instance of the target, and the session that requests to it share."""

    name: str
    path: DatabasePath
    target: CommandTarget
    session: Session | None = None


@dataclass
class Playbook:
    """What is carried out, and what of it is recorded: facts, and one entry a command in `acts`."""

    rig: Rig
    recording: Recording
    command: Sequence[str]
    room: Path
    acts: list[dict[str, object]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.postgres = cast("FileControl", self.rig.environment.postgres)  # `run` has seen that it is one
        self.facts = self.recording.facts
        authority = self.rig.environment.authority
        self.bundle = self.room / "ca.pem"
        write(self.bundle, authority.ca_file.read_bytes())
        self.first = self._instance("one", self.rig.path)
        self.second = self._instance("two", self.rig.start_path)
        known = self.postgres.administered()
        tools = self.room / "bin"
        tools.mkdir(exist_ok=True)
        script = "#!/bin/sh\nexec " + " ".join(f"'{part}'" for part in self.command) + ' "$@"\n'
        write(tools / "chaos-gate", script.encode(), mode=0o755)
        self.env = {
            **os.environ,
            **known,
            "PATH": os.pathsep.join([str(tools), known["BIN"], os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])),
            "CA_FILE": str(self.bundle),
            "OLD_CA": str(authority.ca_file),
            "NEW_CA": str(authority.bundle("next-ca")),
        }

    def _instance(self, name: str, path: DatabasePath) -> Instance:
        return Instance(name, path, self._target(name, path))

    def _target(self, name: str, path: DatabasePath) -> CommandTarget:
        """On ports of its own, as a roll-out would have it."""
        return self.rig.second_instance(f"rotation-{name}", values=self.rig.trusting(self.bundle, path), path=path)

    # -- the SOP's commands ---------------------------------------------------------------------------------------------------

    def do(self, step: str, *, must: bool = True) -> bool:
        """Carry out a step's commands; whether they ended with 0. When they `must` and did not, the playbook ends here."""
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", STEPS[step].commands],
            env=self.env,
            cwd=self.room,
            capture_output=True,
            text=True,
            timeout=COMMAND,
            check=False,
        )
        said = (done.stdout + done.stderr).strip()[-300:]
        self.acts.append({"step": step, "at": now(), "exit": done.returncode, "said": said})
        if must and done.returncode:
            self.stop(f"the SOP's step {step!r} ended with status {done.returncode}: {said}")
        return done.returncode == 0

    def stop(self, why: str) -> None:
        """End the playbook: what was seen so far stands."""
        self.facts["stopped"] = why
        raise _Stopped

    def alarm(self) -> bool:
        """Whether the SOP's `verify` sees that something is wrong."""
        self.env["WAIT"] = "0.3"
        try:
            return not self.do("verify", must=False)
        finally:
            del self.env["WAIT"]

    def install(self, identity: Identity) -> None:
        """The SOP's way of putting an identity in place."""
        self.env |= {"NEW_CERT": str(identity.chain_file), "NEW_KEY": str(identity.key_file)}
        self.do("install")

    def rotate(self, identity: Identity) -> None:
        """keep, install, reload, verify."""
        self.do("keep")
        self.install(identity)
        self.do("reload")
        self.do("verify")

    # -- the target's instances -----------------------------------------------------------------------------------------------

    def bring_up(self, one: Instance, fact: str) -> None:
        """(Re)start a drained instance and see it answer; '' in the fact, or why it does not: then the playbook ends."""
        self.facts[fact] = ""
        try:
            one.target.stop()
            one.target = self._target(one.name, one.path)
            one.target.start()
            one.target.wait_ready(self.rig.config.target.startup_timeout)
            session = Session(self.rig.config.target, one.target.base_url, dict(one.target.values))
            driver = self.rig.driver
            driver.call(prepare(session, self.rig.config.target.prepare, deadline=driver.deadline))
            one.session = session
        except ChaosError as error:
            self.facts[fact] = error.render()[:600]
            raise _Stopped from error
        if not wait_for(lambda: self.asked(one).ok, self.patience, every=0.2):
            self.facts[fact] = f"it does not answer {self.patience:g} s after it said that it was ready"
            raise _Stopped

    @property
    def patience(self) -> float:
        """Seconds in which an instance has to be back: as after any fault, with some slack."""
        return self.rig.config.target.database.recovery + 1.5

    def asked(self, one: Instance) -> Operation:
        """One read of one instance, set aside: it is drained, and its answers are nobody's."""
        driver = self.rig.driver
        assert one.session is not None
        done = driver.call(send(one.session, driver.samples[Kind.READ][0], deadline=driver.deadline, unique="drained"))
        return driver.recorder.aside(done)

    def serve_by(self, one: Instance) -> None:
        """Move the load there, and wait until no request is under way elsewhere."""
        driver = self.rig.driver
        assert one.session is not None
        driver.session = one.session
        moved = now()

        def drained() -> bool:
            after = {done.client for done in driver.recorder.since(moved) if done.started >= moved}
            return len(after) >= driver.clients

        wait_for(drained, driver.deadline + 2.0)
        time.sleep(HOLD)

    def reconnects(self, one: Instance, fact: str) -> None:
        """Cut a drained instance's connections: the seconds until it serves over a new one, or 'no: ...', in the fact."""
        cut = now()
        one.path.wire.sever()
        last = ""
        while now() - cut < self.patience:
            done = self.asked(one)
            fresh = [seen for seen in one.path.connections(cut) if seen.established]
            if done.ok and fresh:
                self.facts[fact] = f"{now() - cut:.2f}"
                return
            last = f"answered {done.status}" if done.status else done.error
            if one.target.exited():
                last = f"it ended ({one.target.exited()})"
                break
            time.sleep(0.1)
        met = [seen for seen in one.path.connections(cut) if seen.reached >= Rung.CLIENT_HELLO]
        alerts = ", ".join(sorted({seen.alert for seen in met if seen.alert}))
        self.facts[fact] = f"no: {last}; {len(met)} handshakes" + (f", alert {alerts}" if alerts else "")


def run(rig: Rig, case: Case, recording: Recording, command: Sequence[str]) -> History:
    """The history of the whole playbook; `chaos.checks.rotation` says what it shows."""
    del case
    if not hasattr(rig.environment.postgres, "administered"):
        recording.facts["unable"] = "the database server's files are not on this machine"
        return recording.history()
    room = rig.run_dir / rig.worker / "rotation"
    room.mkdir(parents=True, exist_ok=True)
    recording.facts["setup.ca"] = str(any("{ca_file}" in part for one in rig.config.target.setup for part in one))
    began = now()
    playbook = Playbook(rig, recording, command, room)
    good = rig.identity("valid")
    rig.target.stop()
    try:
        with suppress(_Stopped):
            _carry_out(playbook)
        _expired(playbook)
        connections = (*rig.path.connections(began), *rig.start_path.connections(began))
        recording.facts["acts"] = json.dumps(playbook.acts)
    finally:
        rig.driver.end_clients()
        for one in (playbook.first, playbook.second):
            one.path.wire.behave(Relay())
            one.target.stop()
        rig.environment.postgres.use_certificate(good.chain_file, good.key_file)
        rig.broken.append((began, now()))
    history = replace(recording.history(), connections=connections)
    rig.renew()
    return history


def _carry_out(book: Playbook) -> None:
    """From the control to the end of the load."""
    one, two, facts = book.first, book.second, book.facts
    book.bring_up(one, "control")
    book.bring_up(two, "control")
    assert one.session is not None
    book.rig.driver.session = one.session
    facts["load.from"] = f"{now():.3f}"
    book.rig.driver.begin_clients(None)
    try:
        time.sleep(CONTROL)
        book.serve_by(two)
        book.serve_by(one)
        facts["control.to"] = f"{now():.3f}"
        book.do("look")
        _new_leaf(book)
        _bungled(book)
        _new_authority(book)
        _withdrawn(book)
    finally:
        facts["load.to"] = f"{now():.3f}"
        book.rig.driver.end_clients()


def _new_leaf(book: Playbook) -> None:
    """Same authority, new key: R1, R4, and a drained instance that must come back to it. No restart: there is no reason for one."""
    rig, facts = book.rig, book.facts
    new, before = rig.identity("rotated-leaf"), book.postgres.served()[0]
    book.do("keep")
    book.install(new)
    unread = book.alarm()
    facts["R1"] = _row(seen=book.postgres.served()[0] == before, alarm=unread)
    book.do("reload")
    book.do("verify")
    reloaded = now()
    facts["served.leaf"] = str(book.postgres.served()[0] == new.fingerprint)
    time.sleep(HOLD)
    facts["R4"] = json.dumps([round(age, 2) for age in _ages(book, reloaded)])
    facts["client"] = str(_with_client_certificate(book))
    book.reconnects(book.second, "leaf.reconnect")
    if facts["leaf.reconnect"].startswith("no"):
        raise _Stopped
    book.serve_by(book.second)


def _row(*, seen: bool, alarm: bool) -> str:
    """What a bungled server did: `seen` as the catalogue has it, and whether the SOP's `verify` raised the alarm."""
    return json.dumps({"seen": seen, "alarm": alarm})


def _ages(book: Playbook, reloaded: float) -> list[float]:
    """How old the sessions are that were opened before the reload and are still open, in seconds."""
    every: list[Connection] = [*book.rig.path.connections(0.0), *book.rig.start_path.connections(0.0)]
    return [now() - one.opened for one in every if one.established and not one.closed and one.opened < reloaded]


def _with_client_certificate(book: Playbook) -> int:
    with admin(book.postgres) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            "WHERE s.client_dn IS NOT NULL AND a.usename = %s AND a.application_name <> ALL (%s)",
            (book.postgres.app_user, list(OURS)),
        ).fetchone()
    return int(str(row[0])) if row else 0


def _bungled(book: Playbook) -> None:
    """R5, three ways: each must leave the old certificate served, and `verify` must raise the alarm; then the SOP's way back."""
    key_file = Path(book.env["KEY_FILE"])
    book.do("keep")
    for how in ("key-mismatch", "key-readable", "key-missing"):
        before, offset = book.postgres.served()[0], book.postgres.log_offset()
        book.install(book.rig.identity("key-mismatch" if how == "key-mismatch" else "key-readable"))
        if how == "key-readable":
            key_file.chmod(0o644)
        if how == "key-missing":
            key_file.unlink()
        book.do("reload")
        said = wait_for(lambda since=offset: any(REFUSED_TO_RELOAD in line for line in book.postgres.log_since(since)), 5.0)  # type: ignore[misc]
        unread = book.alarm()
        facts = {"seen": said and book.postgres.served()[0] == before, "alarm": unread}
        book.facts[f"R5.{how}"] = json.dumps(facts)
        book.do("back-out")
        book.do("reload")
        book.do("verify")


def _new_authority(book: Playbook) -> None:
    """Both roots to the clients, restarts, then a leaf of the new one: R2, R3, and a drained instance that must come back."""
    one, two = book.first, book.second
    book.do("bundle-both")
    book.bring_up(one, "overlap.start")
    book.serve_by(one)
    book.bring_up(two, "overlap.start")
    book.serve_by(two)
    book.rotate(book.rig.identity("rotated-ca"))
    book.facts["R2"] = _probe(book, Path(book.env["OLD_CA"]))
    book.facts["R3"] = _probe(book, book.bundle)
    book.reconnects(one, "overlap.reconnect")
    if book.facts["overlap.reconnect"].startswith("no"):
        raise _Stopped
    book.serve_by(one)


def _probe(book: Playbook, ca_file: Path) -> str:
    """'connects', or the error of a verify-full session of our own that trusts `ca_file`."""
    postgres = book.postgres
    try:
        with psycopg.connect(
            f"host={postgres.host} hostaddr=127.0.0.1 port={postgres.port} user={postgres.app_user} "
            f"password={postgres.app_password} dbname={postgres.app_database} sslmode=verify-full gssencmode=disable",
            sslrootcert=str(ca_file),
            connect_timeout=5,
        ) as session:
            session.execute("SELECT 1")
    except psycopg.Error as error:
        return " ".join(str(error).split())[-200:]
    return "connects"


def _withdrawn(book: Playbook) -> None:
    """The old root leaves the bundle; an instance that was restarted since must refuse who comes with its certificate."""
    two = book.second
    book.do("bundle-new")
    book.bring_up(two, "withdrawn.start")
    impostor = Impostor(book.rig.identity("valid"), then="ask", label=WITHDRAWN)
    since = now()
    two.path.wire.behave(impostor)
    two.path.wire.sever()
    try:
        wait_for(lambda: bool(two.target.exited()) or _met(book, two, since), book.patience, every=0.1)
    finally:
        two.path.wire.behave(Relay())
    if two.target.exited():
        book.bring_up(two, "withdrawn.start")
    book.reconnects(two, "withdrawn.reconnect")
    if not book.facts["withdrawn.reconnect"].startswith("no"):
        book.serve_by(two)


def _met(book: Playbook, one: Instance, since: float) -> bool:
    """Ask it for something, and see whether an attempt with the impostor is over, with the time for a second one."""
    book.asked(one)
    over = [seen.closed for seen in one.path.connections(since) if seen.behaviour == f"impostor:{WITHDRAWN}" and seen.closed]
    return bool(over) and now() - min(over) >= SETTLE


def _expired(book: Playbook) -> None:
    """R6, with nobody served: an expired certificate is loaded without a word, and `verify` raises the alarm."""
    for one in (book.first, book.second):
        one.target.stop()
    expired, offset = book.rig.identity("expired"), book.postgres.log_offset()
    with suppress(_Stopped):
        book.install(expired)
        book.do("reload")
        wait_for(lambda: book.postgres.served(verify=False)[0] == expired.fingerprint, 5.0, every=0.05)
        silent = not any("expired" in line or REFUSED_TO_RELOAD in line for line in book.postgres.log_since(offset))
        served = book.postgres.served(verify=False)[0] == expired.fingerprint
        book.facts["R6"] = _row(seen=silent and served, alarm=book.alarm())
