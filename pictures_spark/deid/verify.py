"""Check a de-identified file against its source with code that shares nothing with the code that made it.

What enters: the bytes of both, the policy's settings and the :class:`Identity`. What leaves: findings, none of which quotes a value; one
is enough to withhold the instance. Pure; executors. It is deliberately plain: parse both with pydicom, list what the source says about
people, look for it.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.uid import UID_dictionary

from pictures_spark.deid.dicom_codes import standard_code
from pictures_spark.deid.dicom_identity import Identity

# An identifier this long is looked for in every byte of the file; a shorter one would be found in pixels by chance.
_SEARCH_IN_BYTES = 8
_PLAIN_VRS = {"CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "AT", "TM"}
_TEXT_VRS = {"LO", "SH", "ST", "LT", "UT", "UC", "PN"}
_BULK_VRS = {"OB", "OW", "OF", "OD", "OV"}
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}


@dataclass(frozen=True)
class Finding:
    """Something that must not leave: a code, and the keyword of the attribute where there is one. Never a value."""

    code: str
    keyword: str = ""


def verify(original: bytes, result: bytes, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    """Everything in ``result`` that may not be there; an empty list where it may leave.

    * ``unreadable``: pydicom cannot parse the result;
    * ``tag``, ``vr``, ``text``, ``bulk``: an attribute, value representation, text or bytes that no result may hold;
    * ``uid``: a UID that is neither registered nor the project's UID for one of the source;
    * ``date``: a date that is not a date of the same attribute in the source, moved by the patient's offset;
    * ``identifier``: a value of an identifying attribute of the source, or an identifier that the zone knows of the person;
    * ``statement``: the file does not say that it was de-identified.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            checked = dcmread(BytesIO(result))
            elements = list(_elements(checked))
            meta = list(checked.file_meta)
        except Exception:  # noqa: BLE001 - whatever it is, such a file does not leave
            return [Finding("unreadable")]
        source = _Source(original, policy)
        findings = _structure(elements, meta, policy, identity)
        findings += _uids(elements, meta, source, identity)
        findings += _dates(elements, source, identity)
        findings += _identifiers(elements, result, policy, source, identity)
        if checked.get("PatientIdentityRemoved") != "YES" or checked.get("PatientID") != identity.patient or checked.preamble != bytes(128):
            findings.append(Finding("statement"))
    return list(dict.fromkeys(findings))


class _Source:
    """What the source says: its UIDs, dates by attribute, and the values of identifying attributes."""

    def __init__(self, data: bytes, policy: dict[str, Any]) -> None:
        identifying = {tag_for_keyword(keyword) for keyword in policy["identifiers"]}
        self.uids: set[str] = set()
        self.registered: set[str] = set()
        self.dates: dict[int, set[str]] = {}
        self.identifiers: set[str] = set()
        dataset = dcmread(BytesIO(data), force=True)
        for tag, vr, raw in [*_raw_values(dataset), *_raw_values(getattr(dataset, "file_meta", Dataset()))]:
            value = raw.decode("latin-1")
            parts = [part.strip(" \0") for part in value.split("\\")]
            if vr == "UI":
                for part in filter(None, parts):
                    (self.registered if part in UID_dictionary else self.uids).add(part)
            elif vr in ("DA", "DT"):
                self.dates.setdefault(tag, set()).update(parts)
            elif vr == "PN":
                self.identifiers.update(word for part in parts for word in [part, *re.split(r"[=^ ,]+", part)])
            elif tag in identifying:
                self.identifiers.update(parts)


def _raw_values(dataset: Dataset) -> Iterator[tuple[int, str, bytes]]:
    """(tag, VR, bytes) of every element at any depth, as far as the source can be parsed."""
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
        if vr == "SQ":
            try:
                items = list(dataset[tag].value)
            except Exception:  # noqa: BLE001 - the source may be damaged
                continue
            for item in items:
                yield from _raw_values(item)
        elif isinstance(element, RawDataElement):
            yield int(tag), "UN" if vr is None else vr, bytes(element.value or b"")
        elif isinstance(element.value, str):
            yield int(tag), vr, element.value.encode("latin-1", "replace")


def _elements(dataset: Dataset, top: bool = True) -> Iterator[tuple[DataElement, Dataset, bool]]:
    """(element, its data set, whether at the top) of every element of the result."""
    for element in dataset:
        yield element, dataset, top
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item, top=False)


