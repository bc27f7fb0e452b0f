"""A real PostgreSQL for the tests of the wire, without the rest of an environment: TLS only, SCRAM only, our own authority."""

import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.certs import Authority
from chaos.environments.local import installation, template
from chaos.environments.local.environment import _home
from chaos.environments.local.postgres import Postgres
from chaos.processes import Reaper


@dataclass(frozen=True)
class Server:
    postgres: Postgres
    authority: Authority

    def conninfo(self, port, *, mode="verify-full", host="localhost", **more):
        """As the application, through `port`; a time-out so that nothing hangs for long."""
        p = self.postgres
        values = {
            "host": host,
            "hostaddr": "127.0.0.1",
            "port": port,
            "user": p.app_user,
            "password": p.app_password,
            "dbname": p.app_database,
            "sslmode": mode,
            "sslrootcert": self.authority.ca_file,
            "gssencmode": "disable",
            "connect_timeout": 10,
            **more,
        }
        return " ".join(f"{key}={value}" for key, value in values.items() if value is not None)


@contextmanager
def running(directory: Path):
    assert threading.current_thread() is threading.main_thread()
    with Reaper("wire-tests") as reaper:
        found = installation.find(None)
        ready = template.ensure(found, reaper)
        home = reaper.own(_home(found))
        try:
            copying = template.copy(ready, home / "data")
            assert copying.wait() == 0
            copying.communicate()
            authority = Authority.create(directory / "certificates")
            identity = authority.issue("valid")
            postgres = Postgres(
                installation=found, reaper=reaper, home=home, log=directory / "postgres.log", credentials=ready.credentials,
                ca_file=authority.ca_file, fsync=False,
            )  # fmt: skip
            postgres.install_identity(identity.chain_file, identity.key_file)
            postgres.launch()
            postgres.wait()
            try:
                yield Server(postgres, authority)
            finally:
                postgres.stop("immediate")
        finally:
            shutil.rmtree(home, ignore_errors=True)
            reaper.disown(home)
