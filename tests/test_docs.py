"""The documentation says what the program does: links, verbs, keys, commands and constants are checked against it."""

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from moesim.alltoall_library import ALGORITHMS
from moesim.cli.app import program
from moesim.cluster import find_topology
from moesim.located_yaml import parse_yaml
from moesim.network import solve_flows
from moesim.placement import contiguous
from moesim.results.result import TABLES
from moesim.routing import RouterSpec, affinity, gate_mass_lost, route
from moesim.scenario import json_schema, load_scenario
from moesim.scenario.named_files import is_path, shipped_names
from moesim.traffic import count_copies
from moesim.traffic.copy_bytes import payload_bytes, wire_bytes

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "reports/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(page, language):
    return [body for tongue, body in FENCE.findall(page.read_text(encoding="utf-8")) if tongue == language]


def anchors(page):
    """The anchors that a page's headings get on the web: lower case, punctuation dropped, dashes for blanks."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def command_lines():
    """Every line of a console block that calls moesim, without its prompt, output and comment."""
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("$ moesim "):
                    yield pytest.param(shlex.split(line[2:], comments=True), id=f"{page.name}: {line[2:70]}")


def verbs(command=None, above=()):
    command = command or get_command(program())
    for name, below in command.commands.items():
        if hasattr(below, "commands"):
            yield from verbs(below, (*above, name))
        else:
            yield " ".join((*above, name))


def schema_keys():
    """(section, dotted key, choices) of every key below the top level of a scenario."""
    schema = json_schema()

    def blocks_in(node):
        """Blocks that a value may be: references, also inside a choice or a list."""
        if "$ref" in node:
            yield schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            yield from blocks_in(choice)

    def choices(node):
        found = [value for value in (*node.get("enum", ()), node.get("const")) if isinstance(value, str)]
        for choice in node.get("anyOf", ()):
            found += choices(choice)
        return found

    def walk(block, path):
        for name, node in block.get("properties", {}).items():
            yield (*path, name), choices(node)
            for inner in blocks_in(node):
                yield from walk(inner, (*path, name))

    for path, values in walk(schema, ()):
        yield path[0], ".".join(path), values


KEYS = sorted({(section, key) for section, key, _ in schema_keys()})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_are_there(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("verb", list(verbs()))
def test_the_command_line_page_shows_every_verb(verb):
    commands = "\n".join(blocks(ROOT / "docs/cli.md", "console"))
    assert re.search(rf"^\$ moesim {verb}\b", commands, re.MULTILINE)


def test_the_readme_lists_every_verb_with_a_link_to_its_section():
    rows = re.findall(r"^\| \[`([\w-]+)`\]\(docs/cli\.md#([\w-]+)\) \|", read("README.md"), re.MULTILINE)
    assert sorted(rows) == sorted((name, name) for name in get_command(program()).commands)


@pytest.mark.parametrize("words", list(command_lines()))
def test_commands_of_the_documentation_parse(words):
    command, arguments = get_command(program()), words[1:]
    for mark in (">", "|"):
        arguments = arguments[: arguments.index(mark)] if mark in arguments else arguments
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("moesim", list(arguments))


@pytest.mark.parametrize("words", list(command_lines()))
def test_scenarios_and_topologies_of_the_documentation_ship(words):
    if "--topology" in words:
        find_topology(words[words.index("--topology") + 1])
    elif words[1] in ("run", "place", "balance") and not is_path(words[2]):
        overrides = [value for flag, value in pairwise(words) if flag == "-o"]
        assert words[2] in shipped_names("scenarios")
        load_scenario(words[2], overrides=[text for text in overrides if not text.endswith((".npz", ".json"))])
    if words[1] == "bw" or words[1:3] == ["topo", "show"]:
        find_topology(words[3 if words[1] == "topo" else 2])


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[key for _, key in KEYS])
def test_the_scenario_page_explains_every_key(section, key):
    page = read("docs/scenario.md")
    own = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    # A key of a nested block stands in its section by its own name.
    nested = own is not None and f"`{key.rsplit('.', 1)[-1]}`" in own[1]
    assert f"| `{key}` |" in page or nested


def test_the_scenario_page_names_every_choice_and_no_key_that_does_not_exist():
    page = read("docs/scenario.md")
    missing = {(key, value) for _, key, values in schema_keys() for value in values if f"`{value}`" not in page}
    assert not missing
    known = {key for _, key in KEYS}
    listed = set(re.findall(r"^\| `([a-z_]+\.[a-z_.]+)` \|", page, re.MULTILINE))
    assert listed
    assert listed <= known


def test_examples_of_the_scenario_page_load():
    examples = blocks(ROOT / "docs/scenario.md", "yaml")
    assert len(examples) >= 4
    for text in examples:
        load_scenario({"cluster": {"topology": "h800-8x8-rail"}} | parse_yaml(text, "docs/scenario.md").data)


def test_the_method_page_has_every_algorithm_and_the_bytes_that_the_program_uses():
    page = read("docs/method.md")
    for algorithm in ALGORITHMS:
        assert f"`{algorithm}`" in page
        assert f"# `{algorithm}`" in read(f"docs/algorithms/{algorithm}.md")
    for algorithm, phase in (("deepep-normal", "dispatch"), ("deepep-low-latency", "dispatch")):
        in_bytes = [f"{wire_bytes(algorithm, phase, 7168, dtype, 8):,}" for dtype in ("bf16", "fp8")]
        assert f"| {' / '.join(in_bytes)} |" in page


def followed_token():
    """The section of the method page that follows one token, and the last cell of its rows by their first."""
    section = re.search(r"^## One token, followed$(.*?)(?=^## )", read("docs/method.md"), re.MULTILINE | re.DOTALL)[1]
    return section, dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE))


def test_the_followed_token_takes_the_experts_that_the_router_selects():
    section, rows = followed_token()
    spec, bias = RouterSpec("v3", n_experts=8, top_k=3), -0.05 * (np.arange(8) == 5)
    logits = np.array([[float(x) for x in rows["logits"].split(",")]])
    assignment, s = route(logits, spec, bias=bias), affinity(logits, spec)[0]
    ids = assignment.expert_ids
    order = np.argsort(-(s + bias)[ids[0]], kind="stable")
    chosen, kept = ids[0, order], s[ids[0]].sum()
    assert rows["affinities"] == "expert " + ", ".join(f"{i}: {s[i]:.4f}" for i in (0, 3, 4, 5))
    assert rows["experts"] == f"{', '.join(map(str, chosen))} (expert 5 comes to {s[5] + bias[5]:.4f})"
    assert rows["gates"] == ", ".join(f"{gate:.4f}" for gate in assignment.gates[0, order])
    assert f"s / {kept:.4f}, " in section
    assert f"1 - {kept:.4f} / {np.sort(s)[-3:].sum():.4f}, " in section
    assert rows["gate mass lost"] == f"{100 * gate_mass_lost(logits, spec, ids)[0]:.2f} %"
    assert rows["ranks"] == ", ".join(str(rank) for rank in contiguous(8, 4).slot_rank[chosen])


def test_the_followed_token_has_the_copies_bytes_and_times_that_the_stages_give():
    section, rows = followed_token()
    placement = contiguous(8, 4)
    # All eight tokens: rank r's first and second, whose experts lie on p (neighbour), q (same GPU elsewhere) and d.
    p, q, d = np.arange(4) ^ 1, np.arange(4) ^ 2, np.arange(4) ^ 3
    first = np.stack([2 * q, 2 * q + 1, 2 * d], axis=1)
    second = np.stack([2 * np.arange(4), 2 * p + 1, 2 * q], axis=1)
    assert set(second[0]) == {int(i) for i in rows["experts"].split(" (")[0].split(", ")}
    experts, home = np.concatenate([first, second]), np.tile(np.arange(4, dtype=np.int32), 2)
    ranks = count_copies(experts, home, placement.slot_rank, 4, 2, dedup="rank")
    nodes = count_copies(experts, home, placement.slot_rank, 4, 2, dedup="node")
    mine = [count_copies(second[:1], home[:1], placement.slot_rank, 4, 2, dedup=dedup) for dedup in ("rank", "node")]
    assert rows["copies"].startswith(f"{mine[0].sum()} (own rank 0, 1, 2); {mine[1].sum()} (")

    times = {}
    for phase, dtype in (("dispatch", "fp8"), ("combine", "bf16")):
        copy = wire_bytes("deepep-normal", phase, 128, dtype, 3)
        links, weights, sizes, ptr = [], [], [], [0]
        for source in range(4):
            for node in range(2):  # links: 0-3 NIC out, 4-7 NIC in, 8-11 NVLink out, 12-15 NVLink in
                forwarder = 2 * node + source % 2
                beside = forwarder ^ 1
                share = ranks[source, beside] / nodes[source, node]
                own = forwarder == source
                links += ([] if own else [source, 4 + forwarder]) + [8 + forwarder, 12 + beside]
                weights += ([] if own else [2, 2]) + [2 * share, 2 * share]
                sizes.append(int(nodes[source, node]) * copy)
                ptr.append(len(links))
        carried = np.bincount(links, np.repeat(sizes, np.diff(ptr)) * weights) / 2
        if phase == "dispatch":
            assert rows["bytes of a copy"] == f"{payload_bytes(128, dtype)}; {copy}"
            assert rows["NVLink, own node"] == rows["NIC, other node"] == f"{copy} bytes"
            assert f"| own node | 1 copy, {sizes[0]} |" in section
            assert f"| other node | 2 copies, {sizes[1]} |" in section
            assert set(carried) == {sizes[1]}
        else:
            assert f"= {copy} bytes each" in section
        capacity = np.repeat([50e9, 50e9, 200e9, 200e9], 4)
        times[phase] = solve_flows(capacity, np.zeros(16), ptr, links, sizes, np.zeros(8), weight=weights).max() * 1e9
    assert f"the NIC 352 / 25 = {times['dispatch']:.2f} ns" in section
    assert f"**dispatch takes {times['dispatch']:.2f} ns**" in section
    assert f"{sizes[1]} / 25 = **{times['combine']:.2f} ns**" in section


def test_the_architecture_page_names_every_table_and_package():
    page = read("docs/architecture.md")
    packages = [path.parent.name for path in (ROOT / "moesim").glob("*/__init__.py")]
    assert {name for name in (*TABLES, "training", *packages) if f"`{name}`" not in page} == set()


@pytest.mark.jit
def test_the_python_example_of_the_readme_runs(tmp_path):
    examples = blocks(ROOT / "README.md", "python")
    assert examples
    for text in examples:
        done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
