"""``--wait``: what the verbs that hold an output folder have in common."""

import typer

from moesim.output_folder import waiting


def _wait(wanted: bool) -> bool:
    waiting.set((lambda line: typer.echo(line, err=True)) if wanted else None)
    return wanted


WAIT = typer.Option(False, "--wait", help="Wait while another process has the folder.", callback=_wait)
