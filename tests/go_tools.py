"""Linters of what is exported, that are in no package: built from the Go module proxy into the cache, once, for tests only.

amtool takes two minutes of a core; Argo's, five minutes and 3 GB of room.
"""

import re
import shutil
import subprocess

from chaos.environments.local import go_module
from chaos.environments.local.cache import lock, user_cache

AMTOOL = go_module.Part(
    name="amtool",
    module="github.com/prometheus/alertmanager",
    version="0.35.0",
    sum="h1:nbXMjr+P2JaoFd7aHNDxKifEwTPN+TWxM0gNPonuH5w=",
    oldest_go=(1, 26),
    remedy="put amtool on PATH (Debian: apt-get install prometheus-alertmanager), or make the network reachable",
    takes="once, about 2 minutes",
    room=" (1 GB)",
)
ARGO = go_module.Part(
    name="Argo Rollouts' kubectl plugin",
    module="github.com/argoproj/argo-rollouts",
    version="1.8.4",  # the newest that Go 1.26.8 builds
    sum="h1:yRoN6/mNtb9H2VHhL09ZvF3ZfajerOrKB3EhgIGoz6c=",
    oldest_go=(1, 23),
    remedy="make the network reachable",
    takes="once, about 5 minutes",
    room=" (3 GB)",
)


def _version(binary):
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return found[1] if found else ""


def amtool():
    """In the cache, or built."""
    kept = user_cache() / f"amtool-{AMTOOL.version}"
    with lock(user_cache() / ".lock-amtool"):
        if not kept.is_file():
            with go_module.workshop(AMTOOL, print) as (go, room):
                stamp = "github.com/prometheus/common/version.Version"
                go_module.keep(go_module.install(AMTOOL, go, room, package="cmd/amtool", stamp=stamp, version=_version), kept)
    return kept


def argo():
    """A directory in the cache, with the plugin and the definitions of Argo's resources (crds/*.yaml)."""
    kept = user_cache() / f"argo-rollouts-{ARGO.version}"
    with lock(user_cache() / ".lock-argo-rollouts"):
        if not kept.is_dir():
            with go_module.workshop(ARGO, print) as (go, room):
                source = go_module.fetch(ARGO, go, room)
                made = room / "made"
                shutil.copytree(source / "manifests" / "crds", made / "crds")
                argv = [
                    go,
                    "build",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    "-s -w",
                    "-o",
                    made,
                    "./cmd/kubectl-argo-rollouts",
                ]
                subprocess.run(argv, env=go_module.settings(room), cwd=source, check=True)
                making = kept.with_name(f".{kept.name}")
                shutil.rmtree(making, ignore_errors=True)
                shutil.copytree(made, making)
                making.rename(kept)
    return kept