def _structure(elements: list, meta: list[DataElement], policy: dict[str, Any], identity: Identity) -> list[Finding]:
    findings = []
    bulk = {tag_for_keyword(keyword) for keyword in policy["bulk"]}
    for element, holder, top in elements:
        tag = int(element.tag)
        group = tag >> 16
        if element.tag.is_private or group < 8 or (0x5000 <= group <= 0x60FF and group != 0x5200) or not dictionary_has_tag(tag):
            findings.append(Finding("tag"))
            continue
        vr, keyword = str(element.VR), str(element.keyword)
        if vr in _TEXT_VRS:
            if not _allowed_text(element, holder, policy, identity):
                findings.append(Finding("text", keyword))
        elif vr in _BULK_VRS:
            if tag not in bulk or (tag in _PIXELS and not top):
                findings.append(Finding("bulk", keyword))
        elif vr not in _PLAIN_VRS | {"UI", "DA", "DT", "SQ"}:
            findings.append(Finding("vr", keyword))
        elif vr == "CS" and any(not re.fullmatch(r"[A-Z0-9 _]{0,16}", str(v)) for v in _values(element)):
            findings.append(Finding("text", keyword))
    allowed_meta = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
    findings += [Finding("tag", str(e.keyword)) for e in meta if int(e.tag) not in allowed_meta]
    return findings


def _allowed_text(element: DataElement, holder: Dataset, policy: dict[str, Any], identity: Identity) -> bool:
    value, keyword = str(element.value or ""), str(element.keyword)
    if value in ("", policy["dummy"]):
        return True
    if keyword in ("PatientID", "PatientName"):
        return value == identity.patient
    if keyword == "AccessionNumber":
        return re.fullmatch(r"[0-9a-f]{16}", value) is not None
    if keyword == "DeidentificationMethod":
        return value == f"{policy['written']['method']} {policy['policy']} {policy['version']}"
    if keyword in ("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning"):
        code = str(holder.get("CodeValue") or holder.get("LongCodeValue") or "")
        return standard_code(str(holder.get("CodingSchemeDesignator", "")), code) == str(holder.get("CodeMeaning", ""))
    pattern = policy["accept"].get(keyword)
    return pattern is not None and all(re.fullmatch(pattern, str(part)) for part in _values(element))


def _uids(elements: list, meta: list[DataElement], source: _Source, identity: Identity) -> list[Finding]:
    expected = {identity.uid(uid) for uid in source.uids | source.registered}
    own = ("ImplementationClassUID",)
    findings = []
    for element in [element for element, _, _ in elements] + meta:
        if element.VR != "UI" or element.keyword in own:
            continue
        for value in map(str, _values(element)):
            if value and value not in UID_dictionary and (value in source.uids or value not in expected):
                findings.append(Finding("uid", str(element.keyword)))
    return findings


def _dates(elements: list, source: _Source, identity: Identity) -> list[Finding]:
    findings = []
    for element, _, _ in elements:
        if element.VR not in ("DA", "DT"):
            continue
        for value in map(str, _values(element)):
            if value and _moved(value, -identity.shift_days) not in {
                v.replace(".", "", 2) if element.VR == "DA" else v for v in source.dates.get(int(element.tag), set())
            }:
                findings.append(Finding("date", str(element.keyword)))
    return findings


def _moved(value: str, days: int) -> str | None:
    try:
        moved = datetime.strptime(value[:8], "%Y%m%d") + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}{value[8:]}"


def _identifiers(elements: list, result: bytes, policy: dict[str, Any], source: _Source, identity: Identity) -> list[Finding]:
    ours = {policy["dummy"], identity.patient}
    shortest = policy["limits"]["identifier_length"]
    known = {value.strip() for value in source.identifiers | identity.known}
    known = {value for value in known if len(value) >= shortest and value not in ours}
    findings = []
    for value in known | {uid for uid in source.uids if len(uid) >= 16}:
        if len(value) >= _SEARCH_IN_BYTES and any(needle in result for needle in _encodings(value)):
            findings.append(Finding("identifier"))
    short = {value.upper() for value in known}
    for element, _, _ in elements:
        if element.VR == "CS":
            words = {word.upper() for value in _values(element) for word in [str(value), *re.split(r"[ _]+", str(value))]}
        elif element.VR in ("IS", "DS"):
            words = {word for value in _values(element) for word in re.findall(r"[0-9]{6,}", str(value))}
        else:
            continue
        if words & short:
            findings.append(Finding("identifier", str(element.keyword)))
    return findings


def _encodings(value: str) -> Iterator[bytes]:
    for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be"):
        try:
            yield value.encode(encoding)
        except UnicodeEncodeError:
            continue


def _values(element: DataElement) -> list:
    if element.value is None or element.VM == 0:
        return []
    return list(element.value) if element.VM > 1 else [element.value]
