"""Eight tasks that people come with, each to its answer in a sentence.

``python docs/examples/tasks.py`` runs them all, about a minute; with names (``tasks.py limit slow-nic``) only those.
``--tokens 512`` sets the tokens of each GPU. Change a mapping to your own cluster, model or file.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import moesim
from moesim.model import kv_cache_bytes

V3_ROUTER = {"kind": "v3", "top_k": 8, "groups": 8, "top_groups": 4}


def v3_on(cluster: dict[str, Any], tokens: int, **more: Any) -> dict[str, Any]:
    """Return a scenario: one layer of DeepSeek-V3 on a cluster, routed by the recorded V3 router."""
    workload = {"recording": {"name": "tiny-v3", "layers": [2]}, "tokens_per_rank": tokens}
    return {"cluster": cluster, "routing": V3_ROUTER, "workload": workload} | more


def ms(seconds: float) -> str:
    """Return a time in milliseconds, as text."""
    return f"{1e3 * seconds:.3g} ms"


def ep_and_replicas(tokens: int) -> str:
    """EP size and replicas on 4 x 8 H200."""
    scenario = v3_on({"gpu": "h200", "nodes": 4}, tokens, placement={"policy": "eplb"})
    table = moesim.sweep(scenario, {"parallel.ep": [8, 16, 32], "placement.redundant_experts": [0, 32]})
    table["per_token"] = table["layer_time_s"] / tokens
    best = table.loc[table["per_token"].idxmin()]
    span = ", ".join(
        f"EP{row['parallel.ep']} with {row['placement.redundant_experts']}: {ms(row['layer_time_s'])}"
        for _, row in table.iterrows()
    )
    ep, replicas = best["parallel.ep"], best["placement.redundant_experts"]
    held = (256 + replicas) // ep
    return f"EP{ep} with {replicas} redundant experts is fastest, if {held} experts fit into a GPU ({span})."


def limit(tokens: int) -> str:
    """M for 16 x 8 H800."""
    scenario = v3_on({"gpu": "h800", "nodes": 16}, tokens)
    scenario["routing"] = V3_ROUTER | {"groups": "node"}
    table = moesim.sweep(scenario, {"routing.top_groups": [2, 4, 6, 8]})
    rows = [
        f"M = {row['routing.top_groups']}: {ms(row['layer_time_s'])}, {row['gate_mass_lost']:.1%} of gate mass lost"
        for _, row in table.iterrows()
    ]
    kept = table[table["gate_mass_lost"] < 0.1]
    if kept.empty:
        return f"No M of these keeps nine tenths of the gate mass ({'; '.join(rows)})."
    return f"M = {kept.loc[kept['layer_time_s'].idxmin(), 'routing.top_groups']} ({'; '.join(rows)})."


def network(tokens: int) -> str:
    """400G or 800G, rail or leaf-spine."""
    scenario = v3_on({"gpu": "b200", "nodes": 8, "oversubscription": 1}, tokens)
    axes = {"cluster.nic_bandwidth": ["400Gb/s", "800Gb/s"], "cluster.fabric": ["rail", "leaf-spine"]}
    table = moesim.sweep(scenario, axes).set_index(list(axes))["layer_time_s"]
    faster = table[50e9, "rail"] / table[100e9, "rail"]
    fabric = table[50e9, "leaf-spine"] / table[50e9, "rail"]
    rows = ", ".join(f"{8e-9 * speed:.0f}G {name}: {ms(time)}" for (speed, name), time in table.items())
    return (
        f"800G makes the layer {faster:.2f} times as fast on rails; leaf-spine with ECMP takes {fabric:.2f} times as "
        f"long as rails at 400G ({rows})."
    )


def own_logits(tokens: int) -> str:
    """Logits of one's own router."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logits.npy"  # what a forward hook on the router's linear layer gives
        popular = np.random.default_rng(0).normal(size=64)
        np.save(path, np.random.default_rng(1).normal(popular, size=(4096, 64)).astype(np.float32))
        result = moesim.simulate(
            moesim.load_scenario(
                {
                    "cluster": {"gpu": "h800"},
                    "model": {"preset": "olmoe-1b-7b"},
                    "workload": {"recording": {"name": str(path)}, "tokens_per_rank": tokens},
                }
            )
        )
    load, rank = (result.summary[f"{what}_load_max_over_mean"] for what in ("expert", "rank"))
    return (
        f"The hottest expert has {load:.2f} times the mean load, the hottest rank {rank:.2f} times; "
        f"a layer takes {ms(result.summary['layer_time_s'])}, bound by {result.summary['bottleneck']}."
    )


