"""Output for people at a terminal: narrow ones, closed pipes, completion, the progress bar."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moesim.cli import progress_bar as module
from moesim.cli.completion import keys
from moesim.cli.progress_bar import progress_bar
from moesim.cli.show import console, print_run, table
from moesim.results import load_result

ROOT = Path(__file__).parents[2]
CODE = "import sys; from moesim.cli import main; sys.argv[0] = 'moesim'; main()"
WIDE = [(f"n{row}.gpu2->rail2.leaf", *(f"{column * row}.25 ms" for column in range(1, 12))) for row in (7, 9)]
COLUMNS = ("link", *(f"quantity {column}" for column in range(1, 12)))


def printed(what, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    console().print(what)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_gets_every_cell_beside_its_row(width, monkeypatch, capsys):
    out = printed(table("", COLUMNS, WIDE), width, monkeypatch, capsys)
    assert "…" not in out and max(map(len, out.splitlines())) <= width
    for name, *cells in WIDE:
        mine = " ".join(line.removeprefix(name) for line in out.splitlines() if line.startswith(name))
        assert re.findall(r"\d+\.25 ms", mine) == cells
    heads = [line for line in out.splitlines() if line.startswith("link ")]
    assert len(heads) > 1 and re.findall(r"quantity \d+", " ".join(heads)) == list(COLUMNS[1:])


def test_a_name_wider_than_the_terminal_is_folded_not_cut(monkeypatch, capsys):
    name = "".join(map(str, range(40)))
    out = printed(table("", ("id", "value"), [(name, "1.5 ms")]), 30, monkeypatch, capsys)
    folded = "".join(re.findall(r"^\d+", out, re.MULTILINE))
    assert folded == name and "1.5 ms" in out


def test_words_wrap_and_keep_their_first_column_whole(monkeypatch, capsys):
    words = ("dispatch_deepep_rdma_bytes_per_s", " ".join(f"word{i}" for i in range(60)))
    out = printed(table("", ("number", "meaning"), [words], words=True), 80, monkeypatch, capsys)
    assert words[0] in out and re.findall(r"word\d+", out) == words[1].split()
    assert max(map(len, out.splitlines())) <= 80


def test_a_pipe_gets_one_line_a_row_and_no_blanks_at_its_end(capsys):
    rows = [("a", "x" * 500, ""), ("b", "y" * 400, "")]
    console().print(table("title", ("id", "long", ""), rows))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["title"], ["id", "long"], ["a", "x" * 500], ["b", "y" * 400]]
    assert all(line == line.rstrip() for line in lines)


def test_the_losses_are_part_of_what_a_run_prints(run_folder, capsys):
    result = load_result(run_folder)
    print_run(result)
    out = capsys.readouterr().out
    for key in ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss"):
        assert re.search(rf"^{key} +{result.summary[key]:.4g}$", out, re.MULTILINE)


@pytest.mark.parametrize("words", [("topo", "list"), ("schema",), ("kernels", "list"), ("explain", "RUN")])
def test_a_closed_pipe_is_silent_and_no_failure(words, run_folder):
    arguments = [str(run_folder) if word == "RUN" else word for word in words]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_explain_without_a_number_lists_every_number_with_its_value_and_meaning(moesim, run_folder):
    done = moesim("explain", run_folder)
    result = load_result(run_folder)
    listed = {line.split()[0] for line in done.out.splitlines()[1:]}
    assert done.code == 0 and set(result.summary) <= listed
    assert re.search(r"^copies_per_token +4 +\S", done.out, re.MULTILINE)


def test_balance_says_where_the_bias_starts(moesim, here):
    start = moesim("balance", "small.yaml", "--logits-fixed", "--steps", 1).out.splitlines()[0]
    assert start == "bias by itself, from zero; logits fixed"


@pytest.mark.parametrize("topology", ["h800-8x8-rail", "h200-4x8-rail", "FILE"])
def test_run_knows_a_topology_when_it_is_given_one(topology, moesim, here):
    given = topology if topology != "FILE" else str(ROOT / "topologies" / "hgx-h100.yaml")
    done = moesim("run", given)
    assert done.code == 2 and "topology, not a scenario" in done.err and f"--topology {given}" in done.err


def offered(words, moesim_completes="complete_bash"):
    line = " ".join(("moesim", *words))
    env = {**os.environ, "_MOESIM_COMPLETE": moesim_completes, "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("swe",), {"sweep"}),
        (("run", "quick"), {"quickstart"}),
        (("run", "--topology", "h100-"), {"h100-8x8-leaf-spine"}),
        (("topo", "show", "gb200"), {"gb200-nvl72"}),
        (("run", "quickstart", "-o", "routing.top"), {"routing.top_k=", "routing.top_groups="}),
        (("sweep", "quickstart", "-p", "paral"), {"parallel."}),
        (("explain", "results", "nic_"), {"nic_wire_bytes"}),
    ],
)
def test_the_shell_completes_verbs_names_keys_and_numbers(words, found):
    assert found <= set(offered(words))
    assert all(word.startswith(words[-1]) for word in offered(words))


def test_every_key_that_is_offered_is_one_of_a_scenario_and_has_its_meaning():
    blocks = {name: meaning for name, meaning in keys("") if name.endswith(".")}
    assert {"cluster.", "routing.", "workload."} <= set(blocks)
    for block in blocks:
        assert all(name.startswith(block) and meaning for name, meaning in keys(block))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_comes_after_its_time_and_counts(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(quiet=False, after_s=30.0) as watch:
        watch("layers", 1, 4)
    assert screen.getvalue() == ""
    with progress_bar(quiet=False, after_s=0.0) as watch:
        for done in range(1, 4):
            time.sleep(0.15)
            watch("layers", done, 4)
        time.sleep(0.3)
    assert "layers" in screen.getvalue() and "3/4" in screen.getvalue() and "left" in screen.getvalue()


def test_a_quiet_run_and_a_pipe_load_no_bar(monkeypatch):
    monkeypatch.setattr(module, "Timer", lambda *_: pytest.fail("a bar"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(quiet=True) as watch:
        watch("layers", 1, 4)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(quiet=False) as watch:
        watch("layers", 1, 4)
