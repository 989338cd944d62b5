"""The command line as a user types it, in this process: exit code, standard output, standard error."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from moesim.cli import main

SCENARIO = """\
name: small
cluster: {topology: hgx-h800}
model: {preset: deepseek-v3, n_experts: 32, hidden: 1024, expert_hidden: 256}
routing: {kind: v3, top_k: 4, groups: 8, top_groups: 4}
workload:
  synthetic: {kind: lognormal, sigma: 0.8, sequence_length: 16}
  tokens_per_rank: 64
"""
STEP = """\
name: step
cluster: {topology: h200-2x4-rail}
model: {preset: deepseek-v3, n_experts: 32, hidden: 1024, expert_hidden: 256, layers: 8}
routing: {kind: v3, top_k: 4, groups: 4, top_groups: 2}
workload: {synthetic: {kind: zipf, exponent: 0.5}, requests: 16, context: 1024, layers_simulated: 2}
alltoall: {algorithm: deepep-low-latency}
schedule: {phase: decode}
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder with a small scenario in it."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pages(monkeypatch):
    """Leave the pages out where a test is not about them: drawing one takes longer than the run."""
    monkeypatch.setattr("moesim.report.render_run", lambda *_, **__: "<p>run</p>")
    monkeypatch.setattr("moesim.report.render_comparison", lambda *_, **__: "<p>comparison</p>")


@pytest.fixture
def moesim(monkeypatch, capsys) -> Callable[..., Done]:
    def call(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["moesim", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Done(left.value.code, out, err)

    return call


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """The folder of one small run, with its report; do not change it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.yaml").write_text(SCENARIO)
    patch = pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["moesim", "run", str(folder / "small.yaml"), "--out", str(folder / "run"), "-q"])
    with pytest.raises(SystemExit) as left:
        main()
    patch.undo()
    assert left.value.code == 0
    return folder / "run"
