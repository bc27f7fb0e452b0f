"""`python -m chaos.certs DIR`: write every certificate of the zoo to look at, and print an index."""

from __future__ import annotations

import sys
from pathlib import Path

from chaos.certs.authority import Authority
from chaos.certs.zoo import Zoo
from chaos.errors import ChaosError


def main(arguments: list[str]) -> int:
    """Exit status: 0, or that of the error."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write("usage: python -m chaos.certs DIR\n")
        return 2
    try:
        zoo = Zoo.load()
        authority = Authority.create(Path(arguments[0]), zoo=zoo)
        identities = [authority.issue(entry) for entry in zoo.entries]
        authority.crl()
        authority.crl(stale=True)
    except ChaosError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    width = max(len(entry.name) for entry in zoo.entries)
    sys.stdout.write(f"{'row':15}  {'certificate':{width}}  {'must':7}  {'sha-256':16}  why\n")
    for entry, identity in zip(zoo.entries, identities, strict=True):
        sys.stdout.write(f"{entry.row:15}  {entry.name:{width}}  {entry.must:7}  {identity.fingerprint[:16]}  {entry.why}\n")
    where = authority.directory / "identities"
    sys.stdout.write(f"{len(identities)} certificates in {where}, trusted root {authority.ca_file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
