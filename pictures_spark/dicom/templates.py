"""Headers of a series as one common part and what each differs in.

Pure functions on JSON texts. While headers are on their way, a part of one is *lines*: JSON members ``"TAG":{...}``, one a
line, which sort by tag and are compared and put together without being parsed; packed JSON has no line breaks of its own. Equality is that
of the text of an element, so that a rebuilt header is the header, byte for byte: ``1`` and ``1.0`` are not the same. Runs on executors.
"""

import hashlib
from collections.abc import Mapping, Sequence

import orjson

from pictures_spark.dicom.scan import Elements


def as_lines(text: str) -> list[str]:
    """The members of a header's packed JSON, by tag.

    Examples
    --------
    >>> as_lines('{"00080060":{"vr":"CS"},"00200013":{"vr":"IS"}}')
    ['"00080060":{"vr":"CS"}', '"00200013":{"vr":"IS"}']
    """
    return [f'"{tag}":{orjson.dumps(element).decode()}' for tag, element in orjson.loads(text).items()]


def as_json(*parts: str) -> str:
    """The packed JSON of the members in several parts.

    Examples
    --------
    >>> as_json('"00080060":{"vr":"CS"}', "", '"00080018":{"vr":"UI"}')
    '{"00080018":{"vr":"UI"},"00080060":{"vr":"CS"}}'
    """
    return "{" + ",".join(sorted(line for part in parts if part for line in part.split("\n"))) + "}"


def split(rows: Sequence[tuple[str | None, str]], bases: Mapping[str | None, str]) -> tuple[str, list[str]]:
    """The elements that all headers share, as JSON, and the other elements of each, in the order given.

    Parameters
    ----------
    rows : (key of the base, own lines) of each header.
    bases : lines that headers share, by key.

    Examples
    --------
    >>> split([("b", '"00200013":1'), ("b", '"00200013":2')], {"b": '"00080060":3'})
    ('{"00080060":3}', ['{"00200013":1}', '{"00200013":2}'])
    """
    own = [lines.split("\n") if lines else [] for _, lines in rows]
    parts = {key: bases[key].split("\n") if bases[key] else [] for key, _ in rows}
    # What only some of the bases have is as good as each header's own.
    common = frozenset.intersection(*map(frozenset, parts.values()))
    if len(parts) > 1:
        own = [[*lines, *(line for line in parts[key] if line not in common)] for lines, (key, _) in zip(own, rows, strict=True)]
    shared = frozenset.intersection(*map(frozenset, own))
    template = "{" + ",".join(sorted(common | shared)) + "}"
    return template, ["{" + ",".join(sorted(line for line in lines if line not in shared)) + "}" for lines in own]


def rebuild(template_elements: str, differences: str) -> Elements:
    """The full header of an instance from ``header_series.elements`` and ``header_instance.differences``."""
    return dict(sorted((orjson.loads(template_elements) | orjson.loads(differences)).items()))


def template_id(series_uid: str, template_elements: str) -> str:
    """Key of a template: SHA-256 of series UID and common elements, hex."""
    return hashlib.sha256(f"{series_uid}\x1f{template_elements}".encode()).hexdigest()
