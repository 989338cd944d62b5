"""The published balancer in its plainest form: all bins searched for every item, every load divided anew."""

import numpy as np


def plan(load, n_slots, n_ranks, n_nodes, n_groups):
    """Return the expert of each slot for one layer, given as plain lists; equal groups only."""
    if n_groups % n_nodes != 0:
        n_nodes, n_groups = 1, 1
    size = len(load) // n_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(n_groups)]
    slots = []
    for packed_groups in pack([sum(load[e] for e in group) for group in groups], n_nodes):
        experts = [e for g in packed_groups for e in groups[g]]
        replicas = replicate([load[e] for e in experts], n_slots // n_nodes)
        shared = [load[experts[i]] / replicas.count(i) for i in replicas]
        for packed_replicas in pack(shared, n_ranks // n_nodes):
            slots += [experts[replicas[i]] for i in packed_replicas]
    return slots


def replicate(load, n_slots):
    replicas = list(range(len(load)))
    while len(replicas) < n_slots:
        per_replica = [load[i] / replicas.count(i) for i in range(len(load))]
        replicas.append(per_replica.index(max(per_replica)))
    return replicas


def pack(weight, n_bins):
    room = len(weight) // n_bins
    if room == 1:
        return [[i] for i in range(n_bins)]
    bins = [[] for _ in range(n_bins)]
    totals = [0.0] * n_bins
    for item in sorted(range(len(weight)), key=lambda i: (-weight[i], i)):
        bin_ = min((b for b in range(n_bins) if len(bins[b]) < room), key=lambda b: totals[b])
        bins[bin_].append(item)
        totals[bin_] += weight[item]
    return bins


def published(load, n_slots, n_ranks, n_nodes, n_groups):
    """Return the expert of each slot as deepseek-ai/EPLB computes it, loads in float32; equal groups only."""
    if n_groups % n_nodes != 0:
        n_nodes = n_groups = 1
    load = np.asarray(load, np.float32)
    size = len(load) // n_groups
    of_group = np.array([load[g * size : (g + 1) * size].sum(dtype=np.float32) for g in range(n_groups)])
    experts = [[e for g in bin_ for e in range(g * size, (g + 1) * size)] for bin_ in _packed32(of_group, n_nodes)]
    slots = []
    for its in experts:
        own = load[its]
        replica_of, count = list(range(len(its))), np.ones(len(its), np.int64)
        for _ in range(len(its), n_slots // n_nodes):
            hottest = int(np.argmax((own / count).astype(np.float32)))
            replica_of.append(hottest)
            count[hottest] += 1
        shared = (own / count).astype(np.float32)[replica_of]
        slots += [its[replica_of[i]] for bin_ in _packed32(shared, n_ranks // n_nodes) for i in bin_]
    return slots


def _packed32(weight, n_bins):
    room = len(weight) // n_bins
    if room == 1:
        return [[i] for i in range(n_bins)]
    bins, totals = [[] for _ in range(n_bins)], [np.float32(0)] * n_bins
    for item in np.argsort(-weight, kind="stable"):
        bin_ = min((b for b in range(n_bins) if len(bins[b]) < room), key=totals.__getitem__)
        bins[bin_].append(int(item))
        totals[bin_] = np.float32(totals[bin_] + weight[item])
    return bins
