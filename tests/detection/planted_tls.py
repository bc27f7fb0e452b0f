"""The reference service with one thing wrong about TLS: `python planted_tls.py DEFECT PORT`. Nothing of it is copied.

libpq cannot be made to check half of a certificate. A service with a check of its own can be, and such services exist: `homemade`
looks at what the server presents over one connection, and then connects without verification.
"""

import asyncio
import ssl
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch

import psycopg
from cryptography import x509
from cryptography.x509.oid import NameOID
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.backoff import full_jitter
from chaos.targets.reference.connecting import connector, parameters
from chaos.targets.reference.database import Database
from chaos.targets.reference.pool import Pool
from chaos.targets.reference.settings import Settings

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, x509_vfy.h
SELF_SIGNED = 18  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
UNVERIFIED = {"sslmode": "require", "sslrootcert": "", "channel_binding": "prefer"}
PLAIN = {"sslmode": "disable", "channel_binding": "disable"}
DEFECTS = {}


def defect(made):
    """Register a defect under its function's name: Settings -> Application."""
    DEFECTS[made.__name__] = made
    return made


# -- what is passed to libpq ------------------------------------------------------------------------------------------------------


@defect
def name_not_checked(settings):
    return build_app(settings, connect=connector(settings, change={"sslmode": "verify-ca"}))


@defect
def nothing_verified(settings):
    return build_app(settings, connect=connector(settings, change=UNVERIFIED))


@defect
def plaintext_where_there_is_no_tls(settings):
    """sslmode=prefer, and so no authority."""
    return build_app(settings, connect=connector(settings, change={**UNVERIFIED, "sslmode": "prefer"}))


@defect
def any_authentication_will_do(settings):
    """No require_auth: an impostor that has passed TLS is told the password when it asks for it."""
    return build_app(settings, connect=connector(settings, change={"require_auth": "password,md5,scram-sha-256"}))


# -- what is done when it did not work --------------------------------------------------------------------------------------------


def _second_try(settings, words, change):
    """Strict first; after an error that says one of `words`, once more with something changed."""
    strict, loose = connector(settings), connector(settings, change=change)

    async def connect():
        try:
            return await strict()
        except Exception as error:
            if any(word in str(error) for word in words):
                return await loose()
            raise

    return build_app(settings, connect=connect)


@defect
def plaintext_after_a_bad_certificate(settings):
    """Not after an N: there libpq says something else."""
    return _second_try(settings, ["certificate"], PLAIN)


@defect
def plaintext_after_an_n(settings):
    return _second_try(settings, ["does not support SSL"], PLAIN)


@defect
def plaintext_after_an_error_packet(settings):
    return _second_try(settings, ["error response", "SSL exchange"], PLAIN)


@defect
def plaintext_after_a_broken_handshake(settings):
    return _second_try(settings, ["SSL SYSCALL", "wrong version number", "unexpected eof", "reset by peer"], PLAIN)


@defect
def unverified_at_the_second_failure(settings):
    strict, loose, failures = connector(settings), connector(settings, change=UNVERIFIED), [0]

    async def connect():
        try:
            link = await (loose if failures[0] >= 2 else strict)()
        except Exception:
            failures[0] += 1
            raise
        failures[0] = 0
        return link

    return build_app(settings, connect=connect)


@defect
def verified_at_start_only(settings):
    first, later, made = connector(settings), connector(settings, change=UNVERIFIED), []

    async def connect():
        link = await (later if len(made) >= settings.pool_size else first)()
        made.append(True)
        return link

    return build_app(settings, connect=connect)


@defect
def waits_in_a_stalled_handshake(settings):
    """No deadline for a connection, and none for those who wait for one."""
    return build_app(replace(settings, connect_timeout=60, acquire_timeout=60.0, deadline=60.0))


# -- who else connects ------------------------------------------------------------------------------------------------------------


def _unverified(settings):
    return make_conninfo(settings.database_url, **{**parameters(settings), **UNVERIFIED})


@defect
def worker_unverified(settings):
    """A thread of its own, with a connection of its own."""

    def work():
        while True:
            with suppress(psycopg.Error), psycopg.connect(_unverified(settings), autocommit=True) as session:
                while True:
                    session.execute("SELECT 1")
                    time.sleep(0.1)
            time.sleep(0.1)

    threading.Thread(target=work, daemon=True).start()
    return build_app(settings)


