"""Peaks of NVLink and PCIe: by the answers, the data sheet, or lanes and their speed."""

import re

from moesim.topology_files.imported import Answers, Imported
from moesim.units import parse_bandwidth

# NVLink of a GPU: GB/s of one link and direction, links. NVIDIA's data sheets; A800 and H800 have fewer links.
NVLINKS: dict[str, tuple[float, int]] = {
    "p100": (20, 4), "v100": (25, 6), "a100": (25, 12), "a800": (25, 8), "h100": (25, 18), "h200": (25, 18),
    "h20": (25, 18), "gh200": (25, 18), "h800": (25, 8), "b200": (50, 18), "gb200": (50, 18), "b300": (50, 18),
    "gb300": (50, 18), "a40": (14.0625, 4), "a6000": (14.0625, 4), "rtx3090": (14.0625, 4),
}  # fmt: skip


def nvlink_rate(imported: Imported, answers: Answers, links: int | None = None) -> float | None:
    """Bytes/s of a GPU's NVLinks by the answers or the data sheet; asks where neither says."""
    if answers.nvlink is not None:
        imported.sources["nvlink"] = "from --nvlink"
        return answers.nvlink
    if answers.gpu in NVLINKS:
        each, most = NVLINKS[answers.gpu]
        count = capped(imported, answers.gpu, links) if links is not None else most
        imported.sources["nvlink"] = f"data sheet: {count} x {each:g} GB/s of {a_gpu(answers.gpu)}"
        return each * count * 1e9
    if answers.gpu:
        imported.ask("--nvlink", f"the NVLink rate of {answers.gpu}, such as 450GB/s")
    return None


def capped(imported: Imported, gpu: str, links: int) -> int:
    """Return the NVLinks that a file shows, no more than the GPU has: an H800 may show 18 of its 8."""
    each, most = NVLINKS.get(gpu, (0.0, links))
    if links > most:
        imported.warn(f"NV{links}, but {a_gpu(gpu)} has {most} NVLinks: capped at its {each * most:g} GB/s")
    return min(links, most)


def a_gpu(name: str) -> str:
    """The GPU's name with its article: "an H100"."""
    return f"{'an' if name[:1] in 'ahlr' else 'a'} {name.upper()}"


PCIE = {2.5: 0.8, 5.0: 0.8, 8.0: 128 / 130, 16.0: 128 / 130, 32.0: 128 / 130, 64.0: 1.0}
"""Share of the raw bits that is payload, by GT/s of a lane."""


def pcie_peak(gt_per_s: float, lanes: int) -> float:
    """Bytes/s of a PCIe link, one direction."""
    return lanes * gt_per_s / 8 * PCIE.get(gt_per_s, 128 / 130) * 1e9


def parse_pcie(text: str) -> float:
    """Read ``gen5 x16`` or a bandwidth; bytes/s of one direction.

    Raises:
        InputError: neither.
    """
    match = re.fullmatch(r"\s*gen([1-6])\s*x(1|2|4|8|16)\s*", text)
    return pcie_peak(list(PCIE)[int(match[1]) - 1], int(match[2])) if match else parse_bandwidth(text)
