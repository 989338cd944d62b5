"""Sets of all-to-all constants, read from ``moesim/data/calibration``: one file per library, GPU and source.

``calibration_defaults.yaml`` beside it names the ports that rates were measured on and the default set of each
algorithm and GPU. A set's file gives its terms under ``dispatch`` and ``combine``, by the names of ``Calibration``
without ``_s``, with units; where the library runs another kernel across nodes, that one's under ``across``. A user's
own file has the same form.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from moesim.alltoall_library import ALGORITHMS, algorithm_named
from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, validate
from moesim.mistakes import Loc, did_you_mean
from moesim.traffic.constants import Calibration, Protocol
from moesim.units import Bandwidth, Count, Duration, Number

__all__ = ["ALGORITHMS", "Calibration", "CalibrationSet", "Protocol", "calibration", "find_set", "set_names"]

DATA = Path(__file__).resolve().parent.parent / "data" / "calibration"
PHASES = ("dispatch", "combine")
# Whose constants another GPU takes.
_STAND_IN = "h100"
# Fields of ``Calibration`` that the set as a whole determines.
_OF_THE_SET = {
    "algorithm",
    "gpu",
    "phase",
    "name",
    "source",
    "nvlink_peak",
    "nic_peak",
    "total_sms",
    "rows",
    "error",
    "held_out",
    "across",
}


def _terms_model(name: str, made: type, without: set[str], **more: Any) -> Any:
    """A pydantic model of a dataclass's terms: durations lose their ``_s``, every quantity has its unit."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(made):
        if field.name in without:
            continue
        required = field.default is dataclasses.MISSING
        default: Any = ... if required else field.default
        if field.name.endswith("_s"):
            fields[field.name.removesuffix("_s")] = (Duration, Field(default, ge=0, le=10))
        elif "rate" in field.name:
            fields[field.name] = (Bandwidth, Field(default, ge=0))
        elif field.name == "sms":
            fields[field.name] = (Count, Field(default, ge=0, le=1024))
        elif field.name == "name":
            fields[field.name] = (str, ...)
        else:
            fields[field.name] = (Number, Field(default, ge=-1e9 if "slope" in field.name else 0, le=1e9))
    return create_model(name, __config__=ConfigDict(extra="forbid", frozen=True), **(fields | more))


_ProtocolTerms = _terms_model("Protocol", Protocol, set())
_Protocols: Any = tuple.__class_getitem__((_ProtocolTerms, ...))
_PhaseTerms = _terms_model("Phase", Calibration, _OF_THE_SET | {"protocols"}, protocols=(_Protocols, ()))


class _Ports(BaseModel):
    """A GPU's ports, peak payload rate per direction, and its SMs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    nvlink: Bandwidth = Field(gt=0)
    nic: Bandwidth = Field(gt=0)
    sms: Count = Field(ge=1, le=1024)


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    ports: dict[str, _Ports]
    defaults: dict[str, dict[str, str]]


class _SetFile(BaseModel):
    """One file of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    algorithm: str
    gpu: str
    library: str = ""
    source: str
    ports: _Ports | None = None
    rates_count: Literal["wire", "payload"] = "wire"
    rows: tuple[str, ...] = ()
    error: dict[str, Number] = Field(default_factory=dict)
    held_out: dict[str, Number] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dispatch: Any
    combine: Any
    across: Any = None


@dataclasses.dataclass(frozen=True)
class CalibrationSet:
    """Constants of one library on one GPU from one source.

    Attributes:
        name: the file's, without suffix; ``algorithm`` and ``gpu`` that it was measured with.
        library, source: release, and where the figures come from.
        nvlink_peak, nic_peak, sms: the ports and the GPU that the rates were measured on.
        rates_count: whether rates are of bytes on the wire or of the payload that the library's benchmark counts.
        rows: ledger rows that the set was fitted on; error: what it leaves there, by name; empty for defaults.
        held_out: number of ``rows`` of the same library and GPU that it was not fitted on, and how far it is off there.
        notes: what to know.
        phases: terms of ``dispatch`` and ``combine`` by the names of ``Calibration``, SI.
        across: the same of the kernel that spans nodes, empty where it is no other.
    """

    name: str
    algorithm: str
    gpu: str
    library: str
    source: str
    nvlink_peak: float
    nic_peak: float
    sms: int
    rates_count: str
    rows: tuple[str, ...]
    error: dict[str, float]
    held_out: dict[str, float]
    notes: tuple[str, ...]
    phases: dict[str, dict[str, Any]]
    across: dict[str, dict[str, Any]]


def set_names(algorithm: str | None = None) -> list[str]:
    """Names of moesim's own sets, of one algorithm or of all, sorted."""
    names = sorted(path.stem for path in DATA.glob("*.yaml"))
    return [name for name in names if algorithm is None or _shipped(name).algorithm == algorithm]


