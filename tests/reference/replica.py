"""Which replica a selection takes, one selection at a time and on plain Python integers."""


def replicas_of(slot_expert, expert):
    return [slot for slot, e in enumerate(slot_expert) if e == expert]


def nearest_table(slot_expert, slot_rank, n_ranks, ranks_per_node, seed):
    """Return {(source rank, expert): slot} of the same_node policy."""
    table = {}
    for expert in sorted(set(slot_expert)):
        replicas = replicas_of(slot_expert, expert)
        start = (expert + seed) % len(replicas)
        replicas = replicas[start:] + replicas[:start]
        served = dict.fromkeys(replicas, 0)

        def near(rank, replicas=replicas):
            own_rank = [s for s in replicas if slot_rank[s] == rank]
            own_node = [s for s in replicas if slot_rank[s] // ranks_per_node == rank // ranks_per_node]
            return (0, own_rank) if own_rank else (1, own_node) if own_node else (2, replicas)

        for rank in sorted(range(n_ranks), key=lambda r: (near(r)[0], r)):
            slot = min(near(rank)[1], key=lambda s: served[s])
            served[slot] += 1
            table[rank, expert] = slot
    return table


def scramble(value):
    value = (value ^ value >> 16) * 0x45D9F3B % 2**31
    value = (value ^ value >> 15) * 0x2C1B3C6D % 2**31
    return value ^ value >> 16


def hashed(slot_expert, expert, token, seed):
    replicas = replicas_of(slot_expert, expert)
    return replicas[scramble(scramble(scramble(seed) ^ token) ^ expert) % len(replicas)]
