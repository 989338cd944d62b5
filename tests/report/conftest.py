"""A small made-up run: two nodes of four ranks, 16 experts, plausible tables with known numbers in them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.results import Note, Result, TableBuilder, Tables
from moesim.results.definitions import COMPONENTS, SUMMARY

PARTS = dict(zip(COMPONENTS, (0.0, 2e-5, 1e-5, 4e-4, 3e-4, 8e-4, 3e-5, 4e-5), strict=True))
NODES, PER_NODE, EXPERTS = 2, 4, 16
RANKS = NODES * PER_NODE


def fake_summary(name: str = "toy", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(SUMMARY, 1.5)
    values |= PARTS
    values |= {
        "name": name,
        "layer_time_s": sum(PARTS.values()),
        "lower_bound_s": 8e-4,
        "step_time_s": 2 * sum(PARTS.values()),
        "bottleneck": "NVLink: 61 % of the layer time",
        "bottleneck_utilisation": 0.93,
        "expert_load_max_over_mean": 2.5,
        "uniform_router_expert_max_over_mean": 1.11,
        "dispatch_deepep_rdma_bytes_per_s": None,
        "gate_mass_lost": 0.04,
        "nvlink_wire_bytes": 3e9,
        "nic_wire_bytes": 1e9,
        "tokens": 8192,
        "distinct_tokens": 4096,
        "ranks": RANKS,
        "layers": 2,
        "seed": 7,
        "counterfactual": False,
        "source_measured_share": 0.0,
        "source_fitted_share": 0.0,
        "source_interpolated_share": 0.7,
        "source_estimated_share": 0.2,
        "source_extrapolated_share": 0.1,
    }
    return values | changes


def fake_tables(layers: int = 2, training: bool = True, seed: int = 0) -> Tables:
    rng = np.random.default_rng(seed)
    tables = TableBuilder()
    ranks = np.arange(RANKS, dtype=np.int32)
    node = ranks // PER_NODE
    load = np.sort(rng.integers(100, 900, EXPERTS))[::-1]
    links = [f"n{r // PER_NODE}.gpu{r % PER_NODE}->n{r // PER_NODE}.nvswitch" for r in ranks]
    nics = [f"n{r // PER_NODE}.gpu{r % PER_NODE}->rail{r % PER_NODE}.leaf" for r in ranks]
    for layer in range(layers):
        where = {"step": 0, "layer": layer, "micro_batch": 0}
        begin = 2e-3 * layer
        losses = {f"{name}_loss": [0.01] for name in ("expert", "device", "communication", "sequence", "z")}
        tables.add(
            "steps", **where, critical_rank=[3], recorded_layer=[layer + 1], layer_time_s=[sum(PARTS.values())],
            **{key: [value] for key, value in PARTS.items()}, expert_load_max_over_mean=[2.0 + layer],
            rank_load_max_over_mean=[1.5], node_load_max_over_mean=[1.2], sequence_imbalance_p50=[3.0],
            sequence_imbalance_p99=[4.0],
            dispatch_nvlink_wire_bytes_per_s=[1.5e11], combine_nvlink_wire_bytes_per_s=[1.4e11],
            max_violation=[1.0 + layer], gate_mass_lost=np.ma.masked_all(1), **losses,
            **{f"{of}copies_per_token": [4.0] for of in ("", "rank_", "node_")},
            uniform_router_expert_max_over_mean=[1.1], rank_wait_mean_s=[1e-5], lower_bound_s=[8e-4],
            nvlink_wire_bytes=[3e9], nic_wire_bytes=[1e9],
        )  # fmt: skip
        tables.add(
            "ranks", **where, rank=ranks, node=node, tokens=np.full(RANKS, 1024), sent_copies=ranks * 10,
            received_copies=ranks * 10, computed_selections=1000 + 100 * ranks, sent_bytes=ranks * 1e6,
            received_bytes=ranks * 1e6, compute_s=np.full(RANKS, 3e-4), transfer_s=np.full(RANKS, 1e-3),
            expert_gemm_s=np.full(RANKS, 2e-4),
            expert_flops=1e11 * (1 + ranks), expert_moved_bytes=np.full(RANKS, 1e8),
            wait_s=ranks * 1e-5, finish_s=begin + np.full(RANKS, 1.6e-3),
        )  # fmt: skip
        tables.add(
            "experts", **where, expert=np.arange(EXPERTS), slot=np.arange(EXPERTS, dtype=np.int32),
            rank=np.arange(EXPERTS, dtype=np.int32) // 2, tokens=load, gate_mass=np.ma.masked_all(EXPERTS),
        )  # fmt: skip
        source, target = (side.ravel() for side in np.meshgrid(ranks, ranks, indexing="ij"))
        other = source != target
        source, target = source[other], target[other]
        for number, phase in enumerate(("dispatch", "combine")):
            start = begin + 1e-4 + 8e-4 * number
            copies = rng.integers(1, 200, len(source))
            tables.add(
                "links", **where, phase=phase, link=np.array(links + nics),
                link_class=np.array(["nvlink"] * RANKS + ["nic"] * RANKS), source=np.array(["gpu"] * 2 * RANKS),
                target=np.array(["switch"] * 2 * RANKS), capacity_bytes_per_s=np.repeat([200e9, 50e9], RANKS),
                wire_bytes=np.concatenate([4e7 + 1e6 * ranks, 1e7 + 1e5 * ranks]), busy_s=np.full(2 * RANKS, 4e-4),
                utilisation=np.linspace(0.2, 0.95, 2 * RANKS),
            )  # fmt: skip
            for link_class in ("nvlink", "nic"):
                tables.add(
                    "link_series", **where, phase=phase, time_s=start + np.arange(10) * 4e-5, link_class=link_class,
                    utilisation_mean=np.linspace(0.5, 0.1, 10), utilisation_max=np.linspace(1.0, 0.4, 10),
                )  # fmt: skip
            tables.add(
                "transfers", **where, phase=phase, source_rank=source, target_rank=target, copies=copies,
                wire_bytes=copies * 7472.0, start_s=np.full(len(source), start), finish_s=start + 1e-6 * copies,
            )  # fmt: skip
        if layer == 0:
            # One link of each class, idle between the phases: 0.9 then 0.5, 0.3 throughout.
            time = begin + 1e-4 * np.arange(8)
            use = np.array([[0.9, 0.9, 0.5, 0.0, 0.0, 0.5, 0.9, 0.9], [0.3] * 3 + [0.0] * 2 + [0.3] * 3])
            for link, link_class, values in zip((links[0], nics[0]), ("nvlink", "nic"), use, strict=True):
                tables.add("busy_links", **where, link=np.full(8, link), link_class=np.full(8, link_class), time_s=time,
                           utilisation=values)  # fmt: skip
        clock = np.full(RANKS, begin)
        late = ranks * 5e-6  # what each waits for rank 0, whose gate takes longest
        phases = (("gate", 5.5e-5 - late), ("dispatch", 4e-4), ("expert_compute", 3e-4), ("combine", 8e-4))
        for phase, seconds in phases:
            waits = late if phase == "dispatch" else np.zeros(RANKS)
            blamed = np.where(ranks == 0, -1, 0) if phase == "dispatch" else np.full(RANKS, -1)
            tables.add(
                "spans", **where, rank=ranks, node=node, lane="compute", phase=phase, start_s=clock,
                end_s=clock + seconds, wait_s=waits, waited_on=np.ma.masked_less(blamed, 0),
            )  # fmt: skip
            clock = clock + seconds
        if training:
            for step in (0, 100, 200):
                tables.add(
                    "training", step=[0], layer=layer, micro_batch=0, training_step=step, expert_loss=0.01,
                    expert_load_max_over_mean=3.0 + 0.1 * seed - step / 100, max_violation=2.0 - step / 100,
                    device_loss=0.05, communication_loss=0.02, sequence_loss=1e-4, z_loss=0.0, bias_spread=step / 1000,
                    sequence_imbalance_p50=4.0, sequence_imbalance_p99=6.0 + seed,
                )  # fmt: skip
    return Tables(tables.build())


def fake_explanation(**router: Any) -> dict[str, Any]:
    phase = {
        "algorithm": "deepep-normal", "dtype": "fp8", "wire_bytes_per_copy": 7472, "nvlink_rates_bytes_per_s": [129e9],
        "nvlink_efficiency": 0.645, "cpu_sync_s": 1e-4, "sms": 24, "source": "fit of published tables",
    }  # fmt: skip
    link = {
        "link": "n0.gpu0->n0.nvswitch", "link_class": "nvlink", "wire_bytes": 4e7, "capacity_bytes_per_s": 200e9,
        "seconds_at_full_rate": 3e-4,
    }  # fmt: skip
    kernel = {"kernel": "grouped_gemm_fp8", "source": "interpolated", "seconds": 1e-3, "error": 0.08, "note": "a table"}
    return {
        "topology": {
            "name": "toy-2x4", "gpu": "h800", "ranks": RANKS, "nodes": NODES,
            "peak_bytes_per_s": {"nvlink": [200e9], "nic": [50e9]}, "latency_s": {"nvlink": 1e-6, "nic": 3e-6},
            "gemm_flops_per_s": 2e15, "memory_bytes_per_s": 4e12,
        },
        "alltoall": {"dispatch": phase, "combine": phase},
        "router": {"kind": "v3", "top_k": 8, "n_groups": 8, "top_groups": 4, "groups_are": "node"} | router,
        "losses_in_balance": {f"{name}_loss": 0.005 for name in ("expert", "device", "communication", "sequence")},
        "kernels": [kernel],
        "critical_ranks": [3, 3],
        "terms": {
            "dispatch_time_s": [
                {"name": "layout", "value": 5e-5, "unit": "s", "formula": "own work", "source": "a fit"},
                {"name": "held by NVLink", "value": 3e-4, "unit": "s", "formula": "bytes / rate", "source": "simulated",
                 "of": [{"layers": [0, 1], "value": 3e-4, "rank": 3, "link": link["link"]}]},
            ],
        },
        "held_longest": {
            "link": link["link"], "seconds": 3e-4, "capacity_bytes_per_s": 1e11, "peers_bytes_per_s": 2e11,
        },
        "held_by_s": {"link nvlink": 1.6e-3, "rank 0": 2e-4, "compute": 6e-4, "setup": 1e-4},
        "busiest_links": {"dispatch": [link], "combine": [link]},
        "workload": {"notes": [], "resampled": None},
    }  # fmt: skip


def fake_result(name: str = "toy", layers: int = 2, training: bool = True, seed: int = 0, **changes: Any) -> Result:
    """``changes`` are values of the summary; ``router``, ``notes`` and ``recording`` are taken out of them."""
    router, recording = changes.pop("router", {}), changes.pop("recording", "tiny-v3")
    notes = changes.pop("notes", (Note("estimated", "all-to-all rates are defaults"), Note("info", "8,192 tokens")))
    scenario = (
        f"name: {json.dumps(name)}\nseed: 7\nworkload:\n  recording: {{name: {recording}}}\nrouting: {{kind: v3}}\n"
    )
    return Result(
        summary=fake_summary(name, **changes),
        tables=fake_tables(layers, training, seed),
        notes=notes,
        explanation=fake_explanation(**router),
        flows={},
        traffic={},
        scenario_yaml=scenario,
        provenance={"moesim": "0.1.0", "utc": "2026-01-02T03:04:05+00:00", "wall_s": 1.25, "scenario_sha256": "abc123"},
    )


@pytest.fixture(scope="session")
def result() -> Result:
    return fake_result()


@pytest.fixture(scope="session")
def variants() -> list[tuple[str, Result]]:
    """V1 and V3 on their own training, V2 with three M, of which M = 3 is its own."""
    what_if = (Note("counterfactual", "another limit than trained with"),)
    runs = [("v1", fake_result("v1", recording="tiny-v1", seed=1, layer_time_s=2e-3, gate_mass_lost=0.0,
                               router={"kind": "v1", "n_groups": 1, "top_groups": 1}))]  # fmt: skip
    for limit in (1, 3, 5):
        own = limit == 3
        runs.append((f"v2-m{limit}", fake_result(
            f"v2-m{limit}", recording="tiny-v2", seed=2, layer_time_s=(8 + limit) * 1e-4, counterfactual=not own,
            notes=() if own else what_if, gate_mass_lost=0.3 / limit, router={"kind": "v2", "top_groups": limit},
        )))  # fmt: skip
    runs.append(("v3", fake_result("v3", layer_time_s=1e-3, rank_load_max_over_mean=1.2)))
    return runs


def renamed(result: Result, **changes: Any) -> Result:
    """The same run with other values in its summary."""
    return replace(result, summary=result.summary | changes)
