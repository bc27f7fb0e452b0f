"""The certificate rotation SOP as data: the commands of docs/certificate-rotation-sop.md, letter by letter.

The document shows them to people, the suite carries them out under load (`chaos.rollout.rotation`), and a test sees that both are
the same. They are for a POSIX shell with psql and chaos-gate on PATH, and take these variables:

    SERVER             host:port of PostgreSQL, as clients reach it
    ADMIN              a libpq connection string of an administrator
    CERT_FILE KEY_FILE what PostgreSQL reads (SHOW ssl_cert_file, ssl_key_file)
    NEW_CERT NEW_KEY   what it is to serve: the leaf first, then its intermediates; and the leaf's key
    CA_FILE            the clients' bundle (sslrootcert)
    OLD_CA NEW_CA      the roots before and after
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `commands` for `sh -eu`, '' where the step is the team's own tooling (a rolling restart)."""

    id: str
    title: str
    commands: str = ""


STEPS = {
    step.id: step
    for step in (
        Step(
            "look",
            "See that all is well before anything is changed",
            'chaos-gate export certificates --server "$SERVER" --file "$CA_FILE" --expect "$CERT_FILE"',
        ),
        Step(
            "keep",
            "Keep what is there, for the way back",
            'cp -p "$KEY_FILE" "$KEY_FILE.kept"\ncp -p "$CERT_FILE" "$CERT_FILE.kept"',
        ),
        Step(
            "install",
            "Put the new key and certificate in place, with the owner and mode of the old ones",
            'cp -p "$KEY_FILE" "$KEY_FILE.new"\ncat "$NEW_KEY" > "$KEY_FILE.new"\n'
            'cp -p "$CERT_FILE" "$CERT_FILE.new"\ncat "$NEW_CERT" > "$CERT_FILE.new"\n'
            'mv "$KEY_FILE.new" "$KEY_FILE"\nmv "$CERT_FILE.new" "$CERT_FILE"',
        ),
        Step("reload", "Have PostgreSQL read them", "psql \"$ADMIN\" -qAtc 'SELECT pg_reload_conf()'"),
        Step(
            "verify",
            "See that what is served is what is on the disk",
            'chaos-gate export certificates --server "$SERVER" --expect "$CERT_FILE" --wait "${WAIT:-5}"',
        ),
        Step(
            "back-out",
            "Go back to what was kept, when it is not",
            'cp -p "$KEY_FILE.kept" "$KEY_FILE"\ncp -p "$CERT_FILE.kept" "$CERT_FILE"',
        ),
        Step(
            "bundle-both",
            "Give clients a bundle with both roots",
            'cat "$OLD_CA" "$NEW_CA" > "$CA_FILE.new"\nmv "$CA_FILE.new" "$CA_FILE"',
        ),
        Step("restart", "Restart every client, one instance after the other, behind the load balancer"),
        Step(
            "bundle-new",
            "Withdraw the old root",
            'cat "$NEW_CA" > "$CA_FILE.new"\nmv "$CA_FILE.new" "$CA_FILE"',
        ),
    )
}
