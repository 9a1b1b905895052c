"""Headers of a series as one common part and what each differs in.

Pure functions on JSON texts. Equality is that of the text of an element, so that a rebuilt header is the header, byte for byte: ``1`` and
``1.0`` are not the same. Runs on executors.
"""

import hashlib
from collections.abc import Iterable, Sequence

import orjson

from pictures_spark.dicom.scan import Elements


def split(headers: Sequence[str]) -> tuple[str, list[str]]:
    """The elements that all headers share, and the other elements of each, in the order given.

    Examples
    --------
    >>> split(['{"00080060":{"vr":"CS"},"00200013":1}', '{"00080060":{"vr":"CS"},"00200013":2}'])
    ('{"00080060":{"vr":"CS"}}', ['{"00200013":1}', '{"00200013":2}'])
    """
    parts = [{tag: orjson.dumps(element) for tag, element in orjson.loads(header).items()} for header in headers]
    first, *others = parts
    common = {tag: text for tag, text in first.items() if all(other.get(tag) == text for other in others)}
    return _join(common.items()), [_join((tag, text) for tag, text in part.items() if tag not in common) for part in parts]


def rebuild(template_elements: str, differences: str) -> Elements:
    """The full header of an instance from ``header_series.elements`` and ``header_instance.differences``."""
    return dict(sorted((orjson.loads(template_elements) | orjson.loads(differences)).items()))


def template_id(series_uid: str, template_elements: str) -> str:
    """Key of a template: SHA-256 of series UID and common elements, hex."""
    return hashlib.sha256(f"{series_uid}\x1f{template_elements}".encode()).hexdigest()


def _join(parts: Iterable[tuple[str, bytes]]) -> str:
    return orjson.dumps({tag: orjson.Fragment(text) for tag, text in parts}, option=orjson.OPT_SORT_KEYS).decode()
