"""The real PostgreSQL, Toxiproxy and Caddy in containers, as a worker starts them; and the image that docker/build.py makes."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from chaos import watchdog
from chaos.environments.docker import DockerEnvironment, DockerSettings, engine, environment, labels, postgres, sweep
from chaos.environments.docker.containers import Containers, File, Plan
from chaos.environments.docker.environment import _split
from chaos.errors import PartFailed, PartMissing
from chaos.processes import Reaper, free_port
from tests.engine import ours, those_left, volumes

pytestmark = pytest.mark.usefixtures("docker")


@contextmanager
def started(folder, run_id, **settings):
    with Reaper(run_id) as reaper:
        made = DockerEnvironment(
            reaper=reaper, run_dir=folder, run_id=run_id, settings=DockerSettings(**settings), worker="gw0", target=None
        )
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with started(tmp_path_factory.mktemp("run"), "unit-host") as made:
        yield made


def ask(conninfo, query):
    with psycopg.connect(conninfo, connect_timeout=10) as session:
        return session.execute(query).fetchone()[0]


def proxied(made, upstream=None):
    """A port of the environment's Toxiproxy that leads to its database."""
    listen = made.reach.listen[0] if made.reach.listen else "127.0.0.1:0"
    body = json.dumps({"name": "database", "listen": listen, "upstream": upstream or f"127.0.0.1:{made.postgres.port}"})
    with closing(http.client.HTTPConnection(made.toxiproxy_url.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/proxies", body)
        return int(json.loads(connection.getresponse().read())["listen"].rpartition(":")[2])


# -- the environment ------------------------------------------------------------------------------------------------------------


def test_verified_through_the_proxy_and_by_no_other_way(host):
    url = host.postgres.database_url(proxied(host))
    assert ask(url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
    assert ask(url, "SELECT current_user") == "app"
    for way in ("disable", "allow"):
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            ask(url.replace("sslmode=verify-full", "sslmode=disable"), "SELECT 1")
        assert way
    assert host.versions["PostgreSQL"].startswith("1")
    assert host.versions["Docker"].endswith("(host network)")
    assert ask(host.postgres.admin_conninfo, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True


def test_another_certificate_is_served_and_the_first_again(host):
    offset = host.postgres.log_offset()
    good, other = host.authority.issue("valid"), host.authority.issue("expired")
    host.postgres.use_certificate(other.chain_file, other.key_file)
    assert host.postgres.served(verify=False)[0] == other.fingerprint
    assert ask(host.postgres.admin_conninfo, "SELECT 1") == 1
    host.postgres.use_certificate(good.chain_file, good.key_file)
    assert host.postgres.served()[0] == good.fingerprint
    assert any("SIGHUP" in line for line in host.postgres.log_since(offset))


def test_a_key_that_does_not_fit_is_refused_and_the_former_stays(host):
    good, other = host.authority.issue("valid"), host.authority.issue("wrong-host")
    with pytest.raises(PartFailed, match=r"(?s)does not serve the certificate.*SSL configuration was not reloaded"):
        host.postgres.use_certificate(other.chain_file, good.key_file)
    assert host.postgres.served()[0] == good.fingerprint


def test_without_tls_and_with_it_again(host):
    host.postgres.tls(enabled=False)
    assert host.postgres.answer() == b"N"
    host.postgres.tls(enabled=True)
    assert host.postgres.served()[1] == "TLSv1.3"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_and_started_on_the_same_data(host, mode):
    table = f"kept_{mode}"
    with psycopg.connect(host.postgres.database_url()) as session:
        session.execute(f"CREATE TABLE {table} AS SELECT 7 AS a")
    host.postgres.stop(mode)
    assert host.postgres.answer() == b""
    host.check()  # it was asked to
    host.postgres.start()
    assert ask(host.postgres.database_url(), f"SELECT a FROM {table}") == 7


def test_a_certificate_changed_while_it_is_down_is_served_when_it_is_up(host):
    good, other = host.authority.issue("valid"), host.authority.issue("not-yet-valid")
    host.postgres.stop()
    host.postgres.use_certificate(other.chain_file, other.key_file)
    host.postgres.use_certificate(good.chain_file, good.key_file)
    host.postgres.start()
    assert host.postgres.served()[0] == good.fingerprint


def test_a_part_that_died_is_named(docker, tmp_path):
    with started(tmp_path, "unit-dies") as made:
        made.check()
        made.postgres.container.signal(signal.SIGKILL)
        made.postgres.container.wait(10)
        with pytest.raises(PartFailed, match="PostgreSQL: died: exit status 137"):
            made.check()
    assert ours(docker, "unit-dies") == []


def test_the_edge_is_a_container_that_takes_its_weights_from_here(docker, host):
    edge = host.edge({"good": free_port(), "bad": free_port()})
    assert any("caddy" in name for name in ours(docker, "unit-host"))
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["X-Chaos-Edge"]) == (502, "1")
    connection.close()
    edge.set_weights({"bad": 1})
    edge.stop()
    host.check()
    assert not any("caddy" in name for name in ours(docker, "unit-host"))


def test_on_a_bridge(docker, tmp_path):
    """Reached through published ports, on loopback only; and what those hide is said."""
    with started(tmp_path, "unit-bridge", docker_network="bridge") as made:
        assert made.versions["Docker"].endswith("(bridge network)")
        assert {"network.refused", "network.reset", "cross.refused", "cross.reset", "flapping"} == set(made.reach.hides)
        assert ask(made.postgres.database_url(proxied(made, "postgres:5432")), "SELECT 1") == 1
        for one in docker.containers.list(filters={"label": f"{labels.RUN}=unit-bridge"}):
            published = [place for places in one.ports.values() for place in places or ()]
            assert published
            assert {place["HostIp"] for place in published} == {"127.0.0.1"}
        made.postgres.stop()
        assert made.postgres.answer() == b""
        made.postgres.start()
        assert ask(made.postgres.database_url(), "SELECT 1") == 1
        had = volumes(docker, "unit-bridge")
        assert had
        assert len([name for name in ours(docker, "unit-bridge") if name.startswith("network")]) == 1
    assert ours(docker, "unit-bridge") == []
    assert those_left(docker, had) == []


@pytest.mark.parametrize("kind", ["host", "bridge"])
def test_a_port_that_is_taken(docker, tmp_path, monkeypatch, kind):
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        monkeypatch.setattr(postgres, "free_port", lambda: occupant.getsockname()[1])
        room = started(tmp_path, f"unit-port-{kind}", docker_network=kind)
        with pytest.raises(PartFailed, match="see who listens on it|see who listens on its port") as told, room:
            pytest.fail("it started")
    assert told.value.exit_code == 4
    assert ours(docker, f"unit-port-{kind}") == []


def test_images_are_named_by_the_file_and_by_variables(monkeypatch):
    monkeypatch.delenv("CHAOS_POSTGRES_IMAGE", raising=False)
    assert environment.image(DockerSettings(), "postgres_image") == "postgres:17.10"
    assert environment.image(DockerSettings(postgres_image="ours:16"), "postgres_image") == "ours:16"
    monkeypatch.setenv("CHAOS_POSTGRES_IMAGE", "closed/postgres:1")
    assert environment.image(DockerSettings(postgres_image="ours:16"), "postgres_image") == "closed/postgres:1"
    assert [_split(name) for name in ("a", "a:1", "h:5000/a", "h:5000/a:1", "a@sha256:0")] == [
        ("a", "latest"),
        ("a", "1"),
        ("h:5000/a", "latest"),
        ("h:5000/a", "1"),
        ("a@sha256:0", None),
    ]


def test_an_engine_elsewhere_is_not_used(monkeypatch):
    for address in ("ssh://somebody@machine", "tcp://192.0.2.1:2375"):
        monkeypatch.setenv("DOCKER_HOST", address)
        with pytest.raises(PartMissing, match="on another machine"):
            engine.find()


def test_a_platform_that_the_image_is_not_of(tmp_path):
    with pytest.raises(PartMissing, match="image not there"), started(tmp_path, "unit-platform", platform="linux/s390x"):
        pytest.fail("it started")


# -- whose it is ----------------------------------------------------------------------------------------------------------------


def sleeper(reaper, run_id, folder):
    containers = Containers(engine=engine.find(), reaper=reaper, run_id=run_id, worker="gw0", network="host")
    plan = Plan(
        image=environment.image(DockerSettings(), "postgres_image"),
        name="sleeper",
        log=folder / "log",
        entrypoint=["sh", "-c"],
        command=["echo up; cat /etc/told; exec sleep 600"],
        files=[File(path="/etc/told", content=b"told\n")],
    )
    return containers, containers.start(plan)


def test_a_container_is_followed_stopped_and_forgotten(docker, tmp_path):
    with Reaper("unit-sleeper") as reaper:
        containers, one = sleeper(reaper, "unit-sleeper", tmp_path)
        deadline = time.monotonic() + 10
        while len(one.tail()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert one.tail() == ("up", "told")
        assert one.poll() is None
        assert one.run(["sh", "-c", "echo $0"])[0] == 0
        one.stop(1)
        assert one.poll() == 137
        one.stop()
        assert containers.close() == []
    assert ours(docker, "unit-sleeper") == []


def test_what_a_living_run_owns_is_never_swept(docker, tmp_path):
    with Reaper("unit-living") as reaper:
        containers, one = sleeper(reaper, "unit-living", tmp_path)
        swept = sweep(docker)
        assert any("unit-living" in name for name in swept.left)
        assert not any("unit-living" in name for name in swept.removed)
        assert one.poll() is None
        assert containers.close() == []


def test_labels_tell_the_dead_from_the_living_and_from_strangers():
    mine = labels.labels("x")
    assert not labels.is_dead(mine)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = labels.labels("x", child.pid)
    assert not labels.is_dead(theirs)
    child.communicate(b"\n")
    assert labels.is_dead(theirs)
    pid, _, rest = mine[labels.OWNER].partition(" ")
    assert labels.is_dead({labels.OWNER: f"{pid} 1 {rest.split()[-1]}"})  # the pid was given to somebody else
    assert not labels.is_dead({labels.OWNER: f"{pid} 1 another-boot/pid:[1]"})
    assert not labels.is_dead({})
    assert not labels.is_dead({labels.OWNER: "nonsense"})


OWNER_OF_ONE = """
import sys, time
from pathlib import Path
from chaos.processes import Reaper
from tests.unit.test_docker_environment import sleeper
reaper = Reaper(sys.argv[1])
containers, one = sleeper(reaper, sys.argv[1], Path(sys.argv[2]))
print(reaper._told.popen.pid, flush=True)
time.sleep(600)
"""


def owner(run_id, folder, **more):
    """A process that owns a container: itself, and its watchdog's pid."""
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root, **more}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_ONE, run_id, str(folder)], stdout=subprocess.PIPE, env=env, cwd=folder, text=True
    )
    return process, int(process.stdout.readline())


def test_killed_without_a_word_the_watchdog_removes_it(docker, tmp_path):
    process, _ = owner("unit-killed", tmp_path)
    assert len(ours(docker, "unit-killed")) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 15
    while ours(docker, "unit-killed") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ours(docker, "unit-killed") == []


def test_killed_with_its_watchdog_the_next_sweep_removes_it(small, tmp_path):
    address, _, _, docker = small
    process, guard = owner("unit-both", tmp_path, DOCKER_HOST=address)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.communicate()
    time.sleep(0.3)
    assert len(ours(docker, "unit-both")) == 1
    swept = sweep(docker)
    assert any("unit-both" in name for name in swept.removed)
    assert ours(docker, "unit-both") == []


def test_the_watchdog_asks_an_engine_until_the_thing_is_gone(docker, tmp_path):
    url = engine.find().url
    assert watchdog.heal("DELETE", f"{url}/containers/chaos-gate-never-made?force=true", "")
    with Reaper("unit-heal") as reaper:
        _, one = sleeper(reaper, "unit-heal", tmp_path)
        assert watchdog.heal("DELETE", f"{url}/containers/{one._container.name}?force=true&v=true", "")
        assert one.poll() == 137
        one.kill()
    assert not watchdog.heal("DELETE", f"http+unix://{str(tmp_path).replace('/', '%2F')}%2Fnone/containers/x", "")


# -- the image that we build ----------------------------------------------------------------------------------------------------


@contextmanager
def official(docker, folder, *arguments, scripts=(), listen="", **env):
    """The image as anyone would use the official one; a way to ask its database, and its log."""
    folder.chmod(0o755)  # the scripts are read by the user postgres
    port = free_port()
    run = docker.containers.create(
        environment.image(DockerSettings(), "postgres_image"),
        command=[*arguments, "-c", f"port={port}", *([] if listen else ["-c", "listen_addresses=127.0.0.1"])],
        environment=env,
        network="host",
        labels=labels.labels("unit-image"),
        volumes={str(folder): {"bind": "/docker-entrypoint-initdb.d", "mode": "ro"}},
    )
    for name, text in scripts:
        (folder / name).write_text(text)
    try:
        run.start()
        yield run, port
    finally:
        run.remove(force=True, v=True)


def test_the_image_listens_everywhere_unless_told_otherwise(docker, tmp_path):
    with official(docker, tmp_path, listen="*", POSTGRES_PASSWORD="x") as (run, port):
        login = f"host=127.0.0.1 port={port} user=postgres password=x dbname=postgres"
        assert until_it_answers(run, login, "SHOW listen_addresses") == "*"


def until_it_answers(run, conninfo, query):
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask(conninfo, query)
        except psycopg.OperationalError:
            run.reload()
            if run.status == "exited" or time.monotonic() > deadline:
                raise AssertionError(run.logs().decode()[-2000:]) from None
            time.sleep(0.05)


def test_the_image_takes_what_the_official_one_takes(docker, tmp_path):
    scripts = [
        ("1.sql", "CREATE TABLE made (a int); INSERT INTO made VALUES (1);"),
        ("2.sh", 'psql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO made VALUES (2)"'),
        ("3.txt", "ignored"),
    ]
    env = {"POSTGRES_USER": "owner", "POSTGRES_PASSWORD": "o'pass word", "POSTGRES_DB": "my data", "PGDATA": "/data/pg"}
    env["POSTGRES_INITDB_ARGS"] = "--auth-host=scram-sha-256"  # else loopback is trusted, as by the official image
    with official(docker, tmp_path, "-c", "max_connections=17", scripts=scripts, **env) as (run, port):
        login = rf"host=127.0.0.1 port={port} user=owner password='o\'pass word' dbname='my data'"
        assert until_it_answers(run, login, "SELECT sum(a) FROM made") == 3
        assert ask(login, "SHOW max_connections") == "17"
        assert ask(login, "SHOW data_directory") == "/data/pg"
        assert ask(login, "SELECT count(*) FROM pg_database WHERE datname = 'my data'") == 1
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(login.replace("pass word", "guess"), "SELECT 1")
        run.restart()
        assert until_it_answers(run, login, "SELECT sum(a) FROM made") == 3
        assert run.exec_run(["cat", "/proc/1/comm"]).output.strip() == b"postgres"
        run.stop(timeout=10)
        run.reload()
        assert run.attrs["State"]["ExitCode"] == 0  # a fast shutdown by its stop signal, not a kill


def test_the_image_refuses_to_start_without_a_password(docker, tmp_path):
    with official(docker, tmp_path) as (run, _):
        assert run.wait(timeout=30)["StatusCode"] == 1
        assert b"POSTGRES_PASSWORD is empty" in run.logs()


def test_the_image_stops_at_a_script_that_fails(docker, tmp_path):
    with official(docker, tmp_path, scripts=[("1.sql", "SELECT 1/0;")], POSTGRES_PASSWORD="x") as (run, _):
        assert run.wait(timeout=30)["StatusCode"] != 0
        assert b"division by zero" in run.logs()
