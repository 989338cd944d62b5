"""Packets over leaves and spines, one by one: every link is a queue that serves whole packets in the order they came.

Buffers have no end, acknowledgements take no room. A host serves its messages in turn, from its next neighbour on; a
leaf sends each packet up to the spine whose queue is shortest.
"""

import heapq

import numpy as np


def sprayed_finish_s(packets, hosts, spines, packet_s, link_s):
    """Return when the last packet is there.

    Args:
        packets: from each host to each, [hosts, hosts].
        hosts: under a leaf.
        spines: joined to each leaf by one link.
        packet_s: of one packet on a link; link_s: from a link's one end to its other.
    """
    n = len(packets)
    free = {}
    heap = []
    for source in range(n):
        left, sent = packets[source].copy(), 0
        while left.any():
            for step in range(1, n):
                target = (source + step) % n
                if left[target]:
                    left[target] -= 1
                    heapq.heappush(heap, (sent * packet_s, source, sent, target, ("out", source)))
                    sent += 1
    last = 0.0
    while heap:
        at, source, number, target, link = heapq.heappop(heap)
        start = max(at, free.get(link, 0.0))
        free[link] = start + packet_s
        there = start + packet_s + link_s
        here, away = source // hosts, target // hosts
        if link[0] == "in":
            last = max(last, there)
            continue
        if link[0] == "out" and here != away:
            queues = [max(free.get(("up", here, spine), 0.0) - there, 0.0) for spine in range(spines)]
            following = ("up", here, int(np.argmin(queues)))
        elif link[0] == "up":
            following = ("down", away, link[2])
        else:
            following = ("in", target)
        heapq.heappush(heap, (there, source, number, target, following))
    return last
