"""The real PostgreSQL, Toxiproxy and Caddy, as a worker starts them."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from chaos import watchdog
from chaos.environments.local import LocalEnvironment, LocalSettings, cache, go_module, installation, provide, toxiproxy
from chaos.environments.local.edge import CaddyEdge, set_weights
from chaos.environments.tls_server import fingerprint
from chaos.errors import EnvironmentFault, PartFailed, PartMissing, UsageError
from chaos.processes import Reaper, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reaper() -> Iterator[Reaper]:
    with Reaper("test") as reaper:
        yield reaper


@pytest.fixture(scope="module")
def local(reaper: Reaper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEnvironment]:
    environment = LocalEnvironment(reaper=reaper, run_dir=tmp_path_factory.mktemp("run"), settings=LocalSettings(), worker="gw0")
    environment.start()
    yield environment
    environment.stop()


def ask(conninfo: str, query: str, **more: Any) -> Any:
    with psycopg.connect(conninfo, connect_timeout=10, **more) as session:
        row = session.execute(query.encode()).fetchone()  # bytes: this is no literal
        assert row
        return row[0]


def through_proxy(environment: LocalEnvironment) -> int:
    body = json.dumps({"name": "database", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{environment.postgres.port}"})
    with closing(http.client.HTTPConnection(environment.toxiproxy_url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/proxies", body)
        return int(json.loads(connection.getresponse().read())["listen"].rpartition(":")[2])


# -- PostgreSQL -----------------------------------------------------------------------------------------------------------------


def test_the_application_connects_verified_through_a_proxy(local: LocalEnvironment) -> None:
    url = local.postgres.database_url(through_proxy(local))
    assert url.endswith(f"?sslmode=verify-full&sslrootcert={local.postgres.ca_file}")
    query = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert ask(url, query) == local.postgres.tls_version == "TLSv1.3"
    assert ask(url, "SELECT current_user || current_database()") == "appapp"
    assert local.versions["Toxiproxy"].startswith("2.12.")
    assert local.versions["PostgreSQL"] == ask(url, "SHOW server_version").split()[0]


def test_the_application_owns_its_database(local: LocalEnvironment) -> None:
    with psycopg.connect(local.postgres.database_url()) as session:
        session.execute("CREATE SCHEMA s CREATE TABLE t (x int)")
        session.execute("CREATE TABLE public.t (x int)")
        session.rollback()


def test_nothing_but_tls_and_scram_is_let_in(local: LocalEnvironment) -> None:
    url = local.postgres.database_url()
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(url.replace("verify-full", "disable"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url, password="wrong")
    with pytest.raises(psycopg.OperationalError, match=r"protocol version|SSL error"):
        psycopg.connect(url, ssl_min_protocol_version="TLSv1", ssl_max_protocol_version="TLSv1.1")
    admin = local.postgres.admin_conninfo
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba.conf entry"):
        psycopg.connect(admin, user="app", password=local.postgres.app_password)
    for name, value in {"fsync": "off", "max_connections": "40", "wal_segment_size": "1MB", "log_connections": "on"}.items():
        assert ask(admin, f"SHOW {name}") == value


def test_a_certificate_is_swapped_and_confirmed(local: LocalEnvironment) -> None:
    good, rotated = local.authority.issue("valid"), local.authority.issue("rotated-leaf")
    with psycopg.connect(local.postgres.database_url(), autocommit=True) as open_before:
        local.postgres.use_certificate(rotated.chain_file, rotated.key_file)
        assert local.postgres.served() == (rotated.fingerprint, "TLSv1.3")
        assert open_before.execute("SELECT 1").fetchone() == (1,)
    local.postgres.use_certificate(good.chain_file, good.key_file)
    assert local.postgres.served()[0] == good.fingerprint == fingerprint(good.chain_file)


def test_a_bad_certificate_is_served_all_the_same_and_the_administrator_gets_in(local: LocalEnvironment) -> None:
    good, expired = local.authority.issue("valid"), local.authority.issue("expired")
    local.postgres.use_certificate(expired.chain_file, expired.key_file)
    try:
        with pytest.raises(psycopg.OperationalError, match=r"certificate has expired|verify failed"):
            psycopg.connect(local.postgres.database_url())
        assert ask(local.postgres.admin_conninfo, "SELECT 1") == 1
    finally:
        local.postgres.use_certificate(good.chain_file, good.key_file)
    assert ask(local.postgres.database_url(), "SELECT 1") == 1


def test_a_certificate_that_the_server_refuses_leaves_the_former_one(local: LocalEnvironment) -> None:
    good, other = local.authority.issue("valid"), local.authority.issue("rotated-leaf")
    with pytest.raises(PartFailed, match=r"(?s)does not serve the certificate.*SSL configuration was not reloaded"):
        local.postgres.use_certificate(other.chain_file, good.key_file)
    assert local.postgres.served()[0] == good.fingerprint


def test_tls_can_be_switched_off_and_on(local: LocalEnvironment) -> None:
    url = local.postgres.database_url()
    local.postgres.tls(enabled=False)
    try:
        with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
            psycopg.connect(url)
        assert ask(url.replace("verify-full", "prefer"), "SELECT 1") == 1  # so that a client that falls back is caught
    finally:
        local.postgres.tls(enabled=True)
    assert ask(url, "SELECT 1") == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_it_is_stopped_and_started_with_its_data(local: LocalEnvironment, mode: str) -> None:
    url, port = local.postgres.database_url(), local.postgres.port
    with psycopg.connect(url) as session:
        session.execute(f"CREATE TABLE kept_{mode} (x int)".encode())
    local.postgres.stop(mode)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    local.check()  # it was asked to stop
    local.postgres.start()
    local.postgres.start()
    assert local.postgres.port == port
    assert ask(url, f"SELECT 'kept_{mode}'::regclass::text") == f"kept_{mode}"


def test_the_log_is_read_from_an_offset(local: LocalEnvironment) -> None:
    offset = local.postgres.log_offset()
    ask(local.postgres.database_url(), "SELECT 1")
    lines: list[str] = []
    deadline = time.monotonic() + 10
    while not any("disconnection" in line for line in lines) and time.monotonic() < deadline:
        lines = local.postgres.log_since(offset)
    assert sum("connection authorized: user=app database=app SSL enabled (protocol=TLSv1.3" in line for line in lines) == 1
    assert lines[0][:2] == "20"  # %m
    assert not any("could not receive data" in line for line in local.postgres.log_since(0)), "our own probes say goodbye"


# -- the whole ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["PostgreSQL", "Toxiproxy"])
def test_a_part_that_died_is_named_with_its_last_words(reaper: Reaper, tmp_path: Path, part: str) -> None:
    environment = LocalEnvironment(reaper=reaper, run_dir=tmp_path)
    environment.start()
    environment.check()
    process = environment.postgres.process if part == "PostgreSQL" else environment._toxiproxy and environment._toxiproxy.process
    assert process
    os.kill(process.pid, 9)
    assert process.wait(10) == -9
    with pytest.raises(PartFailed, match=f"{part}: died: exit status -9") as caught:
        environment.check()
    assert caught.value.tail
    environment.stop()
    environment.stop()


def test_a_wedged_toxiproxy_is_replaced_on_its_port(reaper: Reaper, tmp_path: Path) -> None:
    environment = LocalEnvironment(reaper=reaper, run_dir=tmp_path)
    environment.start()
    through_proxy(environment)
    assert environment._toxiproxy
    assert environment._toxiproxy.process
    environment._toxiproxy.process.signal(19)
    url = environment.toxiproxy_url
    environment.replace_toxiproxy()
    environment.check()
    assert environment.toxiproxy_url == url
    assert ask(environment.postgres.database_url(through_proxy(environment)), "SELECT 1") == 1
    environment.stop()


def test_four_start_at_once_and_share_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from chaos.environments.local import LocalEnvironment
from chaos.processes import Reaper
with Reaper("four") as reaper:
    one = LocalEnvironment(reaper=reaper, run_dir=Path(sys.argv[1]), worker=sys.argv[2])
    one.start()
    import psycopg
    with psycopg.connect(one.postgres.database_url()) as session:
        session.execute("CREATE TABLE mine (x int)")
    print(one.postgres.port, flush=True)
    sys.stdin.read()
    one.stop()
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), f"gw{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number in range(4)
    ]
    ports = {worker.stdout.readline() for worker in workers if worker.stdout}
    assert len(ports) == 4
    assert "" not in ports
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0


KILLED = """
import os, sys, time, json
from pathlib import Path
from chaos.environments.local import LocalEnvironment
from chaos.processes import Reaper, free_port
here = Path(sys.argv[1])
reaper = Reaper("killed")
reaper.own(here / "scratch").mkdir()
local = LocalEnvironment(reaper=reaper, run_dir=here / "scratch")
local.start()
edge = local.edge({"a": free_port()})
import psycopg
session = psycopg.connect(local.postgres.database_url())
session.execute("CREATE TABLE t AS SELECT generate_series(1, 100000) x")
fork = "import os, time; os.fork() or (os.setsid(), os.fork()); print('up', flush=True); time.sleep(600)"
target = reaper.spawn([sys.executable, "-c", fork], name="target", cwd=here, env={}, log=here / "scratch" / "target")
while target.tail().count("up") < 3: time.sleep(0.01)
print(json.dumps({"mark": reaper.mark, "home": str(local._home), "postgres": local.postgres.process.pid,
    "ports": [local.postgres.port, edge.port, int(local.toxiproxy_url.rpartition(":")[2])]}), flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_a_worker_that_was_killed(tmp_path: Path) -> None:
    """No process, file, directory, port or shared memory, five seconds later at the most (on a quiet machine)."""
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert worker.stdout
    told = json.loads(worker.stdout.readline())
    before = left_of(told, tmp_path)
    assert {"processes", "memory", "files", "ports"} <= {one.split()[0] for one in before}, before
    worker.kill()
    killed = time.monotonic()
    worker.communicate()
    while (left := left_of(told, tmp_path)) and time.monotonic() < killed + 20:
        time.sleep(0.05)
    print(f"gone after {time.monotonic() - killed:.2f} s")  # noqa: T201  # read by whoever measures, with -s
    assert not left


def left_of(told: dict[str, Any], folder: Path) -> list[str]:
    """Everything of that worker that is still there, as words."""
    rows = subprocess.run(["ps", "-A", "-ww", "-o", "stat=", "-o", "args="], capture_output=True, text=True, check=True).stdout
    titles = [row for row in rows.splitlines() if told["home"] in row and not row.startswith("Z")]
    left = [f"processes {watchdog.strays(told['mark'])} {titles}"] if watchdog.strays(told["mark"]) or titles else []
    segments = Path("/proc/sysvipc/shm")
    if segments.exists() and any(int(line.split()[4]) == told["postgres"] for line in segments.read_text().splitlines()[1:]):
        left.append("memory")
    left += [f"files {path}" for path in (Path(told["home"]), folder / "scratch") if path.exists()]
    for port in told["ports"]:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                left.append(f"ports {port}")
    return left


# -- what it is made of ---------------------------------------------------------------------------------------------------------


def test_another_postgresql_is_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 13.9'\n")
    for path in (tmp_path, *list(tmp_path.parents)[:3]):
        path.chmod(0o755)
    (tmp_path / "postgres").chmod(0o755)
    monkeypatch.setenv("CHAOS_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(PartMissing, match=r"is PostgreSQL 13\.9\n.*14 or newer"):
        installation.find(None)
    (tmp_path / "postgres").write_text("#!/bin/sh\necho 'libssl.so.3: not found' >&2; exit 127\n")
    with pytest.raises(PartMissing, match=r"does not run on this machine\n    \| libssl"):
        installation.find(None)
    monkeypatch.setenv("CHAOS_POSTGRES_BIN", str(tmp_path / "none"))
    with pytest.raises(PartMissing, match="No such file"):
        installation.find(None)
    monkeypatch.delenv("CHAOS_POSTGRES_BIN")
    (tmp_path / "postgres").chmod(0o644)
    with pytest.raises(PartMissing, match="may not be run by"):
        installation.find(tmp_path)


def test_binaries_without_run_bits_in_a_closed_folder_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "closed" / "pginstall"
    for name in ("bin", "lib", "share"):
        (root / name).mkdir(parents=True)
    (root / "bin" / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.1'\n")
    (root / "bin" / "postgres").chmod(0o600)
    (root / "share" / "data").write_text("x")
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr(installation, "_wheel", lambda: root / "bin")
    found = installation.find(None)
    again = installation.find(None)
    try:
        assert found == again
        assert found.version == "17.1"
        assert found.bin_dir.parent.parent == cache.shared_cache()
        assert (found.bin_dir.parent / "share" / "data").read_text() == "x"
        assert stat.S_IMODE((found.bin_dir.parent / "share" / "data").stat().st_mode) == 0o644
    finally:
        shutil.rmtree(found.bin_dir.parent)


def test_the_cache_is_the_first_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path / "mine"))
    assert cache.user_cache() == tmp_path / "mine"
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path / "file" / "x"))
    assert cache.user_cache() == tmp_path / "xdg" / "chaos-gate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.user_cache() == tmp_path / "home" / ".cache" / "chaos-gate"


