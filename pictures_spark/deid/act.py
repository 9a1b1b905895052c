"""De-identify one DICOM instance: bytes in, bytes out, or a reason why not.

What enters: the bytes of an instance (any transfer syntax), a compiled policy and the :class:`Identity` of its person in the project. What
leaves: a new file in which every element was decided upon - the whole tree, file meta information and preamble included - or
:class:`WithheldError` with a reason of schemas/deid/withheld.yaml. Pure; runs on executors. Nothing in an error quotes a value.

The result is built up, not cut down: an element is written only where the plan keeps its tag, the value has the form of its value
representation, and no identifier of the person is in it. So private elements, overlays, curves, signatures, group lengths and padding
need no rule of their own.
"""

import logging
import re
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.dataelem import RawDataElement
from pydicom.valuerep import format_number_as_ds

from pictures_spark.deid.dicom_codes import standard_code
from pictures_spark.deid.dicom_identity import Identity
from pictures_spark.deid.dicom_pixels import (
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    OFFSET_TABLES,
    PIXEL_DATA,
    NotCleanableError,
    treat_pixels,
)
from pictures_spark.deid.dicom_write import Element, Items, fits, text, write_file
from pictures_spark.deid.plan import Action, Plan

# pydicom's warnings and log lines quote element values; on an executor they would end in a log file.
logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
_PIXEL_TAGS = (PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS)
_PIXEL_REPRESENTATION = 0x00280103
# Without these nobody can show the pixels: PhotometricInterpretation, Rows, Columns, BitsAllocated.
_IMAGE_ESSENTIALS = (0x00280004, 0x00280010, 0x00280011, 0x00280100)
# One item per frame, or common to all: the number of items has a meaning (PS3.3 C.7.6.16).
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
_CODE_VALUE, _CODE_SCHEME, _CODE_MEANING, _LONG_CODE, _URN_CODE = 0x00080100, 0x00080102, 0x00080104, 0x00080119, 0x00080120
_WORD = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 2, "OW": 2, "OF": 4, "OD": 8, "OV": 8, "OB": 1}
_NUMBER = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIME = re.compile(r"[0-2][0-9](:?[0-5][0-9](:?[0-6][0-9](\.[0-9]{1,6})?)?)?")
_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_DATE_TIME = re.compile(r"([0-9]{8})(([0-2][0-9])?([0-5][0-9])?([0-6][0-9](\.[0-9]{1,6})?)?([+-][0-9]{4})?)")
_DIGITS = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[A-Za-z0-9]+")
# From this length on an identifier is looked for inside other words too; a shorter one must be the whole word.
_SUBSTRING_LENGTH = 6


class WithheldError(Exception):
    """The instance does not leave; ``reason`` is a code of schemas/deid/withheld.yaml."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Deidentified:
    """A de-identified file, its UIDs in the project (None where the source has none) and how many text boxes were blanked."""

    data: bytes
    study_uid: str | None
    series_uid: str | None
    image_uid: str
    boxes_blanked: int


def deidentify(data: bytes, plan: Plan, identity: Identity) -> Deidentified:
    """De-identify an instance.

    Raises
    ------
    WithheldError
        It cannot be made safe, or is no image; ``reason`` says which.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _deidentify(data, plan, identity)
        except (WithheldError, MemoryError):
            raise
        except NotCleanableError:
            raise WithheldError("pixels_not_cleanable") from None
        except Exception:  # noqa: BLE001 - whatever a damaged file makes the parser raise, it means that it cannot be read
            raise WithheldError("not_readable") from None


