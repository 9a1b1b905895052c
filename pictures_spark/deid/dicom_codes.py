"""Published codes, and what they mean by their publisher: the only code items that a de-identified file may hold.

The meaning in a file is free text, and so may the code be; a code that a published scheme has is replaced by itself with the scheme's own
meaning, so that nothing of the file is copied. The lists are those that pydicom ships.
"""

from functools import cache
from typing import Any

from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from pictures_spark.resources import load_schema

_LONGEST_MEANING = 64  # LO


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
    return _meanings(published).get(value)


@cache
def _meanings(scheme: str) -> dict[str, str]:
    meanings = {}
    published: dict[str, Any] = concepts.get(scheme, {})
    for codes in published.values():
        for value, (meaning, *_) in codes.items():
            meanings[value] = meaning.encode("ascii", "ignore").decode()[:_LONGEST_MEANING]
    return meanings
