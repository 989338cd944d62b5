import re
import subprocess
import sys
from pathlib import Path

import pytest

from moesim.cli import main as command_line
from moesim.profile.__main__ import main
from moesim.profile.csv_columns import COLUMNS, DESCRIPTION, IMPLEMENTATIONS, KERNELS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_torch(monkeypatch):
    for name in [
        name for name in sys.modules if name.startswith(("moesim.profile.timing_session", "moesim.profile.kernels"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)


def test_without_torch_the_module_says_what_to_install(no_torch, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "a.csv")]) == 3
    assert capsys.readouterr().err == "moesim profile needs PyTorch: pip install 'moesim[gpu]'\n"
    assert not list(tmp_path.iterdir())


def test_without_torch_the_command_line_says_what_to_install(no_torch, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["moesim", "profile", "--out", str(tmp_path / "a.csv")])
    with pytest.raises(SystemExit) as caught:
        command_line()
    assert caught.value.code == 3
    assert "pip install 'moesim[gpu]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.txt"], "--out: 'a.txt' does not end in .csv"),
        (["--out", "a.csv", "--budget", "-1"], "--budget: the budget is -1 s; give a positive number of seconds"),
        (["--out", "a.csv", "--budget", "nan"], "--budget: the budget is nan s; give a positive number of seconds"),
        (["--out", "a.csv", "--families", "grouped,gate"], "--families: no family 'gate'; families are copy"),
    ],
)
def test_a_wrong_argument_is_one_line_and_needs_no_torch(no_torch, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_help_runs_where_nothing_is_installed():
    # -S leaves out site-packages: no numpy, no pydantic, no typer, no torch.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "moesim.profile", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--budget" in done.stdout


def test_the_documentation_has_every_column_kernel_and_implementation():
    page = (ROOT / "docs" / "profiling.md").read_text(encoding="utf-8")
    for name, text in (DESCRIPTION | IMPLEMENTATIONS).items():
        assert f"| `{name}` | {text} |" in page
    assert [name for name in KERNELS if f"`{name}`" not in page] == ["anchor_copy", "anchor_gemm"]
    assert (
        tuple(re.findall(r"^\| `(\w+)` \|", page.partition("## The table")[2], re.MULTILINE)[: len(COLUMNS)]) == COLUMNS
    )
