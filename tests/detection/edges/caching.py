"""An edge with a cache: Caddy for TLS, then this. `python caching.py keyed|unkeyed`.

unkeyed: a Link is built from the client's X-Forwarded-Host, and that header is in no key, so the next one gets it too.
keyed: the link is built from Host, which is in the key: the healthy one.
"""

import http.client
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODE = sys.argv[1]
ORIGIN = int(os.environ["ORIGIN_PORT"])
KEPT = {}
HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Cache(BaseHTTPRequestHandler):
    """GET and 200 are kept, by Host and path."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        key = (self.headers["host"], self.path)
        found = KEPT.get(key) if self.command == "GET" else None
        if found is None:
            found = self.fetched()
            if self.command == "GET" and found[0] == 200:
                KEPT.setdefault(key, found)
        status, headers, body = found
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fetched(self):
        said = [(name, value) for name, value in self.headers.items() if name.lower() not in {*HOP, "x-forwarded-host"}]
        origin = http.client.HTTPConnection("127.0.0.1", ORIGIN, timeout=10)
        origin.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in [*said, ("X-Forwarded-Host", self.headers["host"]), ("Connection", "close")]:
            origin.putheader(name, value)
        origin.endheaders()
        answer = origin.getresponse()
        body = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
        named = self.headers["x-forwarded-host" if MODE == "unkeyed" else "host"] or self.headers["host"]
        if answer.status == 200:
            headers.append(("Link", f"<https://{named}/api/items>; rel=collection"))
        origin.close()
        return answer.status, headers, body

    def log_message(self, *_):
        """Say nothing."""

    do_GET = do_HEAD = do_POST = do_OPTIONS = answer  # noqa: N815  (the names that http.server looks for)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cache)
    environment = {**os.environ, "ORIGIN_PORT": str(server.server_port), "EDGE_DEFECT": "believes_every_client"}
    config = str(Path(__file__).with_name("Caddyfile"))
    subprocess.Popen(["caddy", "run", "--adapter", "caddyfile", "--config", config], env=environment)
    server.serve_forever()
