"""The aiohttp and asyncpg service with one thing wrong about TLS: `python planted_asyncpg.py DEFECT PORT`.

Its own file is run as it is; what it gives asyncpg.connect is changed on the way.
"""

import os
import ssl
import sys
import warnings
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

SERVICE = Path(__file__).parent / "targets" / "aiohttp_asyncpg"
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, x509_vfy.h


def verified():
    query = parse_qs(urlsplit(os.environ["DATABASE_URL"]).query)
    context = ssl.create_default_context(cafile=query["sslrootcert"][0])
    return context


def nothing_verified(context):
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def name_not_checked(context):
    context.check_hostname = False


def expiry_ignored(context):
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)


def old_versions_allowed(context):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")


def anonymous_ciphers_allowed(context):
    """Nobody is verified where nobody presents anything."""
    context.set_ciphers("ALL:@SECLEVEL=0")


DEFECTS = {
    one.__name__: one
    for one in (nothing_verified, name_not_checked, expiry_ignored, old_versions_allowed, anonymous_ciphers_allowed)
}

if __name__ == "__main__":
    made, real = verified(), asyncpg.connect
    DEFECTS.get(sys.argv[1], lambda _context: None)(made)

    async def connect(*args, **options):
        return await real(*args, **{**options, "ssl": made})

    asyncpg.connect = connect
    sys.path.insert(0, str(SERVICE))
    import service

    service.web.run_app(
        service.build(), host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None, shutdown_timeout=0.5
    )
