"""What can be wrong with an engine, provoked for real, on one of the test's own: each one clear error, and exit code 4."""

import os
import shutil
import signal
import socket
from contextlib import closing

import pytest

from tests.detection.docker_run import DockerRun
from tests.detection.tiny_run import ONE, TINY, Run, one_error, tiny
from tests.engine import IMAGES, ours


def run_on(place, address, config=TINY, **env):
    return Run(place, config, only=(ONE,), options=("--backend", "docker"), env={"DOCKER_HOST": address, **IMAGES, **env})


def test_no_engine_at_all(tmp_path):
    run = run_on(tmp_path, f"unix://{tmp_path}/nobody.sock")
    one_error(run, 4, "Docker: ", "there is no such socket", "install and start an engine", "--backend local")
    assert run.left() == []


def test_an_engine_that_has_ended(tmp_path):
    """Its socket is still there, and nobody listens."""
    with closing(socket.socket(socket.AF_UNIX)) as ended:
        ended.bind(str(tmp_path / "ended.sock"))
    run = run_on(tmp_path, f"unix://{tmp_path}/ended.sock")
    one_error(run, 4, "Docker: ", "nobody listens there", "start the daemon")
    assert run.left() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not use the socket")
def test_a_socket_that_this_user_may_not_use(tmp_path, docker):
    """Run as nobody: as a user who is not in the group docker."""
    place = tmp_path / "nobodys"
    place.mkdir()
    (tmp_path / "shut").mkdir(mode=0o700)
    with closing(socket.socket(socket.AF_UNIX)) as theirs:
        theirs.bind(str(tmp_path / "shut" / "engine.sock"))
        theirs.listen()
        run = Run(
            place,
            only=(ONE,),
            options=("--backend", "docker"),
            before=("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--"),
            env={"DOCKER_HOST": f"unix://{tmp_path}/shut/engine.sock", **IMAGES},
        )
        os.chown(tmp_path / "shut", 65534, 65534)
        one_error(run, 4, "Docker: ", "this user may not use its socket", "group docker")
    assert run.left() == []


def test_an_engine_elsewhere(tmp_path):
    run = run_on(tmp_path, "tcp://192.0.2.1:2375")
    one_error(run, 4, "on another machine", "unset DOCKER_HOST")
    assert run.left() == []


def on(place, kind, image=""):
    made = tiny(place)
    lines = [f'docker_network = "{kind}"', *([f'postgres_image = "{image}"'] if image else [])]
    made.write_text("\n".join([made.read_text(encoding="utf-8"), "[environment]", *lines, ""]), encoding="utf-8")
    return made


def test_an_image_that_is_not_there(small, tmp_path):
    address, _, _, client = small
    name = "127.0.0.1:9/none/postgres:17"
    run = run_on(tmp_path, address, on(tmp_path, "host", name), CHAOS_POSTGRES_IMAGE="", CHAOS_EDGE_IMAGE="edge:1")
    one_error(run, 4, f"image not there: {name} cannot be pulled", "docker pull it", "docker/build.py")
    assert run.left() == []
    assert ours(client) == []


def test_no_network_left(small, tmp_path):
    """The engine has addresses for one network, and it is taken."""
    address, _, _, client = small
    taken = client.networks.create("taken")
    try:
        run = run_on(tmp_path, address, on(tmp_path, "bridge"), CHAOS_EDGE_IMAGE="edge:1")
        one_error(run, 4, "a network could not be made", "docker network prune", 'docker_network = "host"')
        assert run.left() == []
        assert ours(client) == []
    finally:
        taken.remove()


def test_a_full_disk(small, tmp_path):
    """The engine's disk has room for the containers, and not for the database."""
    address, _, place, client = small
    free = shutil.disk_usage(place / "disk").free
    ballast = place / "disk" / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (6 << 20))
    try:
        run = run_on(tmp_path, address, on(tmp_path, "host"), CHAOS_EDGE_IMAGE="edge:1")
        one_error(run, 4, "PostgreSQL: ", "No space left on device", "make room where the engine keeps its data")
        assert run.left() == []
        ballast.unlink()
        with ballast.open("wb") as file:  # and not even for a container
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(place / "disk").free)
        again = tmp_path / "again"
        again.mkdir()
        run = run_on(again, address, on(again, "host"), CHAOS_EDGE_IMAGE="edge:1")
        one_error(run, 4, "no space left on device", "make room where the engine keeps its data")
        assert run.left() == []
    finally:
        ballast.unlink()
    assert ours(client) == []


def test_an_engine_that_does_not_answer(small, tmp_path):
    """Stopped in its tracks: its socket takes connections and says nothing."""
    address, daemon, _, _ = small
    daemon.send_signal(signal.SIGSTOP)
    try:
        run = run_on(tmp_path, address)
        one_error(run, 4, "does not answer in time", "restart it", "--backend local")
        assert run.left() == []
    finally:
        daemon.send_signal(signal.SIGCONT)


def test_a_target_as_an_image_without_an_engine(tmp_path):
    made = tmp_path / "chaos.toml"
    text = TINY.read_text(encoding="utf-8").replace('start = ["python", "service.py", "{port}"]', 'image = "tiny:1"')
    made.write_text(text, encoding="utf-8")
    run = Run(tmp_path, made, only=(ONE,), options=("--backend", "local"))
    one_error(run, 2, "the target is an image (tiny:1)", "--backend docker")
    assert run.left() == []


def test_a_target_whose_image_is_not_there(docker, tmp_path):
    made = tmp_path / "chaos.toml"
    name = "127.0.0.1:9/none/tiny:1"
    text = TINY.read_text(encoding="utf-8").replace('start = ["python", "service.py", "{port}"]', f'image = "{name}"')
    made.write_text(text, encoding="utf-8")
    run = DockerRun(docker, tmp_path, made)
    one_error(run, 4, f"image not there: {name} cannot be pulled")
    assert run.left() == []
