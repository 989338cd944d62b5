"""Which rows and which constants the sets over clusters are fitted to: one plan per algorithm.

What is free follows from what a library's kernels do (``docs/algorithms``). A constant answers to the GPU where SMs or
NVLink do the work, to the transport where the NIC's proxy or the GPU posts it. The rest keeps the values of ``START``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from moesim.traffic import CalibrationSet, Place, find_set, with_value
from moesim.validate.population import Constant
from moesim.validate.published_row import Row

_BOTH = ("dispatch", "combine")
_ACROSS = tuple(("across", phase) for phase in _BOTH)
# Table -> the machine that it was measured on. Tables that are not here are of the clusters' own list.
_CLUSTER_OF_TABLE = {
    "aic-normal-1-node-dispatch": "aic-h100",
    "aic-normal-1-node-combine": "aic-h100",
    "aic-normal-dispatch": "aic-h100",
    "aic-normal-combine": "aic-h100",
    "aic-ll": "aic-h100",
    "deepep-v1-h800": "deepseek-h800",
    "deepep-ll-h800": "deepseek-h800",
    "deepep-ll-h20": "pull-173-h20",
    "deepep-v1-h100-cx7": "pplx-h100",
    "deepep-ll-h100-cx7": "pplx-h100",
    "deepep-v2": "deepseek-v2",
    "nccl-h100": "aic-nccl-h100",
    "nccl-h200": "aic-nccl-h200",
}
# DeepEP V2's README names architectures only.
_ARCHITECTURE = {"sm90": "h100", "sm100": "b200"}
_TOKENS = {
    "aic-normal-1-node-dispatch": (128, 1024, 4096),
    "aic-normal-1-node-combine": (128, 1024, 4096),
    "aic-normal-dispatch": (128, 1024, 4096),
    "aic-normal-combine": (128, 1024, 4096),
    "aic-ll": (1, 32, 128, 256),
    "nccl-h100": (1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28),
    "nccl-h200": (1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28),
}
# Rows of more ranks than this say little that fewer do not, and take long to simulate.
_MOST_RANKS = {"deepep-ll": 32, "nccl": 128}


# How much longer set-ups commonly are over a proxy, in libraries that were measured with both.
_PROXY = 2.0
# An EFA reaches less of its port than a ConnectX.
_EFA = 0.92


def _tied(term: str, *blocks: Place) -> tuple[Place, ...]:
    return tuple((*block, term) for block in blocks)


def _both(term: str) -> tuple[Place, ...]:
    return _tied(term, *((phase,) for phase in _BOTH))


@dataclass(frozen=True)
class Plan:
    """What is fitted of one algorithm over clusters.

    Attributes:
        library: whose rows.
        start: set to begin with.
        given: constants that the set to begin with lacks or that begin elsewhere, by place.
        constants: to be fitted.
    """

    library: str
    start: str
    given: Mapping[Place, float]
    constants: tuple[Constant, ...]

    def begin(self, algorithm: str) -> CalibrationSet:
        """The terms to begin with."""
        made = find_set(algorithm, "h100", self.start)
        for place, value in self.given.items():
            made = with_value(made, place, value)
        return made


_INSIDE = tuple((phase,) for phase in _BOTH)
# Dispatch and combine do the same work the other way round, in the same kernels' loops: one constant for both, but for
# NVLink, which one of them writes and the other reads.
_NORMAL = (
    Constant(_tied("setup_intra_node_s", *_INSIDE), "setup"),
    Constant(_tied("setup_inter_node_s", *_ACROSS), "setup", ("transport",), _PROXY),
    *(
        Constant(_tied(term, *blocks), "work", ("gpu",))
        for blocks in (_INSIDE, _ACROSS)
        for term in ("rank_copy_sm_s", "forward_sm_rate")
    ),
    Constant(_tied("node_copy_sm_s", *_ACROSS), "work"),
    # The port is the same whichever kernel runs, its share that of every GPU.
    *(Constant(_tied("nvlink_rate", (phase,), ("across", phase)), "nvlink") for phase in _BOTH),
    Constant(_tied("nic_rate", *_ACROSS), "nic", ("transport",), efa=_EFA),
)
_LOW_LATENCY = (
    Constant(_both("setup_intra_node_s"), "setup"),
    Constant(_both("setup_inter_node_s"), "setup", ("transport",), _PROXY),
    *(Constant(_tied("nvlink_rate", (phase,)), "nvlink") for phase in _BOTH),
    # Messages of one token are posted one by one: a proxy lowers the rate too.
    Constant(_both("nic_rate"), "nic", ("transport",), 0.6, _EFA),
)
_SECOND = (
    Constant(_both("setup_inter_node_s"), "setup", ("gpu", "transport"), _PROXY),
    Constant(_both("setup_node_doubling_s"), "setup", ("transport",), _PROXY),
    # Dispatch exchanges counts, combine knows them.
    Constant(_tied("setup_inter_node_s", ("dispatch",)), "setup", ("gpu", "transport"), apart=True),
    *(
        constant
        for phase in _BOTH
        for constant in (
            Constant(_tied("nvlink_rate", (phase,)), "nvlink"),
            Constant(_tied("forward_sm_rate", (phase,)), "work", ("gpu",)),
        )
    ),
    Constant(_both("nic_rate"), "nic", ("transport",), efa=_EFA),
)

_PROTOCOLS = ("ll", "slow", "fast")


def _protocols(term: str, *names: str) -> tuple[Place, ...]:
    return tuple((phase, name, term) for phase in _BOTH for name in names)


_NCCL = (
    Constant(_protocols("setup_intra_node_s", *_PROTOCOLS) + _protocols("floor_s", "slow", "fast"), "setup", ("gpu",)),
    Constant(_protocols("nvlink_rate", "slow", "fast"), "nvlink", ("gpu",)),
    # A thread of the CPU posts NCCL's messages whatever the card.
    *(Constant(_protocols("setup_inter_node_s", name), "setup", ("gpu",)) for name in _PROTOCOLS),
    Constant(_protocols("nic_rate", *_PROTOCOLS), "nic", ("transport",), efa=_EFA),
    # LL sends a flag with every word: never the rate of whole messages.
    Constant(_protocols("nic_rate", "ll", "slow"), "nic", apart=True),
)

PLANS: dict[str, Plan] = {
    "deepep-normal": Plan(
        "deepep-v1",
        "deepep-normal-h100",
        {("dispatch", "floor_s"): 0.0}
        | {(*block, "nvlink_rate"): 300e9 for block in (*_INSIDE, *_ACROSS)}
        | {(*block, "forward_sm_rate"): 20e9 for block in _INSIDE}
        | {(*block, "forward_sm_rate"): 12e9 for block in _ACROSS}
        | {(*block, "rank_copy_sm_s"): 0.1e-6 for block in _INSIDE}
        | {(*block, "rank_copy_sm_s"): 0.4e-6 for block in _ACROSS},
        _NORMAL,
    ),
    "deepep-low-latency": Plan(
        "deepep-ll",
        "deepep-low-latency-h100",
        {},
        _LOW_LATENCY,
    ),
    "nccl-direct": Plan(
        "nccl",
        "nccl-direct-h100",
        {
            (phase, *place): value
            for phase in _BOTH
            for place, value in (
                (("ll", "setup_inter_node_s"), 42e-6),
                (("slow", "setup_inter_node_s"), 64e-6),
                (("fast", "setup_inter_node_s"), 240e-6),
                (("ll", "nic_rate"), 24e9),
                (("slow", "nic_rate"), 24e9),
                (("fast", "nic_rate"), 48e9),
            )
        },
        _NCCL,
    ),
    "deepep-v2-hybrid": Plan(
        "deepep-v2",
        "deepep-v2-hybrid-h100",
        {
            (phase, term): value
            for phase in _BOTH
            for term, value in (
                ("setup_inter_node_s", 140e-6),
                ("setup_intra_node_s", 60e-6),
                ("setup_node_doubling_s", 12e-6),
                ("forward_sm_rate", 30e9),
                ("nvlink_rate", 220e9),
                ("nic_rate", 45e9),
            )
        },
        _SECOND,
    ),
}
"""By algorithm."""


def rows_over_clusters(rows: Iterable[Row], plan: Plan) -> list[Row]:
    """The rows that a plan is fitted to, each with its cluster.

    Args:
        rows: published rows that are not suspect, healthy rows of clusters among them.
        plan: of an algorithm.
    """
    found: list[Row] = []
    for row in rows:
        cluster = row.cluster or _CLUSTER_OF_TABLE.get(row.table)
        if row.library != plan.library or cluster is None or not _fits(row, plan):
            continue
        found.append(replace(row, cluster=cluster, gpu=_ARCHITECTURE.get(row.gpu, row.gpu)))
    return found


def _fits(row: Row, plan: Plan) -> bool:
    if row.ranks > _MOST_RANKS.get(row.library, 64) or row.tokens not in _TOKENS.get(row.table, (row.tokens,)):
        return False
    if row.release in ("2025-02-25",) or (plan.library == "deepep-v2" and row.nodes == 1):
        return False
    if row.table in ("aic-normal-dispatch", "aic-normal-combine"):
        return row.sms in (12, 24)
    # pplx-garden's table of normal mode: its dispatch does not fit its own neighbours.
    return not (row.table == "deepep-v1-h100-cx7" and row.op == "dispatch") and (
        row.table != "aic-ll" or row.experts == 256
    )


def clusters_of(rows: Sequence[Row]) -> list[str]:
    """The machines, sorted."""
    return sorted({row.cluster for row in rows})
