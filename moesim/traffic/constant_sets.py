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

from moesim.alltoall_library import ALGORITHMS, Transport, algorithm_named
from moesim.errors import InputError
from moesim.located_yaml import LocatedDocument, load_yaml, validate
from moesim.mistakes import Loc, did_you_mean
from moesim.traffic.calibration_set import CalibrationSet, Place, Step, Uncertain, value_at
from moesim.traffic.constants import Calibration, Protocol
from moesim.units import Bandwidth, Count, Duration, NicBandwidth, Number

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
    "deviations",
    "row_spread",
    "widen",
    "clusters",
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
    return create_model(name, __config__=ConfigDict(extra="forbid", frozen=True, defer_build=True), **(fields | more))


_ProtocolTerms = _terms_model("Protocol", Protocol, set())
_Protocols: Any = tuple.__class_getitem__((_ProtocolTerms, ...))
_PhaseTerms = _terms_model("Phase", Calibration, _OF_THE_SET | {"protocols"}, protocols=(_Protocols, ()))


class _Ports(BaseModel):
    """A GPU's ports, peak payload rate per direction, and its SMs."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    nvlink: Bandwidth = Field(gt=0)
    nic: NicBandwidth = Field(gt=0)
    sms: Count = Field(ge=1, le=1024)


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    ports: dict[str, _Ports]
    families: dict[str, str]
    descends: dict[str, str]
    racks: tuple[str, ...]
    over_clusters: dict[str, str]
    defaults: dict[str, dict[str, str]]


class _Step(BaseModel):
    """How a constant differs from the reference on a GPU or transport."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    factor: Number = Field(gt=0, le=1e6)
    deviation: Number = Field(ge=0, le=10)
    clusters: Count = Field(1, ge=0)


class _Uncertain(BaseModel):
    """Constants that move together from cluster to cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    of: tuple[str, ...] = Field(min_length=1)
    kind: Literal["nvlink", "nic", "setup", "work", "fill", "host"]
    deviation: Number = Field(ge=0, le=10)
    gpu: dict[str, _Step] | None = None
    transport: dict[str, _Step] | None = None


class _SetFile(BaseModel):
    """One file of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    algorithm: str
    gpu: str
    library: str = ""
    source: str
    ports: _Ports | None = None
    transport: Transport = "ibgda"
    rates_count: Literal["wire", "payload"] = "wire"
    rows: tuple[str, ...] = ()
    clusters: dict[str, Count] = Field(default_factory=dict)
    uncertain: tuple[_Uncertain, ...] = ()
    row_spread: Number = Field(0.0, ge=0, le=1)
    widen: Number = Field(1.0, gt=0, le=10)
    error: dict[str, Number] = Field(default_factory=dict)
    held_out: dict[str, Number] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    dispatch: Any
    combine: Any
    across: Any = None


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
    as_written = {field.name for field in dataclasses.fields(CalibrationSet)} & _SetFile.model_fields.keys()
    made = CalibrationSet(
        **{name: getattr(file, name) for name in as_written - {"across", "uncertain"}},
        name=path.stem,
        nvlink_peak=ports.nvlink,
        nic_peak=ports.nic,
        sms=ports.sms,
        phases=phases,
        across=across,
    )
    uncertain = tuple(_uncertain(document, made, index, one) for index, one in enumerate(file.uncertain))
    return dataclasses.replace(made, uncertain=uncertain)


def find_set(algorithm: str, gpu: str, source: str = "auto", transport: str = "ibgda") -> CalibrationSet:
    """Find the constants of an algorithm.

    Args:
        algorithm: one of ``ALGORITHMS``.
        gpu: lower-case name; one without a set of its own takes H100's, else the first there is.
        source: ``auto`` for the default of this algorithm and GPU, a set's name, or the path of a file. The default is
            fitted over clusters where there are several, and taken for this GPU and transport.
        transport: of ``alltoall_library``; sets of one source are of the one that they were measured with.

    Raises:
        InputError: unknown algorithm or set, or a set of another algorithm.
    """
    algorithm_named(algorithm)
    index = _index()
    if source == "auto" and algorithm in index.over_clusters:
        return _of_cell(_shipped(index.over_clusters[algorithm]), gpu, transport)
    if source == "auto":
        defaults = index.defaults[algorithm]
        name = defaults.get(gpu) or defaults.get(_STAND_IN) or next(iter(defaults.values()))
        return _shipped(name)
    shipped = source in set_names()
    if shipped:
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
    return _of_cell(found, gpu, transport) if shipped and source in index.over_clusters.values() else found


