"""The two passes of training on the executor: in turn against a sum, overlapped against the longest cycle of waits.

The cycles are those of a graph of waits written down here, apart from the program: what each operation waits for in its
own layer, in the layer before (one token), and on its lane.
"""

import functools
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from moesim.stages import STAGES, STEP
from moesim.timeline import SCHEDULES, LayerTrace, LayerWork, run_layers
from tests.reference.small_rail import small_rail
from tests.timeline.test_program import run

NAMES = [stage.name for stage in (*STAGES, *STEP)]
BACK, FORTH = 1, 0


def timed(overlap, layers, permutes_first=False):
    """The program with all-to-alls of fixed time."""
    return tuple(
        operation._replace(stage=operation.stage._replace(kind="kernel"))
        for operation in SCHEDULES["training", overlap](layers, permutes_first)
    )


# Operations of a layer: experts, their weights, attention, its weights, dispatch and combine, of either pass.
COMPUTE = ("MB", "WM", "MF", "AB", "WA", "AF")
NETWORK = ("DF", "CB", "CF", "DB")
WAITS = [("DB", "MB", 1), ("MB", "CB", 0), ("DF", "MF", 0), ("MF", "CF", 0), ("CB", "AB", 0), ("AB", "DB", 0),
         ("CF", "AF", 0), ("AF", "DF", 1)]  # fmt: skip


@functools.cache
def cycles():
    """Operations and tokens of every cycle. AF and DF of a cycle are of the next layer."""
    graph = nx.DiGraph()
    edges = list(WAITS)
    for lane in (COMPUTE, NETWORK):
        edges += [(a, b, 0) for a, b in pairwise(lane)] + [(lane[-1], lane[0], 1)]
    for a, b, tokens in edges:
        known = graph.get_edge_data(a, b, {"tokens": tokens})["tokens"]
        graph.add_edge(a, b, tokens=min(tokens, known))
    return [
        (cycle, sum(graph.edges[edge]["tokens"] for edge in zip(cycle, [*cycle[1:], cycle[0]], strict=True)))
        for cycle in nx.simple_cycles(graph)
    ]


def longest_cycle(seconds):
    """Seconds of a layer's both passes: the largest mean over the cycles of waits."""
    return max(sum(seconds[name] for name in cycle) / tokens for cycle, tokens in cycles())


def stage_seconds(drawn, way):
    letter = "FB"[way]
    found = dict.fromkeys(NAMES, 0.0)
    found |= {"attention": drawn[f"A{letter}"] * 0.7, "projections": drawn[f"A{letter}"] * 0.2}
    found |= {"gate": drawn[f"A{letter}"] * 0.1, "permute": drawn[f"M{letter}"] * 0.25}
    found |= {"experts": drawn[f"M{letter}"] * 0.5, "unpermute": drawn[f"M{letter}"] * 0.25}
    found |= {"dispatch": drawn[f"D{letter}"], "combine": drawn[f"C{letter}"]}
    return found | {"expert_weights": drawn["WM"], "attention_weights": drawn["WA"]}


def on_the_clock(program, drawn):
    """Traces of one rank, each pass with its own times."""
    work = [
        LayerWork({name: np.full(1, value) for name, value in stage_seconds(drawn, way).items()}, {})
        for way in (FORTH, BACK)
    ]
    ran = run_layers(small_rail(1, 1), program, lambda _, way: work[way], np.zeros(1), 1e9)
    return {(one.layer, one.micro_batch): one for one in ran if isinstance(one, LayerTrace)}


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.integers(0, 9, (15, 10)) / 8, rng.exponential(1.0, (15, 10))])
    return [dict(zip((*COMPUTE, *NETWORK), row.tolist(), strict=True)) for row in values]


def test_overlapped_passes_take_the_longest_cycle_of_waits(draws):
    program, layers, over = timed("two-batch", 24), 24, 12
    for drawn in draws:
        traces = on_the_clock(program, drawn)
        begin, end = (float(traces[layer, BACK].start_s["experts"][0]) for layer in (layers - 8, layers - 8 - over))
        assert (end - begin) / over == pytest.approx(longest_cycle(drawn), rel=1e-9, abs=1e-12), drawn


def test_passes_in_turn_take_their_sum_and_the_weights_come_last(draws):
    for drawn in draws[::6]:
        layers = 3
        traces = on_the_clock(timed("none", layers), drawn)
        forth, back = (sum(drawn[f"{part}{way}"] for part in "ADMC") for way in "FB")
        weights = layers * (drawn["WM"] + drawn["WA"])
        end = max(float(trace.beside[name][1][0]) for trace in traces.values() for name in trace.beside)
        assert end == pytest.approx(layers * (forth + back) + weights)
        begin = min(float(traces[layer, BACK].beside["expert_weights"][0][0]) for layer in range(layers))
        assert begin == pytest.approx(layers * (forth + back))


@pytest.mark.parametrize("overlap", ["none", "two-batch"])
@pytest.mark.parametrize("permutes_first", [False, True])
def test_the_way_back_begins_in_the_last_layer_and_every_layer_is_passed_both_ways(overlap, permutes_first):
    traces = run(timed(overlap, 4, permutes_first), dict.fromkeys(NAMES, 1.0))
    assert set(traces) == {(layer, way) for layer in range(4) for way in (FORTH, BACK)}
    for way, order in ((FORTH, range(4)), (BACK, range(3, -1, -1))):
        begins = [float(traces[layer, way].start_s["dispatch"][0]) for layer in order]
        assert begins == sorted(begins)
        for layer in range(4):
            start, end = traces[layer, way].start_s, traces[layer, way].end_s
            assert end["dispatch"][0] <= start["experts"][0] and end["experts"][0] <= start["combine"][0]
        gate = [float(traces[layer, way].start_s["gate"][0]) for layer in order]
        ends = [float(traces[layer, way].end_s["combine"][0]) for layer in order]
        if way == BACK:
            assert all(at >= end for at, end in zip(gate, ends, strict=True))
        else:
            assert all(at >= end for at, end in zip(gate[1:], ends, strict=False))
