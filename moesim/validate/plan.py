"""Which constants of each shipped set are fitted; the rest keep the values of the set's file.

Constants that one measurement cannot tell apart share a value: a rate that does not depend on the direction, the
set-up of a kernel in both phases. What is free follows from what a library's kernels do (``docs/algorithms``), not from
how many rows there are.
"""

from moesim.traffic import Place
from moesim.validate.fit_constants import Free

_BOTH = ("dispatch", "combine")


def _one(*place: str) -> Free:
    return Free((place,))


def _tied(term: str, *blocks: Place) -> Free:
    """One value of a term in several blocks; both phases if none is named."""
    return Free(tuple((*block, term) for block in blocks or ((phase,) for phase in _BOTH)))


def _across(term: str) -> Free:
    return _tied(term, *(("across", phase) for phase in _BOTH))


def _protocol(protocol: str, term: str) -> Free:
    return Free(tuple((phase, protocol, term) for phase in _BOTH))


_LOW_LATENCY = (_tied("nvlink_rate"), _tied("nic_rate"), _tied("setup_intra_node_s"), _tied("setup_inter_node_s"))
_NCCL = (
    _protocol("ll", "setup_intra_node_s"),
    _protocol("ll", "setup_peer_s"),
    _protocol("ll", "pair_rate"),
    Free(tuple((phase, name, "floor_s") for phase in _BOTH for name in ("slow", "fast"))),
    _protocol("slow", "setup_intra_node_s"),
    _protocol("slow", "nvlink_rate"),
    _protocol("slow", "two_ranks_nvlink_rate"),
    _protocol("fast", "setup_intra_node_s"),
    _protocol("fast", "nvlink_rate"),
    _protocol("fast", "two_ranks_setup_s"),
    _protocol("fast", "two_ranks_nvlink_rate"),
)
# Combine's own rate is the port's peak, whatever the start: what it takes beyond that is the adding up.
_ONE_SIDED = ("floor_s", "floor_rank_doubling_s", "setup_intra_node_s", "setup_rank_doubling_s")
# Dispatch loads a token once and stores it once per node: the same work each time.
_LOADS_AND_STORES = Free((("dispatch", "token_sm_s"), ("dispatch", "node_copy_sm_s")))
_FP8_NODES = (_LOADS_AND_STORES,)
_FP8_NVLINK = (_one("dispatch", "nvlink_rate"), _one("dispatch", "token_rank_sm_s"))
_QUANTISED = tuple(
    _one("dispatch", term)
    for term in ("setup_intra_node_s", "setup_peer_doubling_s", "nvlink_rate", "local_rate", "epilogue_token_s")
)

BASE = {
    "hybrid-ep-h100-fp8": "hybrid-ep-h100",
    "hybrid-ep-h100-torch": "hybrid-ep-h100",
    "hybrid-ep-h100-torch-fp8": "hybrid-ep-h100-torch",
    "hybrid-ep-gb200-fp8": "hybrid-ep-gb200",
    "hybrid-ep-gb200-torch": "hybrid-ep-gb200",
    "hybrid-ep-gb200-torch-fp8": "hybrid-ep-gb200-torch",
    "deepep-normal-blackwell-fp8": "deepep-normal-blackwell",
    "nvl-two-sided-gb200-fp8": "nvl-two-sided-gb200",
    "nvl-two-sided-gb200-nvfp4": "nvl-two-sided-gb200",
}
"""Sets that take everything but their own free constants from another set: the same kernels on another type of token,
or called through PyTorch."""