def read_set(path: Path) -> CalibrationSet:
    """Read a set from its file.

    Raises:
        InputError: the file's mistakes, each with its line.
    """
    document = load_yaml(path)
    file = validate(_SetFile, document)
    if file.algorithm not in ALGORITHMS:
        fix = did_you_mean(file.algorithm, list(ALGORITHMS), "algorithms")
        raise document.error(("algorithm",), f"unknown all-to-all algorithm {file.algorithm!r}", fix)
    ports = file.ports or _index().ports.get(file.gpu)
    if ports is None:
        known = ", ".join(_index().ports)
        raise document.error(("gpu",), f"the ports of {file.gpu!r} are not known ({known} are)", "give ports: too")
    phases = {phase: _phase_terms(document, (phase,)) for phase in PHASES}
    across = {}
    if file.across is not None:
        across = {phase: _phase_terms(document, ("across", phase)) for phase in PHASES}
    return CalibrationSet(
        name=path.stem,
        algorithm=file.algorithm,
        gpu=file.gpu,
        library=file.library,
        source=file.source,
        nvlink_peak=ports.nvlink,
        nic_peak=ports.nic,
        sms=ports.sms,
        rates_count=file.rates_count,
        rows=file.rows,
        error=file.error,
        held_out=file.held_out,
        notes=file.notes,
        phases=phases,
        across=across,
    )


def find_set(algorithm: str, gpu: str, source: str = "auto") -> CalibrationSet:
    """Find the constants of an algorithm.

    Args:
        algorithm: one of ``ALGORITHMS``.
        gpu: lower-case name; one without a set of its own takes H100's, else the first there is.
        source: ``auto`` for the default of this algorithm and GPU, a set's name, or the path of a file.

    Raises:
        InputError: unknown algorithm or set, or a set of another algorithm.
    """
    algorithm_named(algorithm)
    if source == "auto":
        defaults = _index().defaults[algorithm]
        name = defaults.get(gpu) or defaults.get(_STAND_IN) or next(iter(defaults.values()))
        return _shipped(name)
    if source in set_names():
        found = _shipped(source)
    elif Path(source).suffix in (".yaml", ".yml"):
        found = read_set(Path(source))
    else:
        fix = did_you_mean(source, set_names(algorithm), f"sets of {algorithm}")
        raise InputError(f"unknown calibration {source!r}", where="alltoall.calibration", fix=fix)
    if found.algorithm != algorithm:
        what = f"{source} holds the constants of {found.algorithm}, the algorithm is {algorithm}"
        names = ", ".join(set_names(algorithm))
        raise InputError(what, where="alltoall.calibration", fix=f"use auto or one of {names}")
    return found


def calibration(
    algorithm: str,
    gpu: str,
    wire_over_published: float = 1.0,
    sms: int | None = None,
    *,
    phase: str = "dispatch",
    source: str = "auto",
) -> Calibration:
    """Return the constants of an algorithm on a GPU.

    Args:
        algorithm: one of ``ALGORITHMS``.
        gpu: lower-case name, such as ``h800``; one without constants takes another's and says so in ``source``.
        wire_over_published: bytes of a copy on the wire over those that the library's benchmark counts; the rates of a
            set that counts the latter are multiplied by it.
        sms: SMs of the communication kernel, where the user set them.
        phase: ``dispatch`` or ``combine``.
        source: ``auto``, a set's name, or the path of a file.

    Raises:
        InputError: unknown algorithm or set, mistakes in a file.
    """
    found = find_set(algorithm, gpu, source)
    index = _index()
    said = found.source
    if gpu != found.gpu and gpu not in index.defaults[algorithm]:
        said += f"; no constants for {gpu}: {found.gpu.upper()}'s are used"
    common: dict[str, Any] = {
        "algorithm": algorithm,
        "gpu": gpu,
        "phase": phase,
        "name": found.name,
        "source": said,
        "nvlink_peak": found.nvlink_peak,
        "nic_peak": found.nic_peak,
        "total_sms": index.ports[gpu].sms if gpu in index.ports else found.sms,
        "rows": found.rows,
        "error": tuple(found.error.items()),
        "held_out": tuple(found.held_out.items()),
    }

    def made(terms: dict[str, Any], across: Calibration | None) -> Calibration:
        terms = dict(terms)
        if found.rates_count == "payload":
            terms |= {name: terms[name] * wire_over_published for name in ("nvlink_rate", "nic_rate")}
        if sms is not None:
            terms["sms"] = sms
        return Calibration(**common, **terms, across=across)

    return made(found.phases[phase], made(found.across[phase], None) if found.across else None)


@functools.cache
def _shipped(name: str) -> CalibrationSet:
    return read_set(DATA / f"{name}.yaml")


@functools.cache
def _index() -> _Index:
    return validate(_Index, load_yaml(DATA.with_name("calibration_defaults.yaml")))


def _phase_terms(document: LocatedDocument, at: Loc) -> dict[str, Any]:
    terms = validate(_PhaseTerms, document, at=at)
    return _values(terms, Calibration) | {
        "protocols": tuple(Protocol(**_values(one, Protocol)) for one in terms.protocols)
    }


def _values(terms: Any, made: type) -> dict[str, Any]:
    """The terms of a file by the names of the dataclass."""
    names = {field.name: field.name.removesuffix("_s") for field in dataclasses.fields(made)}
    return {name: getattr(terms, key) for name, key in names.items() if hasattr(terms, key) and name != "protocols"}
