"""The dashboards as Grafana reads them: `chaos-gate export grafana`. Drawn by Grafana's own builders (extra `export`).

https://grafana.com/docs/grafana/latest/as-code/observability-as-code/foundation-sdk/. Imported when it is needed, for it is an extra.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.errors import PartMissing
from chaos.export.dashboards import boards

if TYPE_CHECKING:
    from chaos.export.dashboards import Board, Panel
    from chaos.export.policy import Policy

WIDTH, HEIGHT = 12, 8  # of 24 columns; rows of 30 px
SOURCE = "${datasource}"


def dashboards(policy: Policy) -> dict[str, str]:
    """Uid -> JSON of a dashboard. PartMissing without the extra."""
    try:
        import grafana_foundation_sdk  # noqa: F401, PLC0415  (the extra `export`)
    except ImportError as error:
        raise PartMissing(
            "Grafana's builders are not installed", remedy="pip install 'chaos-gate[export]'", where="grafana_foundation_sdk"
        ) from error
    return {board.uid: _json(_board(board, policy)) for board in boards(policy)}


def _json(built: Any) -> str:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415

    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(built)), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _board(board: Board, policy: Policy) -> Any:
    from grafana_foundation_sdk.builders import dashboard  # noqa: PLC0415

    about = policy.header(board.title, "grafana", board.missing).replace("# ", "")
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(about.strip())
        .tags(["chaos-gate", f"policy-{policy.digest[:12]}"])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for place, panel in enumerate(board.panels):
        made = made.with_panel(_panel(panel, place))
    return made.build()


def _panel(panel: Panel, place: int) -> Any:
    from grafana_foundation_sdk.builders import common, prometheus, timeseries  # noqa: PLC0415
    from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode as Style  # noqa: PLC0415
    from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos  # noqa: PLC0415

    source = DataSourceRef(type_val="prometheus", uid=SOURCE)
    made = (
        timeseries.Panel()
        .id(place + 1)
        .title(panel.title)
        .description(panel.about)
        .datasource(source)
        .grid_pos(GridPos(x=place % 2 * WIDTH, y=place // 2 * HEIGHT, w=WIDTH, h=HEIGHT))
        .unit(panel.unit)
        .min(0)
        .fill_opacity(10)
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).range().ref_id(letter).datasource(source)
        made = made.with_target(target.legend_format(query.legend) if query.legend else target)
    if panel.limit is not None:
        style = common.GraphThresholdsStyleConfig().mode(Style.LINE)
        made = made.thresholds(_thresholds(panel.limit, falling=panel.falling)).thresholds_style(style)
    return made


def _thresholds(limit: float, *, falling: bool) -> Any:
    from grafana_foundation_sdk.builders import dashboard  # noqa: PLC0415
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode  # noqa: PLC0415

    below, above = ("red", "green") if falling else ("green", "red")
    steps = [Threshold(value=None, color=below), Threshold(value=limit, color=above)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
