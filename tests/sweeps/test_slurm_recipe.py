"""The Slurm recipe of docs/cluster.md: the job script is one that a shell and sbatch read, with options that exist."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/cluster.md").read_text()
(SCRIPT,) = re.findall(r"```bash\n(#!.*?)```", PAGE, re.DOTALL)
(RECIPE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_job_script_asks_for_as_many_tasks_as_workers_run():
    lines = SCRIPT.splitlines()
    head = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[0].startswith("#!") and lines[1 : 1 + len(head)] == head  # sbatch stops reading at the first command
    asked = dict(re.fullmatch(r"#SBATCH --([a-z-]+)=(\S+)", line).groups() for line in head)
    assert asked["ntasks"].isdecimal() and asked["cpus-per-task"] == "1"
    assert re.fullmatch(r"\d\d:\d\d:\d\d", asked["time"]) and re.fullmatch(r"\d+[KMGT]", asked["mem-per-cpu"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_shell_reads_the_job_script():
    subprocess.run(["bash", "-n"], input=SCRIPT, text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["scheduler", "worker"])
def test_dask_has_the_options_of_the_job_script(program):
    pytest.importorskip("distributed", reason="needs moesim[dask]")
    (line,) = re.findall(rf"dask {program} (.*) &", SCRIPT)
    told = subprocess.run([sys.executable, "-m", "dask", program, "--help"], capture_output=True, text=True, check=True)
    for option in re.findall(r"--[a-z-]+", line):
        assert option in told.stdout or option.replace("--no-", "--") in told.stdout


def test_the_script_that_dask_jobqueue_makes_of_the_recipe_asks_for_the_same():
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue")
    calls = [one for one in ast.walk(ast.parse(RECIPE)) if isinstance(one, ast.Call)]
    (call,) = (one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "SLURMCluster")
    cluster = jobqueue.SLURMCluster(**{option.arg: ast.literal_eval(option.value) for option in call.keywords})
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    assert "#SBATCH --cpus-per-task=16" in script and "#SBATCH -t 02:00:00" in script and "#SBATCH -p cpu" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