@defect
def migration_unverified(settings):
    """Whatever is done once, before the service is up."""
    with suppress(psycopg.Error), psycopg.connect(_unverified(settings)) as session:
        session.execute("SELECT 1")
    return build_app(settings)


@defect
def second_pool_unverified(settings):
    """Reads have a pool of their own."""

    class Two(Database):
        async def run(self, unit, *, repeatable):
            if not hasattr(self, "reads"):
                pool = Pool(
                    connect=connector(settings, change=UNVERIFIED),
                    delay=lambda failures: full_jitter(failures, base=settings.reconnect_base, cap=settings.reconnect_cap),
                    observer=self.pool.observer,
                )
                pool.open()
                self.reads = Database(settings=settings, pool=pool, retried=self.retried)
            return await (self.reads.run if repeatable else super().run)(unit, repeatable=repeatable)

    return build_app(settings, database=Two)


@defect
def cancels_in_plaintext(settings):
    """PQcancel, for what takes longer than a third of a second."""

    class Impatient(Database):
        async def _work(self, unit, session):
            timer = asyncio.get_running_loop().call_later(0.3, session.link.connection.cancel)
            try:
                return await super()._work(unit, session)
            finally:
                timer.cancel()

    return build_app(settings, database=Impatient)


# -- a check of one's own ---------------------------------------------------------------------------------------------------------


async def _presented(settings, context):
    """The certificate of whoever answers, as far as `context` has nothing against it."""
    where = conninfo_to_dict(settings.database_url)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(where["port"]))
    try:
        writer.write(SSL_REQUEST)
        if await reader.readexactly(1) != b"S":
            raise OSError("no TLS")
        await writer.start_tls(context, server_hostname=where["host"])
        return x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
    finally:
        writer.transport.abort()


def _context(settings, *, chain=True, name=True):
    context = ssl.create_default_context(cafile=conninfo_to_dict(settings.database_url)["sslrootcert"])
    context.check_hostname = name
    context.verify_mode = ssl.CERT_REQUIRED if chain else ssl.CERT_NONE
    return context


def homemade(settings, context, accepts):
    loose, host = connector(settings, change=UNVERIFIED), conninfo_to_dict(settings.database_url)["host"]

    async def connect():
        async with asyncio.timeout(2):
            certificate = await _presented(settings, context)
        if not accepts(certificate, host):
            raise psycopg.OperationalError("this is not the server's certificate")
        return await loose()

    return build_app(settings, connect=connect)


def _names(certificate):
    with suppress(x509.ExtensionNotFound):
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    return []


def _common_name(certificate):
    return [item.value for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


@defect
def expiry_ignored(settings):
    context = _context(settings)
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)
    return homemade(settings, context, lambda _certificate, _host: True)


@defect
def any_authority_trusted(settings):
    """The name is checked, the signature is not."""
    return homemade(settings, _context(settings, chain=False, name=False), lambda one, host: host in _names(one))


@defect
def wildcards_match_anything(settings):
    def accepts(certificate, host):
        return any(fnmatch(host, name) for name in _names(certificate))

    return homemade(settings, _context(settings, name=False), accepts)


@defect
def common_name_although_there_are_names(settings):
    def accepts(certificate, host):
        return host in [*_common_name(certificate), *_names(certificate)]

    return homemade(settings, _context(settings, name=False), accepts)


@defect
def names_end_at_a_nul(settings):
    def accepts(certificate, host):
        return any(name.partition("\0")[0] == host for name in _names(certificate))

    return homemade(settings, _context(settings, name=False), accepts)


@defect
def self_signed_accepted(settings):
    """For the development machine, it said."""
    strict, loose = connector(settings), connector(settings, change=UNVERIFIED)

    async def connect():
        try:
            async with asyncio.timeout(2):
                await _presented(settings, _context(settings))
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == SELF_SIGNED:
                return await loose()
        return await strict()

    return build_app(settings, connect=connect)


if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve({**DEFECTS, "none": build_app}[sys.argv[1]](made), made))