def _of_cell(found: CalibrationSet, gpu: str, transport: str) -> CalibrationSet:
    """A set over clusters, for a GPU with its ports and a transport."""
    gpu = gpu if gpu in gpu_names() else _STAND_IN
    nvlink, nic, sms = gpu_ports(gpu)
    return found.with_ports(nvlink, nic).on(gpu, gpu_steps(gpu), transport_steps(gpu, transport), sms)


def gpu_ports(gpu: str, otherwise: CalibrationSet | None = None) -> tuple[float, float, int]:
    """Peaks of a GPU's NVLink and NIC in bytes/s and its SMs; for one that is not known a set's, or H100's."""
    if otherwise is not None and gpu not in _index().ports:
        return otherwise.nvlink_peak, otherwise.nic_peak, otherwise.sms
    ports = _index().ports.get(gpu) or _index().ports[_STAND_IN]
    return ports.nvlink, ports.nic, ports.sms


def gpu_names() -> tuple[str, ...]:
    """GPUs whose ports are known, lower case."""
    return tuple(_index().ports)


def gpu_steps(gpu: str) -> tuple[str, ...]:
    """The GPUs whose steps away from the reference a GPU takes: its family's, before it those that it descends from."""
    family = _index().families.get(gpu, gpu)
    before = _index().descends.get(family)
    return (*(() if before is None else gpu_steps(before)), family)


def transport_steps(gpu: str, transport: str) -> tuple[str, ...]:
    """The transports whose steps away from the reference a GPU takes: who posts, and ``racks`` between NVLink racks."""
    return (transport, "racks") if gpu in _index().racks else (transport,)


def way_between(gpu: str, transport: str, n_nodes: int) -> str:
    """How the ranks of a group reach each other, as errors are counted: ``nvlink`` on one node, else the last step."""
    return transport_steps(gpu, transport)[-1] if n_nodes > 1 else "nvlink"


def _uncertain(document: LocatedDocument, made: CalibrationSet, index: int, one: _Uncertain) -> Uncertain:
    def place(text: str) -> Place:
        parts = tuple(text.split("."))
        for last in (parts[-1] + "_s", parts[-1]):
            try:
                value_at(made, found := (*parts[:-1], last))
            except (InputError, KeyError, AttributeError, ValueError, IndexError):
                continue
            return found
        raise document.error(("uncertain", index, "of"), f"no constant {text!r} in this set", "name a phase and a term")

    def steps(levels: dict[str, _Step] | None) -> dict[str, Step]:
        return {name: Step(step.factor, step.deviation, step.clusters) for name, step in (levels or {}).items()}

    answers = tuple(axis for axis, levels in (("gpu", one.gpu), ("transport", one.transport)) if levels is not None)
    return Uncertain(
        tuple(place(text) for text in one.of), one.kind, one.deviation, steps(one.gpu), steps(one.transport), answers
    )


def calibration(
    algorithm: str,
    gpu: str,
    wire_over_published: float = 1.0,
    sms: int | None = None,
    *,
    phase: str = "dispatch",
    source: str = "auto",
    transport: str = "ibgda",
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
        transport: who posts to the NIC.

    Raises:
        InputError: unknown algorithm or set, mistakes in a file.
    """
    found = find_set(algorithm, gpu, source, transport)
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
        "row_spread": found.row_spread,
        "widen": found.widen,
        "clusters": len(found.clusters),
    }

    def made(terms: dict[str, Any], block: Place, across: Calibration | None) -> Calibration:
        terms = dict(terms)
        if found.rates_count == "payload":
            terms |= {name: terms[name] * wire_over_published for name in ("nvlink_rate", "nic_rate")}
        if sms is not None:
            terms["sms"] = sms
        deviations = tuple(found.deviations_of(block).items())
        return Calibration(**common, **terms, deviations=deviations, across=across)

    across = made(found.across[phase], ("across", phase), None) if found.across else None
    return made(found.phases[phase], (phase,), across)


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
