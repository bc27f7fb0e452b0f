"""A rig in this process on the service of planted_rollback.py: drills as `chaos-gate rollback --drill` runs them, with parts replaced."""

import sys
from functools import partial
from pathlib import Path

from chaos import experiment
from chaos.cases.restore import RESTORE
from chaos.checks import Limits, judge
from chaos.config import load
from chaos.rig import Rig
from chaos.rollout import deploying, rehearsal
from chaos.rollout.releases import DEPLOY, DRILLS, FAMILY

SERVICE = Path(__file__).with_name("planted_rollback.py")
COMMAND = (sys.executable, "-m", "chaos")
TOML = """
[target]
name = "notes"
start = [{python}, {service}, "serve", "{{port}}"]
setup = [[{python}, {service}, "setup"]]
env = {{ DATABASE_URL = "{{database_url}}", RELEASE_FILE = "{{work_dir}}/release", MODE = "{mode}" }}
live = "/healthz"
[target.database]
recovery = 5
[[target.read]]
path = "/notes/1"
[[target.write]]
method = "POST"
path = "/notes"
json = {{ title = "{{unique}}" }}
read_back = "/notes?title={{unique}}"
"""
CANDIDATE = '[target.candidate]\nsetup = [[{python}, {service}, "migrate", "{what}"]]\n'
TOOLING = (
    '[target.deploy]\ndeploy = [{python}, {service}, "deploy", "{{version}}"]\nrollback = [{python}, {service}, "rollback"]\n'
    'version_header = "X-Release"\n'
)


def written(place, mode="", migration="", *, tooling=False):
    """chaos.toml of the service, with the candidate's migration, or with the team's own tooling."""
    known = {"python": f'"{sys.executable}"', "service": f'"{SERVICE}"', "mode": mode, "what": migration}
    text = TOML + (CANDIDATE if migration else "") + (TOOLING if tooling else "")
    file = place / "chaos.toml"
    file.write_text(text.format(**known), encoding="utf-8")
    return file


class Drills:
    """One rig; each drill's findings by their check's id."""

    def __init__(self, place, mode="", migration="", *, tooling=False, config=None):
        config = load(config or written(place, mode, migration, tooling=tooling))
        self.rig = Rig(config=config, run_id=f"rb{abs(hash(place)) % 10**8}", run_dir=place / "run", worker="main", seed=1)
        self.rig.run_dir.mkdir()
        self.limits = Limits(recovery=5, fail_fast=5)
        try:
            self.rig.start()
        except BaseException:
            self.rig.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.rig.close()

    def restore(self, kind):
        case = next(one for one in RESTORE if one.what == kind)
        return self._judged(experiment.run(self.rig, case))

    def roll_back(self, name, command=COMMAND):
        drill = next(one for one in (*DRILLS, DEPLOY) if one.id == name)
        stage = rehearsal.Stage(self.rig, command)
        runner = partial(rehearsal.run, drill=drill) if drill is not DEPLOY else deploying.run
        try:
            return self._judged(experiment.run(self.rig, drill.case, {FAMILY: partial(runner, stage=stage)}))
        finally:
            stage.end()

    def _judged(self, history):
        return {one.check: one for one in judge(history, self.limits)}
