"""The router in plain Python, one token at a time, as the papers say it."""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def affinities(logits, score):
    if score == "sigmoid":
        return [sigmoid(x) for x in logits]
    top = max(logits)
    exps = [math.exp(x - top) for x in logits]
    total = 0.0
    for value in exps:
        total += value
    return [value / total for value in exps]


def best(values, candidates, count):
    """Candidates with the highest values, the lowest id first among equals."""
    return sorted(candidates, key=lambda i: (-values[i], i))[:count]


def route_token(logits, top_k, group, top_groups, score, group_score, normalize, scale, bias=None):
    """Expert ids by descending selection score, and their gates; ``group[e]`` is the group of expert e."""
    logits = [float(x) for x in logits]
    experts = range(len(logits))
    s = affinities(logits, score)
    biased = bias is not None and any(bias)
    selection = [s[e] + bias[e] for e in experts] if biased else s
    count = {"max": 1, "sum": len(logits), "top2": 2, "topk_over_m": max(1, top_k // top_groups)}[group_score]

    # Without a bias the logits have the order of the affinities, and keep it where those saturate.
    ranking = selection if biased else logits
    group_values = []
    for g in range(max(group) + 1):
        members = [e for e in experts if group[e] == g]
        values = ranking if count == 1 else selection
        value = 0.0
        for e in best(values, members, count):
            value += values[e]
        group_values.append(value)
    kept = best(group_values, range(len(group_values)), top_groups)
    ids = best(ranking, [e for e in experts if group[e] in kept], top_k)

    gates = [s[e] for e in ids]
    if normalize:
        gates = [g / sum(gates) for g in gates]
    return ids, [scale * g for g in gates]


def gate_mass_lost(logits, ids, score):
    s = affinities([float(x) for x in logits], score)
    return 1 - sum(s[e] for e in ids) / sum(sorted(s)[-len(ids) :])
