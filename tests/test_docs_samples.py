"""Pages whose commands are run, the generated reference, and the tasks of the examples."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import kernel_fits  # noqa: E402
import reference  # noqa: E402
import samples  # noqa: E402
from examples import tasks  # noqa: E402

from tests.cli.conftest import moesim as moesim_fixture  # noqa: E402

moesim = moesim_fixture


@pytest.fixture
def run(monkeypatch, moesim):
    """Commands of moesim in this process, which has it loaded; others in a shell."""

    def call(command, folder):
        monkeypatch.chdir(folder)
        words = shlex.split(command.replace("\\\n", " "), comments=True)
        if words[0] != "moesim" or set("|<>&;$*") & set(command):
            return samples.printed(command, folder)
        done = moesim(*words[1:])
        return done.code, (done.err + done.out).splitlines()

    return call


@pytest.mark.jit
@pytest.mark.timeout(900)
def test_the_questions_are_answered_by_what_the_program_prints(run):
    _, wrong = samples.check(ROOT / "docs/questions.md", run)
    assert not wrong, "\n".join(wrong)


@pytest.mark.jit
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", [*(pytest.param(page, marks=pytest.mark.slow) for page in ("document", "plan")), "workloads", "groups"]
)
def test_the_page_shows_what_the_program_prints(page, run):
    _, wrong = samples.check(ROOT / f"docs/{page}.md", run)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_command_line_page_shows_what_the_program_prints():
    _, wrong = samples.check(ROOT / "docs/cli.md")
    assert not wrong, "\n".join(wrong)


def test_the_reference_is_what_the_program_declares():
    assert (ROOT / "docs/reference.md").read_text(encoding="utf-8") == reference.page(), "python docs/reference.py"


def test_the_page_on_kernels_has_the_tables_of_the_shipped_files():
    assert kernel_fits.tables() in (ROOT / "docs/kernels.md").read_text(encoding="utf-8")


def test_the_reference_has_every_option_and_key_once():
    page = reference.page()
    keys = re.findall(r"^\| `([a-z_.]+)` \|", page.partition("## Keys")[2].partition("## Numbers")[0], re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert {"cluster.oversubscription", "routing.top_k", "workload.synthetic.kind", "sweep.random.points"} <= set(keys)
    assert "| `--override`" not in page and "| `-o`, `--override` |" in page


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        ("layer  929.9 us (849.7 us to 1.058 ms)  100 %", "layer    1.2 ms (1.1 to 1.3)  100 %"),
        ("expert compute   334.2 us  35.9%", "expert compute  1.2 ms  7.0%"),
        ("critical: rank 42 (even), rank 24 (slow)", "critical: rank 3 (even), rank 1 (slow)"),
        ("info: 3,072 tokens of tiny-v3, each ...", "info: 12 tokens of tiny-v3, each recorded once"),
        ("nearest: 153 GB/s (...); 384 tokens per rank ...", "nearest: 15 GB/s (README); 9 tokens per rank, and more"),
        (
            "nearest: 153 GB/s logical ... this run has 384 tokens",
            "nearest: 15 GB/s logical, x y; this run has 9 tokens",
        ),
    ],
)
def test_a_shown_line_is_printed_whatever_its_numbers(shown, line):
    assert samples.pattern(shown).match(line)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        ("layer  929.9 us  100 %", "layer  929.9 us"),
        ("bottleneck: the NICs", "bottleneck: NVLink"),
        ("info: 3,072 tokens of tiny-v3", "info: 3,072 tokens of tiny-v1"),
        ("dispatch  315.8 us", "dispatch  315.8 us  35 %"),
    ],
)
def test_a_line_with_other_words_is_not_the_shown_one(shown, line):
    assert not samples.pattern(shown).match(line)


def test_a_page_is_refused_for_a_line_that_is_not_printed_and_gets_fresh_numbers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one 12.5 us; echo two 3\none 99 ms\ntwo 4\n$ echo done; false\ngone\n```\n")
    text, wrong = samples.check(page)
    assert "\none 12.5 us\ntwo 3\n" in text
    assert len(wrong) == 2 and "does not print: gone" in "\n".join(wrong) and "ends with 1" in wrong[0]


def answers(name, tokens=64):
    return [float(number) for number in re.findall(r"(?<![\w.-])\d+(?:\.\d+)?", tasks.TASKS[name](tokens))]


@pytest.mark.jit
@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task_ends_in_an_answer_with_numbers(name):
    assert len(answers(name)) >= 3


def test_the_cache_of_mla_is_the_published_one():
    # DeepSeek-V3: 61 layers of 512 + 64 channels in BF16, 70.272 kB; 128 heads of 128 twice over.
    assert answers("mla")[0] == pytest.approx(61 * 576 * 2 / 1e3, abs=0.01)
    assert answers("mla")[-1] == pytest.approx(2 * 128 * 128 / 576, abs=0.1)


@pytest.mark.jit
def test_a_slow_nic_makes_the_layer_longer_and_a_limit_loses_gate_mass():
    longer = re.search(r"(\d+)% longer", tasks.slow_nic(512))
    assert longer and int(longer[1]) > 10
    lost = [float(share) for share in re.findall(r"([\d.]+)% of gate mass", tasks.limit(64))]
    assert len(lost) == 4 and lost == sorted(lost, reverse=True)