def counts(tokens: int) -> str:
    """Expert counts of Qwen3-235B."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.csv"  # what an inference engine logs
        load = np.random.default_rng(0).lognormal(8, 0.6, size=(2, 128)).astype(int)
        rows = [f"{layer},{expert},{load[layer, expert]}" for layer in range(2) for expert in range(128)]
        path.write_text("\n".join(["layer,expert,count", *rows]) + "\n", encoding="utf-8")
        scenario = {
            "cluster": {"gpu": "h200", "nodes": 2},
            "model": {"preset": "qwen3-235b-a22b"},
            "routing": {"groups": 1},
            "workload": {"counts": str(path), "tokens_per_rank": tokens},
        }
        plain = moesim.simulate(moesim.load_scenario(scenario)).summary
        replicated = scenario | {"placement": {"policy": "eplb", "redundant_experts": 16}}
        even = moesim.simulate(moesim.load_scenario(replicated)).summary
    return (
        f"The hottest rank has {plain['rank_load_max_over_mean']:.2f} times the mean load and a layer takes "
        f"{ms(plain['layer_time_s'])}; 16 redundant experts make that {even['rank_load_max_over_mean']:.2f} times and "
        f"{ms(even['layer_time_s'])}."
    )


def slow_nic(tokens: int) -> str:
    """One NIC at half speed."""
    cluster = {"gpu": "h100", "nodes": 4}
    slow = cluster | {"overrides": [{"where": "n1.gpu2.nic", "bandwidth": "200Gb/s"}]}
    even_s, slow_s = (
        moesim.simulate(moesim.load_scenario(v3_on(each, tokens))).summary["layer_time_s"] for each in (cluster, slow)
    )
    longer = f"{slow_s / even_s - 1:.0%} longer ({ms(even_s)} to {ms(slow_s)})"
    return f"One NIC of 32 at half speed makes every layer {longer}."


def mla(_: int) -> str:
    """MLA against MHA: the KV cache of DeepSeek-V3."""
    mla_bytes = kv_cache_bytes(kind="mla", layers=61, kv_lora_rank=512, rope_head_dim=64, bytes_per_element=2)
    mha_bytes = kv_cache_bytes(kind="mha", layers=61, kv_heads=128, head_dim=128, bytes_per_element=2)
    return (
        f"MLA keeps {mla_bytes / 1e3:.2f} kB a token, MHA with 128 heads of 128 would keep {mha_bytes / 1e3:.0f} kB: "
        f"{mha_bytes / mla_bytes:.1f} times as much."
    )


def document(tokens: int) -> str:
    """Figures of the design document: V1 top-4, V2 top-10 of 160, V3 with 258 experts."""
    found = []
    for name in ("document-v1", "document-v2", "document-v3"):
        scenario = moesim.load_scenario(name, overrides=[f"workload.tokens_per_rank={tokens}"])
        summary = moesim.simulate(scenario).summary
        found.append(f"{name}: {ms(summary['layer_time_s'])}, {summary['rank_copies_per_token']:.2f} ranks a token")
    return "; ".join(found) + "."


TASKS: dict[str, Callable[[int], str]] = {
    "ep-and-replicas": ep_and_replicas,
    "limit": limit,
    "network": network,
    "own-logits": own_logits,
    "counts": counts,
    "slow-nic": slow_nic,
    "mla": mla,
    "document": document,
}


def main() -> None:
    """Run the tasks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; default all")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens per GPU")
    given = parser.parse_args()
    for name in given.tasks or TASKS:
        task = TASKS[name]
        print(f"{(task.__doc__ or name).rstrip('.')}: {task(given.tokens)}", flush=True)


if __name__ == "__main__":
    main()
