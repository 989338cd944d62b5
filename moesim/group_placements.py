"""Names of the placements of expert-parallel groups on a cluster, for the scenario."""

from typing import Literal

GroupPlacement = Literal["packed", "striped", "rails", "random"]