def _deidentify(data: bytes, plan: Plan, identity: Identity) -> Deidentified:
    dataset = dcmread(BytesIO(data), force=True)
    raw = {tag: _raw(dataset, tag) for tag in sorted(map(int, dataset.keys()))}
    sop_class = _uid_of(raw.get(_SOP_CLASS))
    present = [tag for tag in _PIXEL_TAGS if tag in raw]
    if sop_class not in plan.image_classes or len(present) != 1:
        # A DICOMDIR says what it is in its file meta information only.
        said = sop_class or str(getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID", ""))
        if not said:
            raise WithheldError("not_readable")
        raise WithheldError("not_an_image" if said in UID_dictionary else "unknown_class_uid")
    source = {tag: _uid_of(raw.get(tag)) for tag in (_SOP_INSTANCE, _SERIES, _STUDY)}
    if not source[_SOP_INSTANCE]:
        raise WithheldError("not_readable")
    if identity.verdict not in ("clean", "text"):
        raise WithheldError("text_not_determined")
    if (identity.verdict == "text") != bool(identity.boxes):
        raise WithheldError("pixels_not_cleanable")
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is not None and str(syntax) not in UID_dictionary:
        raise WithheldError("unknown_class_uid")

    signed = _unsigned_short(raw.get(_PIXEL_REPRESENTATION)) == 1
    treatment = _Treatment(plan, identity, _Scrub(_identifiers(dataset, plan, identity), plan.policy["limits"]), signed)
    elements = {e.tag: e for e in treatment.items(dataset, top=True)}
    if any(tag not in elements or not elements[tag].value for tag in _IMAGE_ESSENTIALS):
        raise WithheldError("not_readable")
    offset_tables = [Element(tag, "OV", bytes(raw[tag].value or b"")) for tag in OFFSET_TABLES if tag in raw]
    pixels = treat_pixels(dataset, raw[present[0]], offset_tables, identity.boxes)
    elements.update(pixels.header)
    elements.update((e.tag, e) for e in _statements(plan, identity))
    written = plan.policy["written"]
    image_uid = identity.uid(source[_SOP_INSTANCE])
    result = write_file(
        [*elements.values(), *pixels.elements],
        sop_class=sop_class,
        sop_instance=image_uid,
        transfer_syntax=pixels.transfer_syntax,
        class_uid=written["implementation_class_uid"],
        version_name=written["implementation_version_name"],
    )
    study_uid, series_uid = (identity.uid(source[tag]) if source[tag] else None for tag in (_STUDY, _SERIES))
    return Deidentified(result, study_uid, series_uid, image_uid, pixels.blanked)


def _statements(plan: Plan, identity: Identity) -> Iterator[Element]:
    """What every result says of itself (PS3.15 E.1, PS3.3 C.7.1.1 and C.12.1)."""
    written = plan.policy["written"]
    yield text(_PATIENT_ID, "LO", identity.patient)
    yield text(_PATIENT_NAME, "PN", identity.patient)
    yield text(0x00120062, "CS", "YES")  # PatientIdentityRemoved
    yield text(0x00120063, "LO", f"{written['method']} {plan.name}")  # DeidentificationMethod
    codes = [_code_items("DCM", code) for code in written["method_codes"]]
    yield Element(0x00120064, "SQ", [code for code in codes if code is not None])  # DeidentificationMethodCodeSequence
    yield text(0x00280301, "CS", "NO")  # BurnedInAnnotation: no result without a verdict on the pixels
    yield text(0x00280303, "CS", "MODIFIED")  # LongitudinalTemporalInformationModified


class _Treatment:
    """The plan applied to the data sets of one instance."""

    def __init__(self, plan: Plan, identity: Identity, scrub: "_Scrub", signed: bool) -> None:
        self.plan = plan
        self.identity = identity
        self.scrub = scrub
        self.signed = signed

    def items(self, dataset: Dataset, top: bool = False) -> Items:
        """The elements of a data set or item that stay, treated."""
        kept = []
        for tag in sorted(map(int, dataset.keys())):
            # Pixels are written apart at the top level, and belong nowhere else (icons, thumbnails).
            if tag in _PIXEL_TAGS or tag in OFFSET_TABLES:
                continue
            decision = self.plan.decide(tag)
            if decision.action is not Action.REMOVE:
                element = self._element(dataset, tag, decision.action)
                if element is not None:
                    kept.append(element)
        return kept

    def _element(self, dataset: Dataset, tag: int, action: Action) -> Element | None:
        allowed = DicomDictionary[tag][0].split(" or ")
        raw = _raw(dataset, tag)
        vr = raw.VR if raw.VR not in (None, "UN") else self._own_vr(allowed, raw)
        if vr not in allowed or (vr == "SQ" and raw.VR == "UN"):
            return None
        if vr == "SQ":
            return self._sequence(dataset, tag, action)
        value = bytes(raw.value or b"")
        if action is Action.EMPTY:
            return Element(tag, vr, b"")
        if action is Action.PATIENT:
            return None  # written with the statements, whether the source had it or not
        if vr in _WORD:
            return self._binary(tag, vr, value, raw.is_little_endian)
        return self._text(tag, vr, value, action)

    def _own_vr(self, allowed: list[str], raw: RawDataElement) -> str:
        """The VR that implicit VR leaves open (PS3.5 A.1): words of a table, else signed where the pixels are."""
        if "OW" in allowed and len(raw.value or b"") > 2:
            return "OW"
        if "SS" in allowed:
            return "SS" if self.signed else "US"
        return allowed[0]

    def _sequence(self, dataset: Dataset, tag: int, action: Action) -> Element | None:
        if action is Action.EMPTY:
            return Element(tag, "SQ", [])
        if action is not Action.RECURSE:
            return None
        items = list(dataset[tag].value or [])
        keep_all = tag in _FUNCTIONAL_GROUPS
        treated = []
        for item in items:
            elements = self._item(item)
            if elements or keep_all or (elements is not None and not len(item)):
                treated.append(elements or [])
        return Element(tag, "SQ", treated) if treated or not items else None

    def _item(self, item: Dataset) -> Items | None:
        """A treated item; None where it is a code that no published scheme has."""
        elements = self.items(item)
        if not any(tag in item for tag in (_CODE_VALUE, _LONG_CODE, _URN_CODE)):
            return elements
        scheme = _ascii(_raw(item, _CODE_SCHEME)) if _CODE_SCHEME in item else ""
        value = next((_ascii(_raw(item, tag)) for tag in (_CODE_VALUE, _LONG_CODE) if tag in item), "")
        code = _code_items(scheme or "", value or "")
        # Of the rest of a code item only its sequences (modifiers, equivalent codes) mean something without the source's own scheme.
        return None if code is None else [*code, *(e for e in elements if e.vr == "SQ")]

    def _binary(self, tag: int, vr: str, value: bytes, little: bool) -> Element | None:
        size = _WORD[vr]
        if vr.startswith("O") and tag not in self.plan.bulk:
            return None
        if len(value) % size or not fits(vr, value):
            return Element(tag, vr, b"")
        if not little and size > 1:
            value = np.frombuffer(value, dtype=f">u{size}").astype(f"<u{size}").tobytes()
        if vr in ("US", "SS", "UL", "SL") and len(value) <= 8 * size:
            numbers = np.frombuffer(value, dtype=f"<{'i' if vr.startswith('S') else 'u'}{size}")
            if any(self.scrub.in_number(str(number)) for number in numbers.tolist()):
                return Element(tag, vr, b"")
        return Element(tag, vr, value)

    def _text(self, tag: int, vr: str, value: bytes, action: Action) -> Element | None:
        try:
            values = [part.strip(" \0") for part in value.decode("ascii").split("\\")]
        except UnicodeDecodeError:
            values = []
        if action is Action.ACCESSION:
            accession = value.strip(b" \0").decode("latin-1")
            return text(tag, vr, self.identity.accession(accession) if accession else "")
        pattern = self.plan.accept.get(tag)
        if pattern is not None and any(values) and all(pattern.fullmatch(part) for part in values):
            return text(tag, vr, "\\".join(values))
        if action is Action.DUMMY:
            return text(tag, vr, self.plan.policy["dummy"])
        if pattern is not None:
            return text(tag, vr, "")
        if action is Action.UID:
            return text(tag, vr, "\\".join(self._uid(tag, part) for part in value.decode("latin-1").split("\\")))
        treated = self._safe(vr, values, action)
        if treated is None or not fits(vr, treated.encode()):
            return text(tag, vr, "")
        return text(tag, vr, treated)

    def _uid(self, tag: int, value: str) -> str:
        value = value.strip(" \0")
        if not value:
            return ""
        if value in UID_dictionary and tag not in self.plan.instances:
            return value
        if tag in self.plan.classes:
            raise WithheldError("unknown_class_uid")
        return self.identity.uid(value)

    def _safe(self, vr: str, values: list[str], action: Action) -> str | None:
        """The values as they may stay, or None where one of them may not."""
        treated = []
        for value in values:
            result = "" if not value else self._safe_one(vr, value, action)
            if result is None:
                return None
            treated.append(result)
        return "\\".join(treated)

    def _safe_one(self, vr: str, value: str, action: Action) -> str | None:
        if action is Action.SHIFT:
            return shift_date(value, self.identity.shift_days) if vr == "DA" else shift_date_time(value, self.identity.shift_days)
        if vr == "CS":
            return value if _CODE_STRING.fullmatch(value) and not self.scrub.in_text(value) else None
        if vr == "TM":
            return value if _TIME.fullmatch(value) else None
        if vr == "IS":
            fits_word = _INTEGER.fullmatch(value) and -(2**31) <= int(value) < 2**31
            return value if fits_word and not self.scrub.in_number(value) else None
        if vr == "DS":
            if len(value) > 64 or not _DECIMAL.fullmatch(value) or self.scrub.in_number(value):
                return None
            return value if len(value) <= 16 else format_number_as_ds(float(value))
        return None


class _Scrub:
    """Looks for a person's own identifiers, and for what reads like a date or a long number, in values that would stay."""

    def __init__(self, identifiers: Iterable[str], limits: dict[str, int]) -> None:
        self.limits = limits
        words = {word for word in map(_normal, identifiers) if len(word) >= limits["identifier_length"]}
        self.words = frozenset(words)
        self.inside = tuple(sorted(word for word in words if len(word) >= _SUBSTRING_LENGTH))

    def in_text(self, value: str) -> bool:
        """Whether a code string holds an identifier or a long run of digits."""
        if any(len(run) > self.limits["code_digits"] for run in _DIGITS.findall(value)):
            return True
        whole = _normal(value)
        if any(word in whole for word in self.inside):
            return True
        return whole in self.words or any(_normal(word) in self.words for word in _WORDS.findall(value))

    def in_number(self, value: str) -> bool:
        """Whether a number, as text, is an identifier, reads as a date, or is longer than any measurement."""
        whole, *rest = (run.lstrip("0") for run in _DIGITS.findall(value))
        if len(whole) > self.limits["integer_digits"] or (len(whole) == 8 and _calendar(whole) is not None):
            return True
        return any(len(run) >= _SUBSTRING_LENGTH and (run in self.words or f"0{run}" in self.words) for run in (whole, *rest))


def shift_date(value: str, days: int) -> str | None:
    """A DA value moved by whole days, in the standard's form; None where it is no date of the calendar.

    Examples
    --------
    >>> shift_date("20200228", 2), shift_date("2020.02.28", -1), shift_date("20200230", 1)
    ('20200301', '20200227', None)
    """
    match = _DATE.fullmatch(value)
    moved = _calendar(match[1] + match[3] + match[4]) if match else None
    try:
        return None if moved is None else (moved + timedelta(days)).strftime("%Y%m%d").zfill(8)
    except OverflowError:
        return None


def shift_date_time(value: str, days: int) -> str | None:
    """A DT value with its date moved by whole days; time and offset from UTC stay. None where it does not hold a whole date.

    Examples
    --------
    >>> shift_date_time("20200228103000.5+0100", 2), shift_date_time("2020", 2)
    ('20200301103000.5+0100', None)
    """
    match = _DATE_TIME.fullmatch(value)
    moved = shift_date(match[1], days) if match else None
    return None if moved is None or match is None else moved + match[2]


def _calendar(digits: str) -> date | None:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _identifiers(dataset: Dataset, plan: Plan, identity: Identity) -> set[str]:
    """Every identifier of the person: those the zone knows and those anywhere in the file, whole and by name part."""
    found = set(identity.known)
    for tag, raw in _walk(dataset):
        vr = raw.VR or (DicomDictionary[tag][0] if tag in DicomDictionary else "UN")
        if vr not in ("PN", "DA") and tag not in plan.identifiers:
            continue
        value = bytes(raw.value or b"").decode("latin-1").strip(" \0")
        found.update(part.strip() for part in value.split("\\"))
        if vr == "PN":
            found.update(re.split(r"[\\^= ]+", value))
    return found


def _walk(dataset: Dataset) -> Iterator[tuple[int, RawDataElement]]:
    """Every element that is no sequence, at any depth, with its raw bytes."""
    for tag in sorted(map(int, dataset.keys())):
        raw = _raw(dataset, tag)
        vr = raw.VR or (DicomDictionary[tag][0] if tag in DicomDictionary else "UN")
        if vr != "SQ":
            yield tag, raw
            continue
        try:
            items = list(dataset[tag].value or [])
        except Exception:  # noqa: BLE001 - a sequence that cannot be parsed is never written either
            continue
        for item in items:
            yield from _walk(item)


def _raw(dataset: Dataset, tag: int) -> RawDataElement:
    """An element with its bytes as in the file; a sequence as pydicom gives it.

    Raises
    ------
    ValueError
        pydicom has already turned the bytes into a value, so that they cannot be judged.
    """
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return element
    value: bytes | None
    if element.VR == "SQ":
        value = None
    elif element.is_empty:
        value = b""
    elif element.VR in _NUMBER:  # pydicom reads PixelRepresentation at once, to settle ambiguous VRs
        numbers = element.value if element.VM > 1 else [element.value]
        value = struct.pack(f"<{len(numbers)}{_NUMBER[element.VR]}", *numbers)
    elif element.VR == "CS":  # SpecificCharacterSet likewise
        value = "\\".join([element.value] if isinstance(element.value, str) else element.value).encode("latin-1", "replace")
    else:
        raise ValueError("an element was converted before it was read")
    return RawDataElement(element.tag, element.VR, 0, value, 0, False, True)


def _uid_of(raw: Any) -> str:
    return bytes(raw.value or b"").decode("latin-1").strip(" \0") if raw is not None and raw.value else ""


def _ascii(raw: RawDataElement) -> str | None:
    try:
        return bytes(raw.value or b"").decode("ascii").strip(" \0")
    except UnicodeDecodeError:
        return None


def _unsigned_short(raw: Any) -> int | None:
    value = bytes(raw.value or b"") if raw is not None else b""
    return struct.unpack("<H" if raw.is_little_endian else ">H", value[:2])[0] if len(value) >= 2 else None


def _code_items(scheme: str, value: str) -> Items | None:
    meaning = standard_code(scheme, value)
    if meaning is None:
        return None
    tag, vr = (_CODE_VALUE, "SH") if len(value) <= 16 else (_LONG_CODE, "UC")
    return [text(tag, vr, value), text(_CODE_SCHEME, "SH", scheme), text(_CODE_MEANING, "LO", meaning)]


def _normal(value: str) -> str:
    """Letters and digits only, in one case."""
    return "".join(character for character in value.casefold() if character.isalnum())
