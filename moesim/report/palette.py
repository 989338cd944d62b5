"""Colours that colour-blind readers can tell apart (Okabe and Ito; cividis), one meaning each on every page."""

from moesim.stages import BESIDE, MIGRATION, STAGES, STEP

INK = "#1c2733"
"""Text and axes of charts; the page swaps it for a light one in dark mode."""
GRID = "#d9dee5"
"""Grid lines of charts, swapped too."""
"""What charts lie on, behind the names of levels; swapped too."""
MARK = "#6b7785"
"""Levels to compare with; swapped too."""

# Blues compute, oranges move bytes, greys wait.
PHASES = {"arrival": "#a9b2bd", **{stage.label: stage.colour for stage in (*STAGES, *STEP)}, "wait": "#87909b"}
WEIGHTS = {stage.label: stage.colour for stage in (MIGRATION, BESIDE)}
"""Of moves of weights, which few runs have."""

_LINK_CLASSES = {"nvlink": "#009e73", "nic": "#d55e00", "leaf-spine": "#cc79a7"}

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6bb3", "#8c6d46", "#87909b")
"""Colours of series without a meaning of their own, in order."""

LINK_WORDS = {"nvlink": "NVLink", "nic": "NIC"}


def link_colour(link_class: str, position: int) -> str:
    """Colour of a link class; ``position`` picks one for a class that a topology adds."""
    return _LINK_CLASSES.get(link_class, SERIES[(position + 4) % len(SERIES)])


def series_colour(position: int) -> str:
    """Colour of the n-th series."""
    return SERIES[position % len(SERIES)]


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a colour: at least 4.5 to 1 on any."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"  # WCAG 2.2, contrast ratio


def cividis() -> tuple[str, ...]:
    """The 256 colours of cividis, dark to light (Nunez, Anderton and Renslow 2018)."""
    return tuple(f"#{_CIVIDIS[i : i + 6]}" for i in range(0, len(_CIVIDIS), 6))


_CIVIDIS = (
    "00224e00234f00245100255300255400265600275800285900285b00295d002a5f002a61002b62002c64002c66002d68002e6a002e6c"
    "002f6d00306f0030700031700031710132710533710833700c34700f357012357014367016377018376f1a386f1c396f1e3a6f203a6f"
    "213b6e233c6e243c6e263d6e273e6e293f6e2a3f6d2b406d2d416d2e416d2f426d31436d32436d33446d34456c35456c36466c38476c"
    "39486c3a486c3b496c3c4a6c3d4a6c3e4b6c3f4c6c404c6c414d6c424e6c434e6c444f6c45506c46516c47516c48526c49536c4a536c"
    "4b546c4c556c4d556c4e566c4f576c50576c51586d52596d535a6d545a6d555b6d555c6d565c6d575d6d585e6d595e6e5a5f6e5b606e"
    "5c616e5d616e5e626e5e636f5f636f60646f61656f62656f636670646770656870656870666970676a71686a71696b716a6c716b6d72"
    "6c6d726c6e726d6f726e6f736f70737071737172747272747273747374757474757575757676767777767777777878777979777a7a78"
    "7b7a787c7b787d7c787e7c787e7d787f7e78807f78817f788280798381798482798582798683798784788885788985788a86788b8778"
    "8c88788d88788e89788f8a78908b78918b78928c78928d78938e78948e77958f779690779791779892779992779a93769b94769c9576"
    "9d95769e96769f9775a09875a19975a29975a39a74a49b74a59c74a69c74a79d73a89e73a99f73aaa073aba072aca172ada272aea371"
    "afa471b0a571b1a570b3a670b4a76fb5a86fb6a96fb7a96eb8aa6eb9ab6dbaac6dbbad6dbcae6cbdae6cbeaf6bbfb06bc0b16ac1b26a"
    "c2b369c3b369c4b468c5b568c6b667c7b767c8b866c9b965cbb965ccba64cdbb63cebc63cfbd62d0be62d1bf61d2c060d3c05fd4c15f"
    "d5c25ed6c35dd7c45cd9c55cdac65bdbc75adcc859ddc858dec958dfca57e0cb56e1cc55e2cd54e4ce53e5cf52e6d051e7d150e8d24f"
    "e9d34eead34cebd44bedd54aeed649efd748f0d846f1d945f2da44f3db42f5dc41f6dd3ff7de3ef8df3cf9e03afbe138fce236fde334"
    "fee434fee535fee636fee838"
)
