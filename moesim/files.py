"""Files and folders that appear whole or not at all: written beside their place under another name, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moesim.errors import ResourceError


@contextmanager
def folder_in_one_piece(target: Path, marker: str) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it takes the place of ``target``, on failure it is gone.

    Args:
        target: the folder to appear. One that exists is replaced if it is empty or holds ``marker``, a file that
            only folders of this kind have.
        marker: see above.

    Raises:
        ResourceError: the place cannot be written, or holds something else.
    """
    target = Path(target)
    if target.exists() and (target.is_file() or (not (target / marker).exists() and any(target.iterdir()))):
        raise ResourceError(f"{target} exists and is not a result of moesim's: choose another place")
    staging = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield staging
        staging.chmod(0o755)
        _take_the_place_of(target, staging)
    except OSError as error:
        raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _take_the_place_of(target: Path, staging: Path) -> None:
    """Rename; what stood there before is removed only once the new folder stands, and put back if it cannot."""
    if not target.exists():
        os.replace(staging, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        os.replace(target, aside / "before")
    except OSError:
        aside.rmdir()
        raise
    try:
        os.replace(staging, target)
    except OSError:
        # Should this fail too, what stood there is still whole, under ``aside``.
        os.replace(aside / "before", target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write single files (paths relative to ``folder``), each whole or not at all.

    Raises:
        ResourceError: a place cannot be written.
    """
    for name, data in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, staging = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.chmod(staging, 0o644)
                os.replace(staging, path)
            except BaseException:
                Path(staging).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error
