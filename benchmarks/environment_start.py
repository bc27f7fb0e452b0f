"""How long from nothing to the first verify-full query through a Toxiproxy proxy?

    python benchmarks/environment_start.py [-n STARTS] [--json]

Beside it, in turns and on the same machine, so that noise hits all alike: the same with a fresh `initdb` instead of the
template, and testcontainers when a container engine answers (its images must be there). Ratios are of medians.
"""

from __future__ import annotations

import argparse
import http.client
import json
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from chaos.environments.docker import DockerEnvironment, DockerSettings
from chaos.environments.docker import provide as docker
from chaos.environments.docker.environment import image
from chaos.environments.local import LocalEnvironment, provide, template
from chaos.environments.local.cache import shared_cache
from chaos.environments.local.environment import LocalSettings
from chaos.errors import ChaosError
from chaos.processes import Reaper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def proxy(api: str, upstream: str) -> int:
    """A proxy on a free port; the port."""
    with closing(http.client.HTTPConnection(api.removeprefix("http://"), timeout=10)) as connection:
        connection.request("POST", "/proxies", json.dumps({"name": "database", "listen": "127.0.0.1:0", "upstream": upstream}))
        return int(json.loads(connection.getresponse().read())["listen"].rpartition(":")[2])


@contextmanager
def no_template() -> Iterator[None]:
    """As on a machine that has none yet; the real one stays, since others may be copying it."""
    before, cache = template._FORMAT, shared_cache()  # noqa: SLF001  # no user has any use for a switch
    known = set(cache.glob("template-*"))
    template._FORMAT = secrets.token_hex(8)  # noqa: SLF001
    try:
        yield
    finally:
        template._FORMAT = before  # noqa: SLF001
        for path in set(cache.glob("template-*")) - known:
            shutil.rmtree(path)


def local() -> float:
    """Seconds of one start."""
    folder = Path(tempfile.mkdtemp())
    with Reaper("benchmark") as reaper:
        reaper.own(folder)
        started = time.monotonic()
        environment = LocalEnvironment(reaper=reaper, run_dir=folder)
        environment.start()
        port = proxy(environment.toxiproxy_url, f"127.0.0.1:{environment.postgres.port}")
        with psycopg.connect(environment.postgres.database_url(port)) as session:
            session.execute("SELECT 1")
        seconds = time.monotonic() - started
        environment.stop()
    return seconds


def local_without_template() -> float:
    """Seconds of one start that has to make its data directory with initdb."""
    with no_template():
        return local()


_ENTRY = """
cp /tls/key.pem /tls/chain.pem /var/tmp/ && chown postgres /var/tmp/*.pem && chmod 600 /var/tmp/key.pem
exec docker-entrypoint.sh postgres -c ssl=on -c ssl_cert_file=/var/tmp/chain.pem -c ssl_key_file=/var/tmp/key.pem -c fsync=off
"""


def containers() -> float:
    """Seconds of one start of the usual two containers, with TLS added: PostgresContainer has no option for it."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # heavy
    from testcontainers.core.network import Network  # noqa: PLC0415

    from chaos.certs import Authority  # noqa: PLC0415

    testcontainers_config.ryuk_disabled = True  # in its favour: one container less
    folder = Path(tempfile.mkdtemp())
    started = time.monotonic()
    authority = Authority.create(folder)
    identity = authority.issue("valid")
    for source, name in ((identity.chain_file, "chain.pem"), (identity.key_file, "key.pem")):
        shutil.copyfile(source, folder / name)
    try:
        with (
            Network() as network,
            PostgresContainer(image(DockerSettings(), "postgres_image"), driver=None)
            .with_network(network)
            .with_network_aliases("database")
            .with_volume_mapping(str(folder), "/tls")
            .with_kwargs(entrypoint=["/bin/sh", "-c", _ENTRY]) as postgres,
            DockerContainer(image(DockerSettings(), "toxiproxy_image"))
            .with_network(network)
            .with_exposed_ports(8474, 5433) as toxiproxy,
        ):
            api = f"{toxiproxy.get_container_host_ip()}:{toxiproxy.get_exposed_port(8474)}"
            deadline = time.monotonic() + 30
            while True:
                try:
                    with closing(http.client.HTTPConnection(api, timeout=5)) as connection:
                        body = {"name": "database", "listen": "0.0.0.0:5433", "upstream": "database:5432"}
                        connection.request("POST", "/proxies", json.dumps(body))
                        connection.getresponse().read()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
            place = f"host=localhost port={toxiproxy.get_exposed_port(5433)} sslmode=verify-full sslrootcert={authority.ca_file}"
            login = f"user={postgres.username} password={postgres.password} dbname={postgres.dbname}"
            with psycopg.connect(f"{place} {login}") as session:
                session.execute("SELECT 1")
            return time.monotonic() - started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def backend() -> float:
    """Seconds of one start of our own docker backend."""
    folder = Path(tempfile.mkdtemp())
    with Reaper("benchmark") as reaper:
        reaper.own(folder)
        started = time.monotonic()
        environment = DockerEnvironment(reaper=reaper, run_dir=folder, run_id="benchmark")
        environment.start()
        port = proxy(environment.toxiproxy_url, f"127.0.0.1:{environment.postgres.port}")
        with psycopg.connect(environment.postgres.database_url(port)) as session:
            session.execute("SELECT 1")
        seconds = time.monotonic() - started
        environment.stop()
    return seconds


def why_not() -> str:
    """Why there is no container engine to compare with; '' when there is."""
    try:
        docker(DockerSettings(), None)
    except ChaosError as error:
        return error.what
    return ""


def measure(kinds: dict[str, Callable[[], float]], starts: int) -> dict[str, dict[str, float | int]]:
    """By kind, in turns: n, median, lowest and highest seconds."""
    seen: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(starts):
        for name, start in kinds.items():
            seen[name].append(start())
    return {
        name: {
            "n": len(all_),
            "median": round(statistics.median(all_), 3),
            "min": round(min(all_), 3),
            "max": round(max(all_), 3),
        }
        for name, all_ in seen.items()
    }


def main() -> int:
    """Measures and prints; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", dest="starts", type=int, default=9, help="starts of each kind (default: 9)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    provide(LocalSettings(), say=lambda text: print(text, file=sys.stderr))
    local()  # imports, template and page cache are warm from here on: what a second worker or run finds
    kinds: dict[str, Callable[[], float]] = {"initdb": local_without_template, "template": local}
    if not (reason := why_not()):
        kinds = {"testcontainers": containers, "docker backend": backend, **kinds}
    results = measure(kinds, options.starts)
    ratios = {name: round(results[name]["median"] / results["template"]["median"], 2) for name in results if name != "template"}
    if options.json:
        print(json.dumps({"benchmark": "environment_start", "unit": "s", "results": results, "ratio_to_template": ratios}))
        return 0
    print("seconds from nothing to the first verify-full query through a proxy")
    for name, row in results.items():
        times = f"{ratios[name]:5.2f} times the template's" if name in ratios else ""
        print(f"  {name:14} median {row['median']:.3f}  ({row['min']:.3f} to {row['max']:.3f}, n={row['n']})  {times}")
    if "testcontainers" not in results:
        print(f"  compared with a fresh initdb only: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
