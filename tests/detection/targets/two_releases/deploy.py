"""What a team deploys with: `python deploy.py FILE VERSION WEIGHT`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    place, version, weight = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    part = place.with_suffix(".part")
    part.write_text(weight if version == "candidate" else "0", encoding="ascii")
    part.replace(place)
