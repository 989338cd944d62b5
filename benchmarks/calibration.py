"""``calibrate`` on four rows of a cluster that its start was not fitted on: draws of four, judged on the other rows.

    python -m benchmarks.calibration --reference DIR --draws 50      # a quarter of an hour

Each cluster of six healthy rows or more of one library and transport is left out of the fit over clusters; what the
others give is the start. Printed are the medians over the draws of the median error and of the ninth decile, in per
cent, before and after.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from moesim.traffic import gpu_ports, gpu_steps, transport_steps
from moesim.validate import refit
from moesim.validate.extracts import extract_rows
from moesim.validate.fit_constants import log_error
from moesim.validate.ledger import read_ledger
from moesim.validate.published import published_rows
from moesim.validate.row_simulation import constants_from, simulate_row
from refit.population import as_set, solve
from refit.population_fit import cluster_rows, populations
from refit.population_plan import PLANS

FEWEST, DRAWN = 6, 4


def groups_of(rows):
    """Rows of the clusters' list by cluster and transport; those inside a node count to the cluster's transport."""
    mine = [row for row in rows if row.table == "clusters"]
    across = {row.cluster: row.transport for row in mine if row.nodes > 1}
    found = defaultdict(list)
    for row in mine:
        found[row.cluster, row.transport if row.nodes > 1 else across.get(row.cluster, row.transport)].append(row)
    return {key: group for key, group in found.items() if len(group) >= FEWEST}


def start_without(population, solution, cluster, row, transport):
    """The set of the other clusters, for a row's GPU and ports."""
    others = [index for index, one in enumerate(population.rows) if one.cluster != cluster]
    made = as_set(population, solve(population, others, begin=solution, most_rounds=5), "others", "others", 1.0)
    nvlink, nic, sms = gpu_ports(row.gpu)
    made = made.with_ports(nvlink, row.nic_peak or nic)
    return made.on(row.gpu, gpu_steps(row.gpu), transport_steps(row.gpu, transport), sms)


def errors(constants, rows):
    """Absolute relative errors in time."""
    off = [log_error(row, simulate_row(row, constants_from(constants, row))) for row in rows]
    return np.abs(np.expm1(off))


def draws_of(rows, start, number):
    """Median and ninth decile on the rows that were not drawn, [draws, 4]: before and after."""
    rng, found, before = np.random.default_rng(0), [], errors(start, rows)
    for _ in range(number):
        drawn = rng.choice(len(rows), DRAWN, replace=False)
        rest = [index for index in range(len(rows)) if index not in drawn]
        mine = refit.refit_measured([rows[index] for index in drawn], start, rows[0].gpu, []).constants
        after = errors(mine, [rows[index] for index in rest])
        found.append([*np.quantile(before[rest], (0.5, 0.9)), *np.quantile(after, (0.5, 0.9))])
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the large published extracts")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--library", choices=sorted({plan.library for plan in PLANS.values()}))
    given = parser.parse_args()
    # What rows leave open takes as long as the fit, and is not asked here.
    refit.left_open = lambda *_: []
    ledger = read_ledger()
    rows = published_rows() + (extract_rows(given.reference) if given.reference else [])
    fair = [row for row in rows if not ledger[row.name].suspect and row.measure != "torch"] + cluster_rows()
    medians = []
    for algorithm, (population, solution) in populations(fair).items():
        if given.library not in (None, PLANS[algorithm].library):
            continue
        for (cluster, transport), group in groups_of(population.rows).items():
            start = start_without(population, solution, cluster, group[0], transport)
            median = 100 * np.median(draws_of(group, start, given.draws), axis=0)
            medians.append(median)
            before, after = (f"{one:.1f} / {other:.1f}" for one, other in (median[:2], median[2:]))
            print(f"{algorithm}, {cluster}, {transport}: {len(group)} rows, before {before}, after {after}", flush=True)
    before, after = (f"{one:.1f} / {other:.1f}" for one, other in np.median(medians, axis=0).reshape(2, 2))
    print(f"median over clusters: before {before}, after {after}")


if __name__ == "__main__":
    main()
