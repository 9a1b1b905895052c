"""Published codes, and what they mean by their publisher: the only code items that a de-identified file may hold.

The meaning in a file is free text, and so may the code be; a code that a published scheme has is replaced by itself with the scheme's own
meaning, so that nothing of the file is copied. The lists are those that pydicom ships. Units (UCUM) are not listed but put together: one is
published where each of its parts is, and means itself.
"""

import re
from functools import cache
from typing import Any

from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from pictures_spark.deid.dicom_scrub import known_code
from pictures_spark.resources import load_schema

_LONGEST_MEANING = 64  # LO
_LONGEST_UNIT = 16  # SH


def standard_code(scheme: str, value: str) -> str | None:
    """The published meaning of a code, ASCII, at most 64 characters; None where scheme or code is not on the lists.

    Examples
    --------
    >>> standard_code("DCM", "113100"), standard_code("SRT", "T-B7000"), standard_code("SCT", "0101501234")
    ('Basic Application Confidentiality Profile', 'Parathyroid structure (body structure)', None)
    """
    published = load_schema("deid/code_schemes.yaml").get(scheme)
    if published is None:
        return None
    if published == "SRT":
        published, value = "SCT", mapping["SRT"].get(value, "")
    found = _meanings(published).get(value)
    return value if found is None and published == "UCUM" and is_unit(value) else found


def is_unit(value: str) -> bool:
    """Whether a text is a unit as UCUM writes them; ``100`` may stand before one without a dot, as DICOM has it (PS3.16 CID 83).

    Examples
    --------
    >>> [is_unit(text) for text in ("ml/100ml/s", "mmol/(l.min)", "10-6.mm2/s", "JANE", "ml{Jane}", "m.0101501234")]
    [True, True, True, False, False, False]
    """
    plain = re.sub(r"[()]", "", value)
    notes = re.findall(r"[{]([^{}]*)[}]", value)
    return bool(_units().fullmatch(plain)) and len(value) <= _LONGEST_UNIT and all(map(known_code, notes))


@cache
def _units() -> re.Pattern[str]:
    declared = load_schema("deid/ucum.yaml")
    prefixes, metric, other = ("|".join(map(re.escape, declared[name])) for name in ("prefixes", "metric", "other"))
    part = rf"(?:[0-9]{{0,3}}(?:(?:{prefixes})?(?:{metric})|{other})(?:[+-]?[0-9]{{1,2}})?|10[+-]?[0-9]{{1,2}}|\[?[0-9]{{1,3}}\]?)"
    part = rf"(?:{part}(?:{{[A-Za-z0-9]{{1,16}}}})?|{{[A-Za-z]{{1,16}}}})"
    return re.compile(rf"/?{part}(?:[./]{part}){{0,5}}")


@cache
def _meanings(scheme: str) -> dict[str, str]:
    meanings = {}
    published: dict[str, Any] = concepts.get(scheme, {})
    for codes in published.values():
        for value, (meaning, *_) in codes.items():
            meanings[value] = meaning.encode("ascii", "ignore").decode()[:_LONGEST_MEANING]
    return meanings
