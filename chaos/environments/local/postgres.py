"""A PostgreSQL server of our own: TLS only, SCRAM only, on a copy of the template."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from chaos import watchdog
from chaos.environments.local.room import Room
from chaos.environments.local.template import ADMIN, APP
from chaos.environments.tls_server import SETTINGS, TlsServer
from chaos.errors import PartFailed
from chaos.processes import free_port, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.environments.local.installation import Installation
    from chaos.environments.local.template import Credentials
    from chaos.processes import Process, Reaper

_SETTINGS = f"listen_addresses = '127.0.0.1'\n{SETTINGS}"


class Postgres(TlsServer):
    """See `chaos.environments.Database`, `ServerControl` and `TlsControl`.

    The administrator's way in is a socket in a directory of its own, which no fault on the network and no certificate closes; the
    application may not use it. `process` is the postmaster, for signals (SIGSTOP, SIGKILL).
    """

    def __init__(
        self,
        *,
        installation: Installation,
        reaper: Reaper,
        home: Path,
        log: Path,
        credentials: Credentials,
        ca_file: Path,
        fsync: bool,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.version = installation.version
        self.ca_file = ca_file
        self.log = log
        self.app_user, self.app_database, self.app_password = APP, APP, credentials.app
        self.admin_conninfo = (
            f"host={home} port={self.port} user={ADMIN} password={credentials.admin} dbname=postgres connect_timeout=5"
        )
        self.process: Process | None = None
        self._asked_to_stop = True
        self._installation = installation
        self._reaper = reaper
        self._home = home
        self._data = home / "data"
        self._fsync = fsync
        self._credentials = credentials
        self._extra: dict[str, str] = {}
        self._room: Room | None = None

    def install_identity(self, chain_file: Path, key_file: Path) -> None:
        """Puts the certificate and its key in place, before the first start; see `use_certificate` for a running server."""
        self._put_identity(chain_file, key_file)
        self._configure()

    def launch(self) -> None:
        """Starts the server and returns at once; `wait` waits for it."""
        argv = [self._installation.tool("postgres"), "-D", str(self._data)]
        user = self._installation.user
        self.process = self._reaper.spawn(
            self._room.entered(argv, user) if self._room else argv,
            name="PostgreSQL",
            cwd=Path("/"),
            env=self._installation.env,
            log=self.log,
            user=None if self._room else user,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )
        self._asked_to_stop = False

    def wait(self, seconds: float = 30.0, *, recovered: bool = False) -> None:
        """Until it takes connections over TLS, verified against the authority (or in the clear, when TLS was switched off).

        A server that recovers is told apart from one that has done so only with `recovered`: its status is 'standby' from the start.
        """
        assert self.process is not None
        deadline = time.monotonic() + seconds
        pid_file = self._data / "postmaster.pid"
        well = {"ready"} if recovered else {"ready", "standby"}
        while True:
            with suppress(OSError, IndexError):
                lines = pid_file.read_text(encoding="utf-8").splitlines()
                if lines[7].strip() in well and int(lines[0]) == self.process.pid:  # as pg_ctl does it
                    break
            if (status := self.process.poll()) is not None:
                self._fail(f"did not start: exit status {status}")
            if time.monotonic() > deadline:
                self._fail(f"did not take connections within {seconds:g} s")
            time.sleep(0.005)
        if self._tls:
            _, self.tls_version = self.served()

    def start(self) -> None:
        """Starts it again, on the same data and the same port."""
        if self.process is None or self.process.poll() is not None:
            if self.process is not None:
                self.process.stop()
            self.launch()
            self.wait()

    def stop(self, mode: str = "fast") -> None:
        """Stops it: 'fast' or 'immediate' (no goodbye to clients, recovery at the next start)."""
        if self.process is None:
            return
        self._asked_to_stop = True
        self.process.stop(10, stop_signal={"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self.process = None

    # -- its life: crashes, long recovery, followers, a disk of its own ---------------------------------------------------------

    @property
    def owner(self) -> tuple[int, int] | None:
        """(uid, gid) of its processes and files; None: the caller's own."""
        return self._installation.user

    def adjust(self, settings: Mapping[str, str]) -> None:
        """These settings on top of our own, values as postgresql.conf has them, reloaded; {} takes them off again."""
        self._extra = dict(settings)
        self._reload()

    def crash(self) -> None:
        """SIGKILL to the postmaster alone; its backends find out by themselves. Returns when all of them have gone."""
        assert self.process is not None
        self._asked_to_stop = True
        children = watchdog.family({self.process.pid})
        os.kill(self.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while any(watchdog.start_time(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.005)
        self.process.stop()
        self.process = None

    def kill_backend(self, pid: int) -> bool:
        """SIGKILL to one of its backends, as the out-of-memory killer sends it; whether `pid` was one."""
        if self.process is None or pid not in watchdog.family({self.process.pid}):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def recover_slowly(self) -> None:
        """Starts it in archive recovery, from an archive that does not answer until `recovered` is called; returns at once.

        Until then it refuses every session with 57P03 (https://www.postgresql.org/docs/current/continuous-archiving.html).
        """
        wait = f'i=0; while [ ! -e "{self._home}/archive-answers" ] && [ $i -lt 2400 ]; do sleep 0.05; i=$((i+1)); done; exit 1'
        self._extra = {"restore_command": f"'{wait}'", "hot_standby": "off"}
        self._configure()
        self._write("recovery.signal", b"")
        self.launch()

    def recovered(self) -> None:
        """The archive has nothing: recovery ends, and it takes connections when this returns. Idempotent."""
        gate = self._home / "archive-answers"
        gate.touch()
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.wait()
        finally:
            gate.unlink()
        self.adjust({})

    @property
    def home(self) -> Path:
        """The directory that holds its data, and what else is its own; its user may write there."""
        return self._home

    def restart(self, settings: Mapping[str, str]) -> None:
        """These settings on top of its own from a start on; {} takes them off again."""
        self.stop()
        self._extra = dict(settings)
        self._configure()
        self.start()

    def base_backup(self, to: Path) -> None:
        """A copy of its data by pg_basebackup, while it serves: https://www.postgresql.org/docs/current/app-pgbasebackup.html."""
        self._tool("pg_basebackup", "-D", str(to), "-d", self.admin_conninfo, "-c", "fast", "-X", "stream", "--no-sync")

    def recover_from(self, base: Path, settings: Mapping[str, str]) -> Path:
        """It is stopped, and recovers on a copy of `base` as `settings` say; where its former data are now.

        Raises PartFailed, with the server's words, when it does not get there.
        """
        self.stop("immediate")
        aside = self._home / "aside"
        if aside.exists():  # what is in its place is a recovery that failed
            shutil.rmtree(self._data)
        else:
            self._data.rename(aside)
        shutil.copytree(base, self._data, symlinks=True)
        self._own(self._data)
        self._extra = dict(settings)
        self._configure()
        self._write("recovery.signal", b"")
        self.launch()
        self.wait(120.0, recovered=True)
        return aside

    def _own(self, directory: Path) -> None:
        """Its user's, and nobody else's."""
        directory.chmod(0o700)
        if self._installation.user:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, *self._installation.user, follow_symlinks=False)

    def lacks(self, *names: str) -> str:
        """Which of PostgreSQL's own programs are not beside `postgres`, as a reason; '' when all are."""
        missing = [name for name in names if not Path(self._installation.tool(name)).exists()]
        return f"no {' or '.join(missing)} in {self._installation.bin_dir}" if missing else ""

    def follower(self, name: str) -> Postgres:
        """A standby of this server, streaming, that takes read-only sessions when this returns; `name` is also its log's."""
        home = self._home / name
        home.mkdir(mode=0o700)
        if self._installation.user:
            os.chown(home, *self._installation.user)
        made = Postgres(
            installation=self._installation,
            reaper=self._reaper,
            home=home,
            log=self.log.with_name(f"postgres-{name}.log"),
            credentials=self._credentials,
            ca_file=self.ca_file,
            fsync=self._fsync,
        )
        made.rebuild(self)
        return made

    def rebuild(self, primary: Postgres) -> None:
        """Its data are thrown away and copied from `primary` by pg_basebackup, which it follows from then on."""
        self.stop("immediate")
        shutil.rmtree(self._data, ignore_errors=True)
        self._tool(
            "pg_basebackup", "-D", str(self._data), "-d", primary.admin_conninfo, "-c", "fast", "-X", "stream", "--no-sync"
        )
        served = re.findall(
            r"^ssl_cert_file = 'server-(\d+)\.crt'", (self._data / "postgresql.conf").read_text("utf-8"), re.MULTILINE
        )
        self._identity = int(served[-1])
        self.follow(primary)

    def follow(self, primary: Postgres) -> None:
        """Starts it as a hot standby of `primary`: it streams from there and refuses every write (25006)."""
        self._extra = {"primary_conninfo": f"'{primary.admin_conninfo}'", "hot_standby": "on"}
        self._configure()
        self._write("standby.signal", b"")
        self.start()

    def discard(self) -> None:
        """A follower that is needed no more: stopped and removed."""
        self.stop("immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    def promote(self) -> None:
        """A standby becomes a primary; it takes writes when this returns."""
        self._tool("pg_ctl", "promote", "-D", str(self._data), "-w", "-t", "20")
        self.adjust({})

    def small_disk(self) -> Room:
        """Its WAL moves to a small file system of its own, and it is started there. See `Room`; `usual_disk` moves it back."""
        self._room = Room(
            self._home / "wal", reaper=self._reaper, log=self.log.with_name("room.log"), user=self._installation.user
        )
        self.stop()
        self._move(self._data / "pg_wal", self._room.reach)
        (self._data / "pg_wal").rmdir()
        (self._data / "pg_wal").symlink_to(self._room.place)
        self.start()
        return self._room

    def usual_disk(self) -> None:
        """The WAL is back with the data, and the server takes connections. Idempotent."""
        if self._room is None:
            return
        self._room.empty()
        self.stop("immediate")
        link = self._data / "pg_wal"
        if link.is_symlink():
            link.unlink()
            link.mkdir(mode=0o700)
            if self._installation.user:
                os.chown(link, *self._installation.user)
        self._move(self._room.reach, link)
        room, self._room = self._room, None
        self.start()
        room.close()

    def _move(self, source: Path, target: Path) -> None:
        """All that is in one directory into another, with its owner."""
        done = subprocess.run(["cp", "-Rp", f"{source}/.", str(target)], capture_output=True, text=True, check=False)
        if done.returncode:
            self._fail(f"its WAL could not be moved: {done.stderr.strip()[:200]}")
        for path in source.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _tool(self, name: str, *arguments: str) -> None:
        """One of PostgreSQL's own programs, as PostgreSQL's user; PartFailed, with its words, when it fails."""
        user = self._installation.user
        done = subprocess.run(
            [self._installation.tool(name), *arguments],
            env=self._installation.env,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
        if done.returncode:
            words = tuple((done.stderr or done.stdout).strip().splitlines()[-6:])
            raise PartFailed(f"{name} failed", remedy="read its words", where="PostgreSQL", tail=words)

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if self._room is not None:
            return  # a full disk may end it
        if not self._asked_to_stop and self.process is not None and (status := self.process.poll()) is not None:
            self._fail(f"died: exit status {status}")

    def administered(self) -> dict[str, str]:
        """See `chaos.environments.FileControl`."""
        named = {"CERT_FILE": "crt", "KEY_FILE": "key"}
        files = {name: str(self._data / f"server-{self._identity}.{end}") for name, end in named.items()}
        return {
            **files,
            "ADMIN": self.admin_conninfo,
            "SERVER": f"{self.host}:{self.port}",
            "BIN": str(self._installation.bin_dir),
        }

    def _put_identity(self, chain_file: Path, key_file: Path) -> None:
        """Copies of both under new names, so that one change of the configuration swaps both at once."""
        self._identity = max((int(path.stem.split("-")[1]) for path in self._data.glob("server-*.crt")), default=0) + 1
        for source, suffix in ((chain_file, "crt"), (key_file, "key")):
            self._write(f"server-{self._identity}.{suffix}", source.read_bytes())

    def _write(self, name: str, content: bytes) -> None:
        """A file of PostgreSQL's user that nobody else reads, complete from the moment it has its name."""
        making = self._data / f"{name}.new"
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        if self._installation.user:
            os.chown(making, *self._installation.user)
        making.rename(self._data / name)

    def _configure(self) -> None:
        flags = {
            "port": str(self.port),
            "unix_socket_directories": f"'{self._home}'",
            "ssl": "on" if self._tls else "off",
            "ssl_cert_file": f"'server-{self._identity}.crt'",
            "ssl_key_file": f"'server-{self._identity}.key'",
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            **self._extra,
        }
        text = _SETTINGS + "".join(f"{name} = {value}\n" for name, value in flags.items())
        self._write("postgresql.conf", text.encode())
        kind = "hostssl" if self._tls else "host"
        rules = [
            f"local all,replication {ADMIN} scram-sha-256",
            *(f"{kind} all all {net} scram-sha-256" for net in ("127.0.0.1/32", "::1/128")),
        ]
        self._write("pg_hba.conf", "".join(f"{rule}\n" for rule in rules).encode())

    def _reload(self) -> None:
        self._configure()
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGHUP)

    def _runs(self) -> bool:
        return self.process is not None

    def _fail(self, what: str) -> NoReturn:
        raise PartFailed(what, remedy=_remedy(self._words()), where="PostgreSQL", tail=self._words())

    def _words(self) -> tuple[str, ...]:
        return tail(self.log)


def _remedy(words: Sequence[str]) -> str:
    text = "\n".join(words)
    if re.search(r"SSL is not supported|unrecognized configuration parameter \"ssl", text):
        return "use a PostgreSQL that was built with OpenSSL (CHAOS_POSTGRES_BIN)"
    if "No space left" in text:
        return "make room on the disk, or in /dev/shm"
    return "read its last words above; the whole log is in the run's directory"