def test_a_toxiproxy_of_the_right_version_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "toxiproxy-server"
    given.write_text("#!/bin/sh\necho toxiproxy-server version 2.12.0\n")
    given.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert toxiproxy.ensure() == given
    given.write_text("#!/bin/sh\necho toxiproxy-server version 2.9.0\n")
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path))
    cached = tmp_path / "toxiproxy-server-2.12.0"
    cached.write_text("")
    assert toxiproxy.ensure() == cached


def test_without_network_it_says_in_one_breath_what_could_not_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setattr(go_module, "machines_go", lambda _oldest: None)
    with pytest.raises(PartMissing, match=r"(?s)Toxiproxy: Go, .*could not be had.*put a toxiproxy-server 2.12.0 on PATH"):
        toxiproxy.ensure()
    assert not list(tmp_path.glob("*toxiproxy-server*"))


def test_what_is_there_is_provided_at_once() -> None:
    said: list[str] = []
    provide(LocalSettings(), say=said.append)
    provide(LocalSettings(), say=said.append)
    assert len(said) <= 2


# -- the edge -------------------------------------------------------------------------------------------------------------------


@contextmanager
def upstream(name: str, hosts: list[str]) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hosts.append(self.headers["Host"])
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def get(edge: CaddyEdge, path: str = "/") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)
    connection.request("GET", path, headers={"Host": "API.Example.test:77"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_the_edge_shares_requests_by_weight_and_marks_its_own_answers(local: LocalEnvironment) -> None:
    hosts: list[str] = []
    with upstream("baseline", hosts) as one, upstream("candidate", hosts) as two:
        edge = local.edge({"baseline": one, "candidate": two, "dead": free_port()})
        status, headers, body = get(edge)
        assert (status, body, edge.name_of(headers["x-chaos-upstream"])) == (200, "baseline", "baseline")
        assert "x-chaos-edge" not in headers
        assert set(hosts) == {"API.Example.test:77"}
        status, headers, body = get(edge, "/missing")
        assert (status, body, "x-chaos-edge" in headers) == (404, "baseline", False)
        edge.set_weights({"baseline": 3, "candidate": 1})
        shares = Counter(get(edge)[2] for _ in range(400))
        assert 50 < shares["candidate"] < 150  # 100 expected, standard deviation 8.7
        set_weights(edge.admin_url, edge.upstreams, {"candidate": 100})
        assert {get(edge)[2] for _ in range(30)} == {"candidate"}
        edge.set_weights({"dead": 1})
        status, headers, body = get(edge)
        assert (status, headers["content-type"], headers["x-chaos-edge"]) == (502, "application/problem+json", "1")
        assert json.loads(body) == {"type": "about:blank", "title": "Bad Gateway", "status": 502}
        for wrong in ({"nobody": 1}, {"baseline": 0}, {"baseline": -1, "candidate": 2}, {}):
            with pytest.raises(UsageError, match="do not fit the upstreams"):
                edge.set_weights(wrong)
        edge.stop()
        local.check()
        with pytest.raises(EnvironmentFault, match="did not answer"):
            edge.set_weights({"baseline": 1})


def test_changing_weights_costs_no_request(local: LocalEnvironment) -> None:
    hosts: list[str] = []
    with upstream("a", hosts) as one, upstream("b", hosts) as two:
        edge = local.edge({"a": one, "b": two})
        wrong: list[object] = []
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                try:
                    if (status := get(edge)[0]) != 200:
                        wrong.append(status)
                except (OSError, http.client.HTTPException) as error:
                    wrong.append(error)

        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for share in range(1, 40):
            edge.set_weights({"a": share, "b": 40 - share})
            time.sleep(0.03)
        done.set()
        for thread in threads:
            thread.join()
        edge.stop()
    assert not wrong
    assert len(hosts) > 50


def test_an_edge_that_died_is_named(local: LocalEnvironment) -> None:
    edge = local.edge({"a": free_port()})
    edge.process.kill()
    with pytest.raises(PartFailed, match="Caddy: died"):
        local.check()
    edge.stop()