FREE: dict[str, tuple[Free, ...]] = {
    "deepep-normal-h800": (_tied("nvlink_rate"), _across("nvlink_rate"), _across("nic_rate")),
    "deepep-normal-h100": (
        _one("dispatch", "floor_s"),
        _tied("setup_intra_node_s", ("dispatch",)),
        _one("dispatch", "nvlink_rate"),
        _one("combine", "setup_intra_node_s"),
        _one("combine", "fill_s"),
        _one("combine", "fill_tokens"),
        _one("combine", "nvlink_rate"),
        *(
            _one("across", phase, term)
            for phase in _BOTH
            for term in (
                "setup_inter_node_s",
                "setup_node_doubling_s",
                "nic_rate",
                "node_copy_sm_s",
                "rank_copy_sm_s",
                "fill_s",
            )
        ),
        _one("across", "dispatch", "token_s"),
        _one("across", "dispatch", "fill_tokens_per_sm"),
        _one("across", "combine", "fill_tokens"),
    ),
    "deepep-v2-hybrid-h100": (_tied("nic_rate"),),
    "deepep-v2-direct-b200": (_tied("nvlink_rate"), _tied("nvlink_sm_half")),
    "deepep-v2-direct-h20-pcie": (_tied("nic_rate"),),
    "deepep-normal-blackwell": (
        _tied("nvlink_rate"),
        _tied("setup_intra_node_s"),
        _tied("setup_rank_doubling_s"),
        _one("dispatch", "rank_copy_sm_s"),
        _one("combine", "rank_copy_sm_s"),
    ),
    "deepep-normal-blackwell-fp8": tuple(
        _one("dispatch", term) for term in ("rank_copy_sm_s", "setup_intra_node_s", "setup_rank_doubling_s")
    ),
    "deepep-low-latency-h800": _LOW_LATENCY,
    "deepep-low-latency-nic-h800": (
        _tied("nic_rate"),
        Free(tuple((phase, f"setup_{where}_node_s") for phase in _BOTH for where in ("intra", "inter"))),
    ),
    "deepep-low-latency-h20": _LOW_LATENCY,
    "deepep-low-latency-h100-cx7": _LOW_LATENCY,
    "deepep-low-latency-h100": (
        *(
            _one(phase, term)
            for phase in _BOTH
            for term in ("nvlink_rate", "setup_intra_node_s", "setup_inter_node_s", "setup_node_doubling_s")
        ),
        _tied("nic_rate"),
    ),
    "hybrid-ep-h100": (
        _tied("nic_rate"),
        _one("dispatch", "nvlink_rate"),
        _one("combine", "nvlink_rate"),
        _LOADS_AND_STORES,
        _one("combine", "node_copy_sm_s"),
    ),
    "hybrid-ep-h100-fp8": _FP8_NODES,
    "hybrid-ep-h100-torch": (
        Free(tuple((phase, f"setup_{where}_node_s") for phase in _BOTH for where in ("intra", "inter"))),
        _one("dispatch", "setup_rank_s"),
    ),
    "hybrid-ep-h100-torch-fp8": _FP8_NODES,
    "hybrid-ep-gb200": (
        _one("dispatch", "nvlink_rate"),
        _one("combine", "nvlink_rate"),
        _tied("nvlink_sm_half"),
        _tied("nvlink_rank_slope"),
    ),
    "hybrid-ep-gb200-fp8": _FP8_NVLINK,
    "hybrid-ep-gb200-torch": (
        _one("dispatch", "nvlink_rate"),
        _one("combine", "nvlink_rate"),
        _tied("setup_intra_node_s"),
    ),
    "hybrid-ep-gb200-torch-fp8": _FP8_NVLINK,
    "nvl-one-sided-gb200": (
        *(_one(phase, term) for phase in _BOTH for term in _ONE_SIDED),
        _one("dispatch", "nvlink_rate"),
        _one("dispatch", "nvlink_rank_slope"),
        _one("combine", "pull_rate"),
    ),
    "nvl-one-sided-gb200-aic": (
        *(_one(phase, term) for phase in _BOTH for term in (*_ONE_SIDED, "floor_few_ranks_s", "fill_s")),
        _tied("fill_tokens"),
        _one("dispatch", "nvlink_rate"),
        _one("dispatch", "token_s"),
        _one("combine", "pull_rate"),
    ),
    "nvl-two-sided-gb200": (
        *(
            _one(phase, term)
            for phase in _BOTH
            for term in (
                "setup_intra_node_s", "setup_peer_doubling_s", "nvlink_rate", "nvlink_rank_slope", "local_rate",
                "epilogue_token_s",
            )
        ),
        _one("combine", "reduce_rate"),
        *(_one("dispatch", term) for term in ("prepare_s", "prepare_rank_doubling_s", "prepare_token_s")),
    ),
    "nvl-two-sided-gb200-fp8": _QUANTISED,
    "nvl-two-sided-gb200-nvfp4": _QUANTISED,
    "nccl-direct-h100": _NCCL,
    "nccl-direct-h200": _NCCL,
}  # fmt: skip
