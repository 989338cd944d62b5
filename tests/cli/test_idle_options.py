"""An option that has no effect beside the others is refused before anything is done, with what makes it idle."""

import inspect

import pytest

from moesim.cli.app import program
from moesim.cli.idle_options import _IDLE
from tests.attacks.formats import TOPO_M

HOST = ("topo", "import", "host.txt", "--gpu", "h100", "--nic", "400Gb/s", "--nvlink", "450GB/s")
MODEL = ("model", "deepseek-v3")
# The command without the options, the options, which of them are idle, and why.
IDLE = [
    (MODEL, "--gpu nope", "--gpu", "without --context"),
    (MODEL, "--requests 4 --new 2 --ep 8 --redundant 1 --weights bf16", "--requests, --new, --ep, --redundant, "
     "--weights", "without --context"),
    (("model",), "--context 4096 --gpu h100", "--context, --gpu", "without NAME"),
    (("run", "small.yaml", "--quick"), "--out out --figures", "--out, --figures", "with --quick"),
    (("run", "small.yaml", "--quick"), "--band exact", "--band", "with --quick"),
    (("run", "small.yaml", "--quick"), "--max-mem 8GB --no-report", "--no-report, --max-mem", "with --quick"),
    (("sweep", "small.yaml", "-p", "seed=0..1"), "--random-seed 3", "--random-seed", "without --random"),
    (("balance", "small.yaml"), "--from-recorded", "--from-zero/--from-recorded", "without --logits-fixed"),
    (("balance", "small.yaml"), "--domain-steps 5", "--domain-steps", "without --domains"),
    (("balance", "small.yaml", "--logits-fixed"), "--out out --layers 2", "--layers, --out", "with --logits-fixed"),
    (("balance", "small.yaml", "--logits-fixed"), "--method v3 --fit s.npz", "--method, --fit", "with --logits-fixed"),
    (("validate", "--rows", "rows.csv"), "--page p.html --steps", "--page, --steps", "with --rows"),
    (("validate", "--rows", "rows.csv", "x.yaml"), "--table deepep", "FILE, --table", "with --rows"),
    (("validate", "--steps"), "--page p.html --every-row", "--every-row, --page", "with --steps"),
    (("validate", "--steps"), "--given gpu=h100 --fail-over 5%", "--given, --fail-over", "without --rows"),
    (("replay", "import", "r.json", "RUN", "--matrix", "m.txt"), "--layer 1 --phase combine", "--phase, --layer",
     "with --matrix"),
    (("sweep", "small.yaml", "--dask", "tcp://a:1"), "--scheduler-file f", "--scheduler-file", "with --dask"),
    (("what-breaks", "small.yaml", "--dask", "tcp://a:1"), "--scheduler-file f", "--scheduler-file", "with --dask"),
    (HOST, "--spines 4 --nodes-per-leaf 2", "--spines, --nodes-per-leaf", "without --fabric"),
    (("validate", "x.yaml"), "--given a=1", "--given", "without --rows"),
]  # fmt: skip


@pytest.fixture
def typed(moesim, here, run_folder):
    (here / "host.txt").write_text(TOPO_M)

    def call(*words):
        before = sorted(here.iterdir())
        done = moesim(*(run_folder if word == "RUN" else word for word in words))
        return done, sorted(here.iterdir()) == before

    return call


@pytest.mark.parametrize(("command", "options", "idle", "why"), IDLE, ids=[f"{row[0][0]} {row[1]}" for row in IDLE])
def test_options_without_effect_are_named_and_refused(typed, command, options, idle, why):
    done, untouched = typed(*command, *options.split())
    have = "have" if "," in idle else "has"
    assert (done.code, done.out) == (2, "") and untouched, done
    assert done.err.startswith(f"{idle} {have} no effect {why}") and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("report", "RUN", "--baseline", "RUN"), "--baseline: a run against itself"),
        (
            ("balance", "small.yaml", "--method", "v1", "--bias-update", "magnitude"),
            "--bias-update and --bias-form are v3's",
        ),
        (("routing", "export", "small.yaml", "--out", "t.npz", "--layer", 0), "--layer: npz has every layer"),
        (("kernels", "show", "h100", "--gpu", "h200"), "--gpu: h100 is a GPU itself"),
    ],
)
def test_what_has_no_effect_on_such_a_value_is_refused_too(typed, command, said):
    done, untouched = typed(*command)
    assert (done.code, done.out) == (2, "") and untouched and said in done.err, done


def test_options_that_have_an_effect_are_not_refused(typed, here):
    done, _ = typed(*MODEL, "--context", 4096, "--gpu", "h100", "--requests", 4, "--ep", 8, "--weights", "bf16")
    assert done.code == 0, done.err
    assert typed(*MODEL, "--context", 4096, "--gpu", "nope")[0].err.startswith("unknown GPU 'nope'")
    assert typed(*HOST, "--out", "node.yaml")[0].code == 0


def test_the_table_names_verbs_and_parameters_that_there_are():
    known = {}
    app = program()
    for group in (app, *(below.typer_instance for below in app.registered_groups)):
        for command in group.registered_commands:
            verb = [*([group.info.name] if group is not app else []), command.name or command.callback.__name__]
            known[" ".join(verb).replace("_", "-")] = set(inspect.signature(command.callback).parameters)
    for verb, rules in _IDLE.items():
        for beside, idle in rules.items():
            assert beside.split()[0] in ("with", "without")
            assert {beside.split()[1], *idle.split()} <= known[verb], (verb, beside)
