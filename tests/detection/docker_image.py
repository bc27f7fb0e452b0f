"""The Go service of the detection targets as an image: a static program and nothing else."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from chaos.environments.docker.engine import connect
from tests.detection.conftest import TARGETS

NAME = "chaos-gate-test/parcels:1"
DOCKERFILE = b"""FROM scratch
COPY parcels /parcels
USER 10001:10001
ENTRYPOINT ["/parcels"]
"""


def build(place):
    """Its name. It listens on every address, as what is reached through a published port has to."""
    source, program = Path(place) / "source", Path(place) / "parcels"
    shutil.copytree(TARGETS / "go_pgx", source)
    text = (source / "main.go").read_text(encoding="utf-8")
    assert '"127.0.0.1:"' in text
    (source / "main.go").write_text(text.replace('"127.0.0.1:"', '"0.0.0.0:"'), encoding="utf-8")
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw"}
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=source, env=env, check=True)
    room = io.BytesIO()
    with tarfile.open(fileobj=room, mode="w") as context:
        context.add(program, "parcels")
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(DOCKERFILE)
        context.addfile(entry, io.BytesIO(DOCKERFILE))
    room.seek(0)
    connect().images.build(fileobj=room, custom_context=True, tag=NAME, rm=True, forcerm=True)
    return NAME


def config(place, image, kind):
    """Its chaos.toml, with the image in place of the command."""
    text = (TARGETS / "go_pgx" / "chaos.toml").read_text(encoding="utf-8")
    setup = 'setup = [["go", "build", "-o", "{work_dir}/parcels", "."], ["{work_dir}/parcels", "migrate"]]'
    for old, new in (
        ('start = ["{work_dir}/parcels"]', f'image = "{image}"'),
        (setup, 'setup = [["/parcels", "migrate"]]'),
    ):
        assert old in text
        text = text.replace(old, new)
    made = Path(place) / "chaos.toml"
    made.write_text(f'{text}\n[environment]\ndocker_network = "{kind}"\n', encoding="utf-8")
    return made
