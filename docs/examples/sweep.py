"""A sweep from Python: load a scenario, simulate it, sweep it, read the table, plot.

A notebook in plain Python: each ``# %%`` begins a cell, which VS Code, Spyder or jupytext run one by one;
``python docs/examples/sweep.py`` runs them all. What it writes goes to ``results/example/`` below the current folder.
"""

# %%
from pathlib import Path

from matplotlib.figure import Figure

import moesim

out = Path("results/example")

# %% [markdown]
# A scenario says everything a run depends on; what is left out has a default. Here: 8 GPUs of one node, 16 small
# experts, router logits made by rule. `moesim.load_scenario("quickstart")` loads one that ships, a path one of yours.

# %%
scenario = moesim.load_scenario(
    {
        "name": "example",
        "cluster": {"topology": "hgx-h800"},
        "model": {"preset": "deepseek-v3", "n_experts": 16, "expert_hidden": 512},
        "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
        "workload": {"synthetic": {"kind": "lognormal", "sigma": 0.8}, "tokens_per_rank": 256},
        "sweep": {"question": "How many groups does a token need, for each K?"},
    }
)

# %% [markdown]
# One run: its summary is a flat dict of numbers in SI units, its tables come as columns.

# %%
result = moesim.simulate(scenario)
print(f"{result.summary['name']}: {1e6 * result.summary['layer_time_s']:.1f} us, {result.summary['bottleneck']}")
ranks = result.tables.columns("ranks")
print("selections per rank:", ranks["computed_selections"].tolist())

# %% [markdown]
# Every combination of some values: one row per point. With `out` the sweep can be interrupted and goes on when it is
# run again, and its report is written beside the table. `jobs=8` takes eight processes (a script then needs
# `if __name__ == "__main__":`).

# %%
table = moesim.sweep(
    scenario,
    {"routing.top_k": [2, 4], "routing.top_groups": "1..4"},
    impossible="skip",  # K = 4 does not fit into one group of two experts
    objective="layer_time_s where gate_mass_lost < 20%",
    per=["routing.top_k"],
    out=out,
)
ran = table[table["status"] == "ok"]
shown = ["routing.top_k", "routing.top_groups", "layer_time_s", "gate_mass_lost"]
print(ran[shown].to_string(index=False))
print("report:", out / "report.html")

# %% [markdown]
# The table is an ordinary pandas frame: the best M of each K within the limit, and a picture.

# %%
within = ran[ran["gate_mass_lost"] < 0.2]
best = within.loc[within.groupby("routing.top_k")["layer_time_s"].idxmin()]
print(best[shown].to_string(index=False))

figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.add_subplot(xlabel="gate mass lost (%)", ylabel="layer time (us)")
for top_k, rows in ran.groupby("routing.top_k"):
    axes.plot(100 * rows["gate_mass_lost"], 1e6 * rows["layer_time_s"], "o-", label=f"K = {top_k}")
    for _, row in rows.iterrows():
        axes.annotate(f"M = {row['routing.top_groups']}", (100 * row["gate_mass_lost"], 1e6 * row["layer_time_s"]))
axes.legend()
figure.savefig(out / "groups.svg")
