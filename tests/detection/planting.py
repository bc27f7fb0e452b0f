"""What every file of planted defects shares: they are registered under their functions' names, and one of them is served."""

import argparse
from dataclasses import replace

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.settings import Settings


class Defects(dict):
    """Name -> Settings -> Application."""

    def add(self, made):
        """Register a defect under its function's name."""
        self[made.__name__] = made
        return made

    def serve(self, description):
        """The reference service with the defect that the command line names ('none': as it is), at `--port`; its exit status."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("defect", choices=[*self, "none"])
        parser.add_argument("--port", type=int, required=True)
        given = parser.parse_args()
        settings = replace(Settings.from_environment(), port=given.port)
        return serve({**self, "none": build_app}[given.defect](settings), settings)
