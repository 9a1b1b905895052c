"""Check a de-identified file against its source with code that shares nothing with the code that made it.

What enters: the bytes of both, the policy's settings and the :class:`Identity`. What leaves: findings, none of which quotes a value; one
is enough to withhold the instance. Pure; executors. It is deliberately plain: parse both with pydicom, list what the source says about
people, look for it.
"""

import re
import shutil
import struct
import subprocess
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import generate_fragments
from pydicom.pixels import get_decoder
from pydicom.uid import UID, UID_dictionary

from pictures_spark.deid.dicom_codes import standard_code
from pictures_spark.deid.dicom_identity import Box, Identity
from pictures_spark.deid.dicom_scrub import known_code, known_word
from pictures_spark.linkage.identity import normalise, scheme
from pictures_spark.resources import load_schema

# An identifier this long is looked for in every byte of the file; a shorter one would be found in pixels by chance.
_SEARCH_IN_BYTES = 8
_PLAIN_VRS = {"CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "AT", "TM"}
_TEXT_VRS = {"LO", "SH", "ST", "LT", "UT", "UC", "PN"}
_BULK_VRS = {"OB", "OW", "OF", "OD", "OV"}
# Pseudonyms and statements of the engine, not texts of a source.
_WRITTEN = {"PatientID", "PatientName", "AccessionNumber", "DeidentificationMethod"}
_FORMS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "I"}
_FORMS_OF = {"AT": lambda tag: (int(tag) & 0xFFFF) << 16 | int(tag) >> 16}
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
# Options of Table E.1-1 under which text stays, cleaned.
_TEXT_OPTIONS = {"descriptors", "structured_content", "patient", "device", "institution"}
_UNDETERMINED = {"unreadable", "undecodable"}
_DATES_IN_TEXT = (
    re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}[-/. ](?:0[1-9]|1[0-2])[-/. ](?:0[1-9]|[12][0-9]|3[01])(?![0-9])"),
    re.compile(r"(?<![0-9.])[0-3]?[0-9]([-/.])[0-3]?[0-9]\1(?:19|20)?[0-9]{2}(?![0-9.])"),
)


@dataclass(frozen=True)
class Finding:
    """Something that must not leave: a code, and the keyword of the attribute where there is one. Never a value."""

    code: str
    keyword: str = ""


@dataclass(frozen=True)
class Checked:
    """What a check found, and the texts of the result: (path of keywords, value), for people to read before release."""

    findings: list[Finding]
    texts: frozenset[tuple[str, str]] = frozenset()


