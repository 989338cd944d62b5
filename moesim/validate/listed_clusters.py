"""The clusters' own list of measurements, which ships: every row, those with a fault as their authors say flagged."""

from dataclasses import replace

from moesim.logs import read_log
from moesim.validate.clusters_left_out import CLUSTERS
from moesim.validate.measured_rows import as_row
from moesim.validate.published_row import Row

TABLE = "clusters"


def listed_rows() -> list[Row]:
    """Return the rows as the ledger names them: table ``clusters``, key the row's own id."""
    return [
        replace(
            as_row(row, CLUSTERS.name),
            table=TABLE,
            key=row.id,
            release=row.version or "",
            source=", ".join(filter(None, (row.source, row.date))),
            flagged=row.health == "poor",
        )
        for row in read_log(CLUSTERS).rows
    ]
