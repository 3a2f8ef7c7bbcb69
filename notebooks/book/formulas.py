"""Translate TeX into MathML, which browsers draw without any script."""
import re
import unicodedata

from latex2mathml.converter import convert

ALPHABETS = {"double-struck": "DOUBLE-STRUCK", "script": "SCRIPT", "fraktur": "FRAKTUR", "bold": "BOLD"}


def to_mathml(tex: str, display: str = "inline") -> str:
    """One formula as a <math> element. display: inline or block."""
    mathml = convert(tex, display=display).replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # \sim is a relation, with space around it
    mathml = mathml.replace(">\\|<", ">&#x02016;<")  # of \big\|, which the converter leaves as it is
    mathml = re.sub(r"(<mi>[a-z]{2,}</mi>)(?=<mi>)", r'\1<mspace width="0.167em" />', mathml)  # log p, not logp
    return re.sub(r'<m[io] mathvariant="([a-z-]+)">(.)</m[io]>', _letter, mathml)


def _letter(found: re.Match) -> str:
    """The Unicode letter, such as 𝔼 for a double-struck E; browsers ignore the attribute mathvariant."""
    variant, letter = found.groups()
    if variant not in ALPHABETS or not letter.isascii():
        return found[0]
    name = f"{ALPHABETS[variant]} {unicodedata.name(letter).removeprefix('LATIN ').replace('LETTER ', '')}"
    for full in (f"MATHEMATICAL {name}", name):  # ℝ, ℒ and a few others have no MATHEMATICAL in their names
        try:
            return f"<mi>{unicodedata.lookup(full)}</mi>"
        except KeyError:
            continue
    return found[0]