def verify(original: bytes, result: bytes, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    """Everything in ``result`` that may not be there; an empty list where it may leave. See `check`."""
    return check(original, result, policy, identity).findings


def check(original: bytes, result: bytes, policy: dict[str, Any], identity: Identity) -> Checked:
    """Look in ``result`` for what may not be there, with code that shares nothing with the code that made it.

    * ``unreadable``: pydicom cannot parse the result;
    * ``tag``, ``vr``, ``text``, ``bulk``: an attribute, value representation, text or bytes that no result may hold;
    * ``uid``: a UID that is neither registered nor the project's UID for one of the source;
    * ``date``: a date that is not a date of the same attribute in the source, moved by the patient's offset;
    * ``identifier``: a value of an identifying attribute of the source, or an identifier that the zone knows of the person;
    * ``value``: a value of an attribute that was to be removed, in some other attribute;
    * ``pixels``: a pixel outside the boxes is not what it was, or one inside is not blank; ``undecodable``: it could not be told;
    * ``statement``: the file does not say that it was de-identified.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            checked = dcmread(BytesIO(result))
            elements = list(_elements(checked))
            meta = list(checked.file_meta)
            source = _Source(original, policy)
        except Exception:  # noqa: BLE001 - whatever it is, such a file does not leave
            return Checked([Finding("unreadable")])
        findings = _structure(elements, meta, policy, identity)
        findings += _uids(elements, meta, source, policy, identity)
        findings += _dates(elements, source, 0 if "full_dates" in policy["options"] else identity.shift_days)
        findings += _cleaned(elements, policy, source, identity)
        findings += _values_elsewhere(elements, policy, source, identity)
        findings += _pixels(source.dataset, checked, (*identity.boxes, *_rectangles(source.dataset, policy["pixels"])))
        findings += _identifiers(elements, result, policy, source, identity)
        if checked.get("PatientIdentityRemoved") != "YES" or checked.get("PatientID") != identity.patient or checked.preamble != bytes(128):
            findings.append(Finding("statement"))
    return Checked(list(dict.fromkeys(findings)), frozenset(_texts(checked)))


def _texts(dataset: Dataset, path: str = "") -> Iterator[tuple[str, str]]:
    """(path of keywords, value) of every text at any depth; items of a sequence share a path."""
    for element in dataset:
        name = f"{path}{element.keyword or f'({int(element.tag):08X})'}"
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item, f"{name}.")
        elif element.VR in _TEXT_VRS | {"CS"} and element.keyword not in _WRITTEN:
            yield from ((name, str(value)) for value in _values(element) if str(value))


def verdict(findings: Iterable[Finding]) -> str:
    """``clean``, ``found``, or ``not_determined`` where nothing was found because something could not be read. Only the first may leave."""
    codes = {finding.code for finding in findings}
    if not codes:
        return "clean"
    return "not_determined" if codes <= _UNDETERMINED else "found"


def conformance(original: bytes, result: bytes) -> list[str] | None:
    """What dicom3tools' ``dciodvfy`` finds wrong with the result and not with the source, by kind; None where it is not installed.

    The lines quote attribute names, never values: what is in angle brackets or quotes is left out.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        return None
    before, after = (_errors(program, data) for data in (original, result))
    return sorted((after - before).elements())


def _errors(program: str, data: bytes) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.dcm")
        path.write_bytes(data)
        said = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", timeout=60, check=False)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
    return Counter(re.sub(r"<[^<>]*>$|'[^']*'|\"[^\"]*\"", "", line).strip() for line in lines)


class _Source:
    """What the source says: its UIDs, dates by attribute, and the values of identifying attributes."""

    def __init__(self, data: bytes, policy: dict[str, Any]) -> None:
        identifying = {tag_for_keyword(keyword) for keyword in policy["identifiers"]}
        self.uids: set[str] = set()
        self.registered: set[str] = set()
        self.dates: dict[int, set[str]] = {}
        self.identifiers: set[str] = set()
        self.names: set[str] = set()
        self.texts: dict[int, set[str]] = {}
        dataset = self.dataset = dcmread(BytesIO(data), force=True)
        for tag, vr, raw in [*_raw_values(dataset), *_raw_values(getattr(dataset, "file_meta", Dataset()))]:
            value = raw.decode("latin-1")
            parts = [part.strip(" \0") for part in value.split("\\")]
            if vr == "UI":
                for part in filter(None, parts):
                    (self.registered if part in UID_dictionary else self.uids).add(part)
            elif vr in ("DA", "DT"):
                self.dates.setdefault(tag, set()).update(parts)
            elif vr == "PN":
                words = {word for part in parts for word in [part, *re.split(r"[=^ ,]+", part)]}
                self.identifiers |= words
                self.names |= words
            elif tag in identifying:
                self.identifiers.update(parts)
            if vr in _TEXT_VRS:
                self.texts.setdefault(tag, set()).update(parts)


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
        if element.tag.is_private:
            if not _private_allowed(element, holder, policy):
                findings.append(Finding("tag"))
            continue
        if group < 8 or group >> 8 in (0x50, 0x60) or not dictionary_has_tag(tag):
            findings.append(Finding("tag"))
            continue
        vr, keyword = str(element.VR), str(element.keyword)
        if vr in _TEXT_VRS:
            if not _allowed_text(element, holder, policy, identity):
                findings.append(Finding("text", keyword))
        elif vr in _BULK_VRS:
            if tag not in bulk or (tag in _PIXELS and not top):
                findings.append(Finding("bulk", keyword))
        elif vr == "AS":
            if not _text_kept(tag, policy) or not re.fullmatch(r"0[0-8][0-9]Y|090Y|[0-9]{3}[DWM]|", str(element.value or "")):
                findings.append(Finding("vr", keyword))
        elif vr not in _PLAIN_VRS | {"UI", "DA", "DT", "SQ"}:
            findings.append(Finding("vr", keyword))
        elif vr == "CS":
            known = policy["text"] != "vocabulary" or all(known_code(str(v)) for v in _values(element))
            if not known or any(not re.fullmatch(r"[A-Z0-9 _]{0,16}", str(v)) for v in _values(element)):
                findings.append(Finding("text", keyword))
    allowed_meta = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
    findings += [Finding("tag", str(e.keyword)) for e in meta if int(e.tag) not in allowed_meta]
    return findings


def _private_allowed(element: DataElement, holder: Dataset, policy: dict[str, Any]) -> bool:
    """A private element that the policy lists under its creator, or the creator of one."""
    group, number = element.tag.group, element.tag.element
    if "safe_private" not in policy["options"]:
        return False
    if 0x10 <= number <= 0xFF:
        return any(
            str(element.value) == creator and any(int(k[:4], 16) == group for k in policy["private"][creator])
            for creator in policy["private"]
        )
    creator = str(holder[group, number >> 8].value) if (group, number >> 8) in holder else ""
    entry = policy["private"].get(creator, {}).get(f"{group:04X},xx{number & 0xFF:02X}", "")
    vr, _, pattern = entry.partition(" ")
    return bool(vr) and str(element.VR) == vr and (not pattern or all(re.fullmatch(pattern, str(v)) for v in _values(element)))


def _text_kept(tag: int, policy: dict[str, Any]) -> bool:
    """Whether the policy lets cleaned text stay in an attribute."""
    override = _overridden(policy["policy"], policy["version"], _Frozen(policy)).get(tag)
    if override is not None:
        return override == "clean"
    row = load_schema(f"deid/{policy['standard']}.yaml")["attributes"].get(f"{tag:08X}", [])
    return len(row) > 2 and bool(_TEXT_OPTIONS & set(row[2]) & set(policy["options"]))


class _Frozen:
    """A policy as an argument that is remembered by what it is, not by what it says."""

    def __init__(self, policy: dict[str, Any]) -> None:
        self.policy = policy

    def __hash__(self) -> int:
        return id(self.policy)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.policy is other.policy


@cache
def _overridden(name: str, version: str, frozen: _Frozen) -> dict[int, str]:
    return {int(tag_for_keyword(keyword) or 0): entry["action"] for keyword, entry in frozen.policy["overrides"].items()}


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
    if _text_kept(int(element.tag), policy):
        return True  # what it says is for `_cleaned`
    pattern = policy["accept"].get(keyword)
    return pattern is not None and all(re.fullmatch(pattern, str(part)) for part in _values(element))


def _uids(elements: list, meta: list[DataElement], source: _Source, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    expected = {identity.uid(uid) for uid in source.uids | source.registered}
    own = ("ImplementationClassUID",)
    expected |= set(policy["private_classes"])
    if "uids" in policy["options"]:
        expected |= source.uids
    findings = []
    for element in [element for element, _, _ in elements] + meta:
        if element.VR != "UI" or element.keyword in own:
            continue
        for value in map(str, _values(element)):
            if value and value not in UID_dictionary and value not in expected:
                findings.append(Finding("uid", str(element.keyword)))
    return findings


def _dates(elements: list, source: _Source, days: int) -> list[Finding]:
    findings = []
    for element, _, _ in elements:
        if element.VR not in ("DA", "DT"):
            continue
        for value in map(str, _values(element)):
            if value and _moved(value, -days) not in {
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


def _cleaned(elements: list, policy: dict[str, Any], source: _Source, identity: Identity) -> list[Finding]:
    """Text that stays holds no identifier and nothing that reads like one, and known words only where the policy says so."""
    shortest = policy["limits"]["identifier_length"]
    names = {_bare(word) for word in source.names}
    names = {word for word in names if len(word) >= 2}
    known = {_bare(word) for word in source.identifiers | identity.known}
    known = {word for word in known if len(word) >= shortest}
    findings = []
    for element, _, _ in elements:
        if str(element.VR) not in _TEXT_VRS - {"PN"} or not _text_kept(int(element.tag), policy):
            continue
        value = "\\".join(map(str, _values(element)))
        if value in ("", policy["dummy"]):
            continue
        words = re.findall(r"[^\W_]+", value)
        joined = _bare(value)
        digits = [re.sub(r"\D", "", run) for run in re.findall(r"[0-9](?:[ .-]?[0-9])+", value)]
        if {_bare(word) for word in words} & (names | known) or any(len(word) >= 6 and word in joined for word in names | known):
            findings.append(Finding("identifier", str(element.keyword)))
        elif not value.isascii() or "@" in value or re.search(r"[0-9]{6}", value) or any(p.search(value) for p in _DATES_IN_TEXT):
            findings.append(Finding("text", str(element.keyword)))
        elif any(normalise(scheme(name), run).value for run in digits if len(run) == 10 for name in ("chi", "nhs")):
            findings.append(Finding("identifier", str(element.keyword)))
        elif policy["text"] == "vocabulary" and not all(known_word(word) for word in words):
            findings.append(Finding("text", str(element.keyword)))
    return findings


def _values_elsewhere(elements: list, policy: dict[str, Any], source: _Source, identity: Identity) -> list[Finding]:
    """A text of the source whose attribute is not in the result, as the value of another attribute there."""
    kept = {int(element.tag) for element, _, _ in elements}
    ours = {policy["dummy"], identity.patient, *policy["private"]}
    gone = {value for tag, values in source.texts.items() if tag not in kept for value in values if len(value) >= 4}
    gone = {value.casefold() for value in gone - ours if not all(known_word(word) for word in re.findall(r"[^\W_]+", value))}
    findings = []
    for element, holder, _ in elements:
        if str(element.VR) not in _TEXT_VRS | {"CS"} or element.keyword == "CodeMeaning" or element.tag.is_private:
            continue
        if gone & {str(value).casefold() for value in _values(element)} and not holder.get("CodingSchemeDesignator"):
            findings.append(Finding("value", str(element.keyword)))
    return findings


def _pixels(source: Dataset, checked: Dataset, boxes: tuple[Box, ...]) -> list[Finding]:
    """Whether every pixel outside the boxes is what it was, and those inside are blank: bytes where they suffice, else decoded."""
    present = [keyword for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if keyword in checked]
    if not present:
        return []
    name = present[0]
    if name not in source:
        return [Finding("pixels")]
    before, after = source[name].value or b"", checked[name].value or b""
    same_order = source.original_encoding[1] or int(source.get("BitsAllocated", 8)) == 8
    length = len(after) - 1 if not boxes and len(after) > len(before) else len(after)
    if not boxes and same_order and before[:length] == after[:length]:
        return []
    if not boxes and _scans(before) and _scans(before) == _scans(after):
        return []
    try:
        was, now = _frames(source), _frames(checked)
        if was.shape != now.shape:
            return [Finding("pixels")]
        outside = np.ones(was.shape[:3], bool)
        for box in boxes:
            area = (slice(box.frame_from, box.frame_to + 1), slice(max(box.y0, 0), box.y1), slice(max(box.x0, 0), box.x1))
            outside[area] = False
            for frame in now[area]:
                if not _subsampled(source) and (frame != frame[0, 0]).any():
                    return [Finding("pixels", "box")]
        if _subsampled(source) and boxes:
            outside &= np.roll(outside, 1, 2) & np.roll(outside, -1, 2)  # colour is shared by two pixels side by side
        # Bits above those stored are no part of a pixel: an overlay may have been cleared there.
        return [] if (_shown(source, was)[outside] == _shown(checked, now)[outside]).all() else [Finding("pixels")]
    except Exception:  # noqa: BLE001 - decoders raise anything
        return [Finding("undecodable")]


def _rectangles(source: Dataset, declared: dict[str, Any]) -> list[Box]:
    """Where the policy wants pixels blanked whatever is in them."""
    last = int(source.get("NumberOfFrames", 1) or 1) - 1
    found = []
    for rule in declared["rectangles"]:
        if all(re.fullmatch(pattern, str(source.get(keyword, "")).strip()) for keyword, pattern in rule["match"].items()):
            found.append(Box(0, last, *rule["box"]))
    regions = source.get("SequenceOfUltrasoundRegions", [])
    if declared["outside_ultrasound_regions"] == "blank" and source.get("Modality") == "US" and regions:
        left, top = min(r.RegionLocationMinX0 for r in regions), min(r.RegionLocationMinY0 for r in regions)
        right, bottom = max(r.RegionLocationMaxX1 for r in regions) + 1, max(r.RegionLocationMaxY1 for r in regions) + 1
        width, height = int(source.Columns), int(source.Rows)
        sides = [(0, 0, width, top), (0, bottom, width, height), (0, top, left, bottom), (right, top, width, bottom)]
        found += [Box(0, last, *side) for side in sides if side[0] < side[2] and side[1] < side[3]]
    return found


def _scans(value: bytes) -> list[bytes]:
    """The coded samples of each compressed fragment: from its first scan or tile to its end marker."""
    try:
        _, *fragments = list(generate_fragments(value))
    except (ValueError, IndexError):
        return []
    found = []
    for fragment in fragments:
        start = fragment.find(b"\xff\xda" if fragment[:2] == b"\xff\xd8" else b"\xff\x90")
        found.append(fragment[start : fragment.rfind(b"\xff\xd9")] if start >= 0 else fragment)
    return found


def _frames(dataset: Dataset) -> np.ndarray:
    """Samples as they are coded: (frames, rows, columns[, samples])."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        syntax = dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2" if dataset.original_encoding[0] else "1.2.840.10008.1.2.1")
    array, about = get_decoder(str(syntax)).as_array(dataset, raw=True)
    return array if int(about["number_of_frames"]) > 1 else array[np.newaxis]


def _shown(dataset: Dataset, frames: np.ndarray) -> np.ndarray:
    unused = frames.dtype.itemsize * 8 - int(dataset.get("BitsStored", 0) or 0)
    if frames.dtype.kind not in "iu" or not 0 < unused < frames.dtype.itemsize * 8 or int(dataset.get("BitsAllocated", 8)) == 1:
        return frames
    return (frames << unused) >> unused


def _subsampled(dataset: Dataset) -> bool:
    return str(dataset.get("PhotometricInterpretation", "")).endswith(("422", "420"))


def _bare(value: str) -> str:
    """Letters and digits without accents, in lower case: this module's own way."""
    return "".join(c for c in unicodedata.normalize("NFKD", value).lower() if c.isalnum())


def _identifiers(elements: list, result: bytes, policy: dict[str, Any], source: _Source, identity: Identity) -> list[Finding]:
    ours = {policy["dummy"], identity.patient}
    shortest = policy["limits"]["identifier_length"]
    known = {value.strip() for value in source.identifiers | identity.known}
    known = {value for value in known if len(value) >= shortest and value not in ours}
    findings = []
    uids = () if "uids" in policy["options"] else source.uids - set(policy["private_classes"])
    for value in known | {uid for uid in uids if len(uid) >= 16}:
        if len(value) >= _SEARCH_IN_BYTES and any(needle in result for needle in _encodings(value)):
            findings.append(Finding("identifier"))
    short = {value.upper() for value in known}
    letters = {_bare(value) for value in known | source.names}
    needles = [value.encode(form) for value in letters if len(value) >= 6 for form in ("utf-8", "utf-16-le", "utf-16-be")]
    for element, _, _ in elements:
        written = _as_bytes(element).lower()
        if written and (any(needle in written for needle in needles) or _reads_as_text(str(element.VR), written)):
            findings.append(Finding("identifier", str(element.keyword)))
        if element.VR == "CS":
            words = {word.upper() for value in _values(element) for word in [str(value), *re.split(r"[ _]+", str(value))]}
        elif element.VR in ("IS", "DS", "UL", "SL", "FL", "FD"):
            words = {word for value in _values(element) for word in re.findall(r"[0-9]{6,}", str(value))}
            words |= {f"0{word}" for word in words}
        else:
            continue
        if words & short:
            findings.append(Finding("identifier", str(element.keyword)))
    return findings


def _as_bytes(element: DataElement) -> bytes:
    """Numbers and tables as their bytes, where letters could be hidden; none of other elements and of pixels."""
    if element.VR in _FORMS and not element.is_empty:
        return struct.pack(f"<{element.VM}{_FORMS[element.VR]}", *map(_FORMS_OF.get(element.VR, lambda v: v), _values(element)))
    return bytes(element.value or b"") if element.VR in _BULK_VRS and int(element.tag) not in _PIXELS else b""


def _reads_as_text(vr: str, written: bytes) -> bool:
    return vr in _FORMS and re.search(rb"[a-z]{6}[a-z^ ]{4}", written) is not None


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
