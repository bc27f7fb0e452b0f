"""Two releases behind one address, as a team's own front has them: `python service.py PORT FILE [DEFECT]`.

FILE holds the candidate's share in per cent; `deploy.py` writes it. DEFECT is what the candidate does wrong.
"""

import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DICE = random.Random(1)


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    share = Path()
    defect = ""

    def do_GET(self):
        try:
            weight = int(self.share.read_text(encoding="ascii"))
        except (OSError, ValueError):
            weight = 0
        candidate = DICE.random() * 100 < weight
        status = 200
        if candidate and self.defect == "fails" and DICE.random() < 0.05:
            status = 500
        if candidate and self.defect == "slow":
            time.sleep(0.05)
        if candidate and self.defect == "silent":
            self.close_connection = True
            return
        body = b'{"item": 1}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Release", "v2" if candidate else "v1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Front.share, Front.defect = Path(sys.argv[2]), (sys.argv[3:] or [""])[0]
    Server(("127.0.0.1", int(sys.argv[1])), Front).serve_forever()
