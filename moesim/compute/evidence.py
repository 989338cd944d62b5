"""What a table's numbers rest on: the bodies of evidence in use, and the best source of each kernel."""

from collections.abc import Iterable

from moesim.compute import pricing
from moesim.compute.fitted import models
from moesim.compute.fitted.coefficients import Fitted, fitted
from moesim.compute.gpus import Gpu
from moesim.compute.measured import MeasuredTable
from moesim.compute.published_tables import Tables

MEMORY = "FlashMLA at c2067be: 3000 of 3350 GB/s on the H800"


def _families(gpu: Gpu) -> dict[str, list[Fitted]]:
    """Return the models that price each kernel of ``gpu``."""
    grouped = [models.find(name, gpu) for name in ("grouped_masked", "grouped_contiguous")]
    whole = [models.find(name, gpu) for name in ("deepep_generation", "deepep_context")]
    dealt = ("flashmla_decode", gpu.name, "bf16") in fitted()
    return {
        "grouped_gemm": whole if models.has_whole_mlp(gpu) else grouped,
        "gemm": [*grouped, models.find("dense_gemm", gpu)],
        "dense_mlp": [models.find("dense_gemm", gpu)],
        "mla_decode": [models.find("flashmla_decode" if dealt else "mla_decode", gpu, "bf16")],
        "mla_prefill": [] if pricing.prefill_rate(gpu) else [models.find("mha_prefill", gpu, "bf16")],
    }


def sources(gpu: Gpu, measured: MeasuredTable | None, published: Tables) -> list[dict[str, str]]:
    """Return one row per body of evidence in use: what it prices and who published it."""
    rows = [{"what": f"peaks of {gpu.title}", "source": gpu.source}]
    if measured is not None:
        source = f"{measured.path}, {measured.rows} rows, sha256 {measured.digest[:12]}"
        rows.append({"what": "expert MLP, measured", "source": source})
    titles = {"masked": "experts, masked", "contiguous": "experts, contiguous", "dense": "dense GEMMs"}
    for kind, table in published.items():
        rows.append({"what": f"{titles.get(kind, kind)}, measured", "source": f"{table.rows} rows of {table.path}"})
    used = {(model.family, model.gpu): model for found in _families(gpu).values() for model in found}
    for model in used.values():
        where = "" if model.gpu == gpu.name else f", of the {model.gpu}"
        source = f"fitted on {model.fit.rows} rows of {model.source}"
        rows.append({"what": f"{models.TITLES[model.family]}{where}", "source": source})
    if rate := pricing.prefill_rate(gpu):
        rows.append({"what": "mla_prefill, rate", "source": pricing.citation(rate)})
    rows.append({"what": "kernels that move data", "source": MEMORY})
    return rows


def describe(
    gpu: Gpu, measured: MeasuredTable | None, published: Tables, kernels: Iterable[str]
) -> list[dict[str, str]]:
    """Return one row per kernel: the best source it can have, over which range, and its error."""
    families = _families(gpu)
    rows = []
    for kernel in kernels:
        stem, _, dtype = kernel.rpartition("_")
        row = {"kernel": kernel, "source": "estimated", "range": "any", "error": "unknown"}
        own = [shape for shape in measured.surfaces if (shape.kernel, shape.dtype) == (stem, dtype)] if measured else []
        found = families.get(kernel) or families.get(stem) or []
        if own and measured:
            errors = [error for shape in own if (error := measured.surfaces[shape].error) is not None]
            row |= {
                "source": "measured",
                "range": ", ".join(f"{shape.hidden} x {shape.inter}" for shape in own),
                "error": f"{100 * max(errors):.1f} % (median, leave one out)" if errors else "unknown",
            }
        elif sizes := _published_sizes(published, stem, dtype, kernel):
            row |= {"source": "measured", "range": "; ".join(sizes), "error": "see moesim kernels check"}
        elif found:
            inside = dtype != "bf16" and all(model.gpu == gpu.name for model in found)
            row |= {"source": "fitted" if inside else "extrapolated", "range": "; ".join(map(_range, found))}
            if inside:
                row["error"] = f"{100 * max(model.held_out.median for model in found):.1f} % (median, held-out rows)"
        rows.append(row)
    return rows


def _published_sizes(published: Tables, stem: str, dtype: str, kernel: str) -> list[str]:
    """Return the sizes of which the tables that ship have rows: hidden x inter of an MLP, n x k, or heads."""
    found: dict[str, set[str]] = {}
    for kind, table in published.items():
        halves = {(s.hidden, s.inter) for s in table.surfaces if (s.kernel, s.dtype) == ("expert_gemm", dtype)}
        dense = {fixed for name, of, fixed in table.grids if (name, of) == ("gemm", dtype)}
        for nk in halves if stem == "grouped_gemm" else dense if stem == "dense_mlp" else set():
            if (nk[1], nk[0] // 2) in (halves if stem == "grouped_gemm" else dense):
                found.setdefault(kind, set()).add(f"{nk[1]} x {nk[0] // 2}")
        whole = {f"{s.hidden} x {s.inter}" for s in table.surfaces if (s.kernel, s.dtype) == (stem, dtype)}
        grids = {" x ".join(map(str, fixed)) for name, of, fixed in table.grids if name == kernel}
        gemms = {" x ".join(map(str, nk)) for nk in dense} if stem == "gemm" else set()
        if own := whole | grids | gemms:
            found.setdefault(kind, set()).update(own)
    return [f"{kind}: {', '.join(sorted(sizes))}" for kind, sizes in found.items()]


def _range(model: Fitted) -> str:
    spans = (
        f"{axis} {low:g} to {high:g}" if low < high else f"{axis} {low:g}"
        for axis, (low, high) in model.covered.items()
    )
    return f"{model.family} of {model.gpu}: {', '.join(spans)}"
