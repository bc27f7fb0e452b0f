"""Evidence that somebody changed does not verify, and what they changed is named: a real bundle, mutated in every way that we know."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chaos import verify
from tests.detection import tampering

ROOT = Path(__file__).parents[2]
ONLY = ("network.refused.pooled", "C1.reconnect")


def keys(directory):
    """(private, public) files of a fresh key."""
    key = Ed25519PrivateKey.generate()
    private, public = directory / "key.pem", directory / "public.pem"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(bundle, public key) of a real run that signed at its end, as a pipeline's does."""
    place = tmp_path_factory.mktemp("attested")
    private, public = keys(place)
    command = [sys.executable, "-m", "chaos", "run", "--seed", "1", "-n", "1"]
    command += [f"--evidence={place / 'bundle'}", *(f"--only={name}" for name in ONLY)]
    done = subprocess.run(
        command, env={**os.environ, "CHAOS_SIGNING_KEY": str(private)}, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "bundle", public


def test_each_change_is_caught_and_named(real, tmp_path):
    bundle, public = real
    whole = verify.verify(bundle, public)
    assert not whole.problems, whole.as_text()
    assert "which was given" in whole.origin
    missed, unnamed, kinds, begun = [], [], Counter(), time.monotonic()
    for number, mutation in enumerate(tampering.mutations(bundle)):
        directory = tampering.tampered(bundle, mutation, tmp_path / str(number))
        report = verify.verify(directory, public)
        kinds[mutation.name.split(":")[0].split(".")[0]] += 1
        if not report.problems:
            missed.append(mutation.name)
        # a digest that is another only says which file: what in it, the other steps say
        places = [f"{one.where}: {one.what}" for step in report.steps for one in step.problems]
        if not any(place in text for place in mutation.places for text in places):
            unnamed.append((mutation.name, places[:4]))
        tampering.clear(tmp_path / str(number))
    assert not missed
    assert not unnamed
    sys.stdout.write(f"{kinds.total()} mutations in {time.monotonic() - begun:.1f} s: {dict(kinds)}\n")  # pytest -s shows it
    assert kinds.total() >= 200, kinds


@pytest.mark.skipif(
    os.environ.get("CHAOS_DETECTION") != "all", reason="a fresh installation, a minute or two: CHAOS_DETECTION=all"
)
def test_whoever_has_only_the_bundle_and_an_installation_verifies_it_offline(real, tmp_path):
    """From a wheel, in an environment of its own, elsewhere, and (where that can be had) without any network."""
    bundle, public = real
    python = tmp_path / "fresh" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)], check=True, timeout=300
    )
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True, timeout=120)
    [wheel] = tmp_path.glob("chaos_gate-*.whl")
    subprocess.run([str(python), "-m", "pip", "install", "-q", str(wheel)], check=True, timeout=600)
    alone = ["unshare", "--net"] if subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0 else []
    command = [*alone, str(python), "-m", "chaos", "verify", str(bundle), "--key", str(public)]
    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "which was given" in done.stdout
