"""The container engine for tests: the machine's own, and a small one that may be filled, stopped and cut off."""

import gc
import os
import shutil
import signal
import subprocess
import time
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chaos.environments.docker import DockerSettings, engine, environment
from chaos.environments.docker.labels import OWNER, RUN
from chaos.errors import ChaosError
from docker import DockerClient

DEMANDED = "CHAOS_TEST_ENGINE"  # set where an engine has to be there: then its absence is no reason to skip
ROOM = 480 << 20  # bytes of the small engine's disk: the images, what loading them takes, and a few databases
IMAGES = {variable: environment.image(DockerSettings(), key) for key, (variable, _) in environment.IMAGES.items()}


def why_not(images=environment.IMAGES):
    """'' when containers can be started, else why not."""
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client leaves a socket open when nobody answers
        try:
            client = engine.connect()
        except ChaosError as error:
            reason = f"no engine: {error.what}"
        gc.collect()
    if reason:
        return reason
    for key in images:
        name = environment.image(DockerSettings(), key)
        try:
            client.images.get(name)
        except Exception as error:
            if "ImageNotFound" not in type(error).__name__:
                raise
            return f"no image {name} (python docker/build.py makes one, and prints what to set)"
    client.close()
    return ""


@pytest.fixture(scope="session")
def docker():
    """A client of the engine; where there is none the test is skipped, saying so."""
    if reason := why_not():
        (pytest.fail if os.environ.get(DEMANDED) else pytest.skip)(reason)
    client = engine.connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def small(docker, tmp_path_factory):
    """An engine of our own that holds the images: (address, its process, the directory that its disk is in, a client).

    For tests that leave behind what any other run's sweep would take away, and for those that break an engine.
    """
    place = tmp_path_factory.mktemp("engine")
    with small_engine(place) as (address, daemon), closing(DockerClient(base_url=address)) as client:
        for name in IMAGES.values():
            if "caddy" not in name:
                load(client, docker, name)
        # The edge's own image is as large as all the rest, and no test here comes to start it.
        client.images.get(IMAGES["CHAOS_TOXIPROXY_IMAGE"]).tag("edge", "1")
        yield address, daemon, place, client


def ours(client, run_id=None):
    """Containers, networks and volumes that are labelled as ours, of one run or of any, as text."""
    which = {"label": f"{RUN}={run_id}" if run_id else OWNER}
    found = [f"container {one.name}" for one in client.containers.list(all=True, filters=which, ignore_removed=True)]
    found += [f"network {one.name}" for one in client.networks.list(filters=which)]
    return found + [f"volume {one.name}" for one in client.volumes.list(filters=which)]


def volumes(client, run_id):
    """The volumes that a run's containers have now: an image's anonymous ones carry no label of ours."""
    which = {"label": f"{RUN}={run_id}"}
    found = client.containers.list(all=True, filters=which, ignore_removed=True)
    return {mount["Name"] for one in found for mount in one.attrs["Mounts"] if mount["Type"] == "volume"}


def those_left(client, names):
    """Which of these volumes the engine still has."""
    return sorted(names & {one.name for one in client.volumes.list()})


def mounted_below(place):
    """The disk, and the network namespace that a daemon keeps for containers of the host's network; the innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((one for one in mounts if one.startswith(f"{place}/")), reverse=True)


@contextmanager
def small_engine(place):
    """A daemon of our own on a disk of `ROOM` bytes, with addresses for one network; DOCKER_HOST of it, and its process."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        (pytest.fail if os.environ.get(DEMANDED) else pytest.skip)("starting an engine of its own takes root and dockerd")
    disk, socket = Path(place) / "disk", Path(place) / "engine.sock"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(disk)], check=True)
    argv = ["dockerd", "--data-root", str(disk), "--exec-root", str(Path(place) / "exec"), "-H", f"unix://{socket}"]
    argv += ["--bridge", "none", "--iptables=false", "--pidfile", str(Path(place) / "pid")]
    argv += ["--default-address-pool", "base=10.213.77.0/28,size=28"]
    with (Path(place) / "engine.log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists() and time.monotonic() < deadline and daemon.poll() is None:
            time.sleep(0.1)
        assert socket.exists(), (Path(place) / "engine.log").read_text()[-2000:]
        yield f"unix://{socket}", daemon
    finally:
        daemon.send_signal(signal.SIGCONT)
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        for _ in range(50):
            if not (left := mounted_below(place)):
                break
            subprocess.run(["umount", *left], capture_output=True, check=False)
            time.sleep(0.1)
        assert not mounted_below(place)


def load(client, source, name):
    """An image of one engine into another."""
    with Path(f"/tmp/chaos-gate-image-{os.getpid()}.tar").open("w+b") as file:
        Path(file.name).unlink()
        file.writelines(source.images.get(name).save(named=True))
        file.seek(0)
        client.images.load(file)
