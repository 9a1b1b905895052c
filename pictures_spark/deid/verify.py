"""Check a de-identified file against its source with code that shares nothing with the code that made it.

What enters: the bytes of both, the policy's settings and the :class:`Identity`. What leaves: findings, none of which quotes a value; one
is enough to withhold the instance. Pure; executors. It is deliberately plain: parse both with pydicom, list what the source says about
people, look for it.

Most elements of a series are the same in every image. A :class:`Checker` therefore finds the elements of both files itself, asks pydicom
for those it has not met, and tells once for all files that say the same about people that an element of the result is fine. Which UIDs
and dates there are, what the result's bytes hold, and the pixels, are looked at in every file. It says by this way only that all is
well: where anything is found, or a file is not of the plainest form, the two files are parsed as a whole.
"""

import os
import re
import shutil
import struct
import subprocess
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import re2
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.encaps import generate_fragments
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, UID_dictionary

from pictures_spark.deid.dicom_codes import standard_code
from pictures_spark.deid.dicom_identity import Box, Identity
from pictures_spark.deid.dicom_scrub import known_code, known_word
from pictures_spark.linkage.identity import normalise, scheme
from pictures_spark.pixels.codestream import mend
from pictures_spark.resources import load_schema

# An identifier this long is looked for in every byte of the file; a shorter one would be found in pixels by chance.
_SEARCH_IN_BYTES = 8
_PLAIN_VRS = {"CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "AT", "TM"}
_TEXT_VRS = {"LO", "SH", "ST", "LT", "UT", "UC", "PN"}
_BULK_VRS = {"OB", "OW", "OF", "OD", "OV"}
# Pseudonyms and statements of the engine, not texts of a source.
_WRITTEN = {"PatientID", "PatientName", "AccessionNumber", "DeidentificationMethod"}
_CODE_KEYWORDS = {"CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning"}
_FORMS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "AT": "I"}
_FORMS_OF = {"AT": lambda tag: (int(tag) & 0xFFFF) << 16 | int(tag) >> 16}
# What is left of an overlay (group 60xx), by element.
_OVERLAY = dict.fromkeys((0x0010, 0x0011, 0x0051, 0x0100, 0x0102), "US") | {0x0015: "IS", 0x0040: "CS", 0x0050: "SS", 0x3000: "OW"}
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_CHARSET, _IMPLEMENTATION = 0x00080005, 0x00020012
# What a result's file meta information may hold.
_META = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
# A code is judged by its scheme and meaning, which at the top would be elements of their own.
_TOP_CODES = frozenset(range(0x00080100, 0x00080121))
# Value representations of explicit elements, and whether their length takes four bytes.
_FORM = {vr.encode(): (vr, False) for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()}  # noqa: SIM905
_FORM |= {vr.encode(): (vr, True) for vr in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}  # noqa: SIM905
_TAG, _LENGTH = struct.Struct("<HH").unpack_from, struct.Struct("<I").unpack_from
# Instance UIDs from this length on are looked for in all bytes.
_UID = 16
# More byte strings than these are looked for together, where there are so many bytes to look through.
_FEW_NEEDLES, _LARGE = 6, 1 << 16
# What is remembered, at most: elements, bytes of one, and what people files are of.
_REMEMBERED, _REMEMBERED_BYTES, _CONTEXTS = 8192, 4096, 64
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
    return Checker(policy)(original, result, identity)


_Compare: TypeAlias = Callable[[bytes, bytes, Sequence[Box], int], list[Finding]]


class Checker:
    """Checks results one after the other, those of a series at the price of their differences. Belongs to one thread.

    ``compare`` does what needs a decoder, which may end its process: `dicom_supervised.SupervisedPixels` lets that be a child.
    """

    def __init__(
        self, policy: dict[str, Any], compare: "Callable[[bytes, bytes, Sequence[Box], int], list[Finding]] | None" = None
    ) -> None:
        self.policy = policy
        self._compare = compare or compare_pixels
        pixels = policy["pixels"]
        self._plain_pixels = not pixels["rectangles"] and pixels["outside_ultrasound_regions"] == "keep"
        self._bulk = {tag_for_keyword(keyword) for keyword in policy["bulk"]}
        self._identifying = frozenset(tag_for_keyword(keyword) for keyword in policy["identifiers"])
        self._facts: dict[bool, dict[bytes, _Facts]] = {False: {}, True: {}}  # by whether the VR is implicit
        self._looked: dict[tuple[bytes, bytes], _Looked] = {}
        self._contexts: dict[tuple, _Context] = {}

    def __call__(self, original: bytes, result: bytes, identity: Identity) -> Checked:
        """The same as `check`, whatever was checked before."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                texts = None if identity.boxes or not self._plain_pixels else self._fine(original, result, identity)
            except Exception:  # noqa: BLE001 - whatever cannot be read by elements may be read as a whole
                texts = None
            return self._as_a_whole(original, result, identity) if texts is None else Checked([], texts)

    def _as_a_whole(self, original: bytes, result: bytes, identity: Identity) -> Checked:
        policy = self.policy
        try:
            checked = dcmread(BytesIO(result))
            elements = list(_elements(checked))
            meta = list(checked.file_meta)
            dataset = dcmread(BytesIO(original), force=True)
            raw = [*_raw_values(dataset), *_raw_values(getattr(dataset, "file_meta", Dataset()))]
            source = _Source([_facts(raw, self._identifying)])
        except Exception:  # noqa: BLE001 - whatever it is, such a file does not leave
            return Checked([Finding("unreadable")])
        tree = [element for element, _, _ in elements]
        wanted = _Wanted(source, {int(element.tag) for element in tree}, policy, identity)
        findings = _of_elements(elements, policy, wanted, identity)
        findings += _of_meta(int(element.tag) for element in meta)
        findings += _uids(_uids_in([*tree, *meta]), source, policy, identity)
        findings += _dates(_dates_in(tree), source, policy, identity)
        boxes = (*identity.boxes, *_rectangles(dataset, policy["pixels"]))
        pixels = _pixel_bytes(dataset, checked, boxes)
        if pixels is None:
            compare = compare_pixels if _is_native(dataset) and _is_native(checked) else self._compare
            pixels = compare(original, result, boxes, int(checked.get("NumberOfFrames", 1) or 1))
        findings += pixels
        findings += _in_bytes(result, wanted, source)
        if checked.get("PatientIdentityRemoved") != "YES" or checked.get("PatientID") != identity.patient or checked.preamble != bytes(128):
            findings.append(Finding("statement"))
        return Checked(list(dict.fromkeys(findings)), frozenset(_texts(checked)))

    def _fine(self, original: bytes, result: bytes, identity: Identity) -> frozenset[tuple[str, str]] | None:
        """The texts of a result in which nothing is found; None where something is, or only the whole file can tell."""
        before, after = _Walked.of(original), _Walked.of(result)
        if before is None or after is None or after.implicit or result[:128] != bytes(128) or not _same_pixels(before, after):
            return None
        if not _TOP_CODES.isdisjoint(after.places):
            return None  # a data set that is a code itself
        reading = b"".join(after.raw(tag) for tag in after.places if tag == _CHARSET or (tag & 0x10000 and tag & 0xFFFF <= 0xFF))
        charset = after.raw(_CHARSET) if _CHARSET in after.places else b""
        keys = []
        for tag, place in after.places.items():
            if tag not in _PIXELS:
                keys.append((result[place.start : place.end], reading if tag & 0x10000 else charset))
            elif tag not in self._bulk or place.vr not in _BULK_VRS:
                return None
        looked = self._look(keys, reading)
        source, says = self._source(before)
        kept = frozenset().union(after.places, *(each.tags for each in looked.values()))
        context = self._context((identity.patient, identity.known, says, kept, reading, identity.overlays_clean), source, identity)
        fresh = {key: each for key, each in looked.items() if key not in context.fine}
        if _of_elements([element for each in fresh.values() for element in each.elements], self.policy, context.wanted, identity):
            return None
        context.fine.update(key for key in fresh if len(key[0]) <= _REMEMBERED_BYTES)
        uids = [uid for each in looked.values() for uid in each.uids] + after.meta_uids()
        dates = [date for each in looked.values() for date in each.dates]
        if (
            _of_meta(after.meta)
            or _uids(uids, source, self.policy, identity)
            or _dates(dates, source, self.policy, identity)
            or _in_bytes(result, context.wanted, source)
            or after.text(0x00120062) != "YES"
            or after.text(0x00100020) != identity.patient
        ):
            return None
        return frozenset(text for each in looked.values() for text in each.texts)

    def _look(self, keys: list[tuple[bytes, bytes]], reading: bytes) -> "dict[tuple[bytes, bytes], _Looked]":
        """Elements of a result as pydicom reads them; ``reading`` is what they are read by: character set and private creators."""
        known = self._looked
        looked = {key: known[key] for key in keys if key in known}
        new = [key for key in keys if key not in looked]
        if new:
            dataset = read_dataset(BytesIO(b"".join([reading, *(raw for raw, _ in new if raw not in reading)])), False, True)
            for key in new:
                looked[key] = _Looked.at(key[0], dataset)
                if len(key[0]) <= _REMEMBERED_BYTES:
                    _bounded(known)[key] = looked[key]
        return looked

    def _source(self, walked: "_Walked") -> "tuple[_Source, tuple[bytes, ...]]":
        """What a source says, and the elements that say who somebody is or hold text."""
        found, says = [], []
        data, known = walked.data, self._facts[walked.implicit]
        for tag, place in (*walked.meta.items(), *walked.places.items()):
            if tag in _PIXELS:
                continue
            raw = data[place.start : place.end]
            facts = known.get(raw)
            if facts is None:
                facts = _facts(walked.values(tag), self._identifying)
                if len(raw) <= _REMEMBERED_BYTES:
                    _bounded(known)[raw] = facts
            if facts is not _NO_FACTS:
                found.append(facts)
                if facts.identifiers or facts.texts:
                    says.append(raw)
        return _Source(found), tuple(says)

    def _context(self, key: tuple, source: "_Source", identity: Identity) -> "_Context":
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            context = self._contexts[key] = _Context(_Wanted(source, key[3], self.policy, identity), set())
        if len(context.fine) >= _REMEMBERED:
            context.fine.clear()
        return context


def _bounded(memory: dict) -> dict:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    return memory


def _texts(dataset: Dataset, path: str = "") -> Iterator[tuple[str, str]]:
    """(path of keywords, value) of every text at any depth; items of a sequence share a path."""
    for element in dataset:
        yield from _texts_of(element, path)


def _texts_of(element: DataElement, path: str) -> Iterator[tuple[str, str]]:
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
    """What dicom3tools' ``dciodvfy`` finds wrong with the result and not with the source, by kind.

    None where it cannot be told: the program is not installed, does not end or cannot read the source to its end (which is deflated or
    cut short), or the system has no files in memory (other than Linux). The lines name attributes and modules; values are left out.
    """
    program = shutil.which("dciodvfy")
    if program is None or not hasattr(os, "memfd_create"):
        return None
    try:
        before, after = (_errors(program, data) for data in (original, result))
    except subprocess.TimeoutExpired:
        return None
    return None if any("read failed" in line for line in before) else sorted((after - before).elements())


def _errors(program: str, data: bytes) -> Counter[str]:
    # It goes back and forth in what it reads, so a pipe will not do; and no copy of a source should lie on a disk.
    with os.fdopen(os.memfd_create("instance"), "wb") as file:
        file.write(data)
        file.seek(0)
        said = subprocess.run([program], stdin=file, capture_output=True, timeout=60, check=False)
    lines = (said.stdout + said.stderr).decode("ascii", "replace").splitlines()
    return Counter(nonconformity(line) for line in lines if line.startswith("Error"))


def nonconformity(line: str) -> str:
    """The kind of a fault that dciodvfy reports, without values.

    Examples
    --------
    >>> nonconformity("Error - Unrecognized enumerated value = <A <B> > for value 1 of attribute <Patient's Sex>")
    "Error - Unrecognized enumerated value =  for value  of attribute <Patient's Sex>"
    """
    line = re.sub(r"(?<!Element=)(?<!Module=)(?<!attribute )<.*>(?= )", "", line)
    # UIDs and lengths differ between the two files without being another kind of fault.
    return re.sub(r"(?<!Element=)(?<!Module=)(?<!attribute )<[^<>]*>$|\"[^\"]*\"|[0-9][0-9.]*", "", line).strip()


class _Facts(NamedTuple):
    """What an element of the source says, at any depth: its UIDs, dates and texts by attribute, and who somebody is."""

    uids: frozenset[str]
    dates: tuple[tuple[int, frozenset[str]], ...]
    identifiers: frozenset[str]
    names: frozenset[str]
    texts: tuple[tuple[int, frozenset[str]], ...]


_NO_FACTS = _Facts(frozenset(), (), frozenset(), frozenset(), ())


def _facts(raw: "Iterable[tuple[int, str, bytes]]", identifying: frozenset) -> _Facts:
    """What elements say: (tag, VR, bytes)."""
    uids: set[str] = set()
    dates: dict[int, set[str]] = {}
    identifiers: set[str] = set()
    names: set[str] = set()
    texts: dict[int, set[str]] = {}
    for tag, vr, value in raw:
        if vr == "UN" and dictionary_has_tag(tag):
            # Whoever wrote it did not know the attribute (PS3.5 6.2.2).
            vr = dictionary_VR(tag)
        if vr in _BULK_VRS and tag not in identifying:
            continue
        parts = [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
        if vr == "UI":
            uids.update(filter(None, parts))
        elif vr in ("DA", "DT"):
            dates.setdefault(tag, set()).update(parts)
        elif vr == "PN":
            names |= {word for part in parts for word in [part, *re.split(r"[=^ ,]+", part)]}
        elif tag in identifying:
            identifiers.update(parts)
        if vr in _TEXT_VRS:
            texts.setdefault(tag, set()).update(parts)
    if not (uids or dates or identifiers or names or texts):
        return _NO_FACTS
    by_tag = [tuple((tag, frozenset(values)) for tag, values in sorted(each.items())) for each in (dates, texts)]
    return _Facts(frozenset(uids), by_tag[0], frozenset(identifiers | names), frozenset(names), by_tag[1])


class _Source:
    """What the source says: its UIDs, dates by attribute, and the values of identifying attributes."""

    def __init__(self, facts: "list[_Facts]") -> None:
        every = frozenset().union(*(each.uids for each in facts))
        self.registered = frozenset(uid for uid in every if uid in UID_dictionary)
        self.uids = every - self.registered
        self.identifiers = frozenset().union(*(each.identifiers for each in facts))
        self.names = frozenset().union(*(each.names for each in facts))
        self.dates: dict[int, set[str]] = {}
        self.texts: dict[int, set[str]] = {}
        for each in facts:
            for tag, values in each.dates:
                self.dates.setdefault(tag, set()).update(values)
            for tag, values in each.texts:
                self.texts.setdefault(tag, set()).update(values)


class _Wanted:
    """What must not be in a result: of what the source and the zone say of people, in the forms that it is looked for in."""

    def __init__(self, source: _Source, kept: "Set[int]", policy: dict[str, Any], identity: Identity) -> None:
        shortest = policy["limits"]["identifier_length"]
        known = {value.strip() for value in source.identifiers | identity.known}
        known = {value for value in known if len(value) >= shortest and value not in (policy["dummy"], identity.patient)}
        bare_names = {_bare(word) for word in source.names}
        self.names = {word for word in bare_names if len(word) >= 2}
        bare = {_bare(word) for word in source.identifiers | identity.known}
        self.known = {word for word in bare if len(word) >= shortest}
        self.short = {value.upper() for value in known}
        # A number of zeros, or a row of hyphens, names nobody, and pixels of one value read like it.
        told = [value for value in known if len(value) >= _SEARCH_IN_BYTES and len(set(value)) > 1]
        self.in_bytes = [needle for value in told for needle in dict.fromkeys(_encodings(value))]
        letters = {_bare(value) for value in known} | bare_names
        letters = {word for word in letters if len(word) >= 6 and len(set(word)) > 1}
        self.letters = [word.encode(form) for word in letters for form in ("utf-8", "utf-16-le", "utf-16-be")]
        self.all_uids = "uids" not in policy["options"]
        self.classes = frozenset(policy["private_classes"])
        # A text of the source whose attribute is not in the result.
        ours = {policy["dummy"], identity.patient, *policy["private"]}
        gone = {value for tag, values in source.texts.items() if tag not in kept for value in values if len(value) >= 4} - ours
        self.gone = {value.casefold() for value in gone if not all(known_word(word) for word in re.findall(r"[^\W_]+", value))}


class _Context(NamedTuple):
    """What is looked for in files that say the same about people, and elements of results in which none of it is."""

    wanted: _Wanted
    fine: set[tuple[bytes, bytes]]


class _Place(NamedTuple):
    """An element: its VR, where it starts, where its value starts, where it ends."""

    vr: str
    start: int
    value: int
    end: int


class _Walked(NamedTuple):
    """A little endian file whose top-level elements were found: file meta information and data set."""

    data: bytes
    implicit: bool
    meta: dict[int, _Place]
    places: dict[int, _Place]

    @classmethod
    def of(cls, data: bytes) -> "_Walked | None":
        """None, or any exception, where it is not such a file, or not to its very end."""
        if data[128:132] != b"DICM":
            return None
        meta, position = _elements_at(data, 132, False, 2)
        syntax = data[meta[0x00020010].value : meta[0x00020010].end].rstrip(b" \0").decode("ascii")
        if syntax in ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99") or syntax not in UID_dictionary:
            return None
        implicit = syntax == "1.2.840.10008.1.2"
        places, position = _elements_at(data, position, implicit, None)
        return cls(data, implicit, meta, places) if position == len(data) else None

    def raw(self, tag: int) -> bytes:
        """The bytes of an element."""
        place = self.meta[tag] if tag >> 16 == 2 else self.places[tag]
        return self.data[place.start : place.end]

    def text(self, tag: int) -> str:
        """A text of the data set."""
        place = self.places.get(tag)
        return "" if place is None else self.data[place.value : place.end].rstrip(b" \0").decode("latin-1")

    def meta_uids(self) -> list[tuple[str, str]]:
        """(keyword, UID) of the file meta information."""
        uids = [(tag, self.data[place.value : place.end]) for tag, place in self.meta.items() if place.vr == "UI"]
        return [(dictionary_keyword(tag), value.rstrip(b" \0").decode("latin-1")) for tag, value in uids if tag != _IMPLEMENTATION]

    def values(self, tag: int) -> list[tuple[int, str, bytes]]:
        """(tag, VR, bytes) of the elements in an element."""
        place = self.meta[tag] if tag >> 16 == 2 else self.places[tag]
        length = place.value - place.start
        undefined = tag >> 16 != 2 and self.data[place.value - 4 : place.value] == b"\xff\xff\xff\xff" and length in (8, 12)
        if place.vr != "SQ" and not (undefined and (self.implicit or length == 12)):
            return [(tag, place.vr, self.data[place.value : place.end])]
        return list(_raw_values(read_dataset(BytesIO(self.raw(tag)), self.implicit, True)))


def _elements_at(data: bytes, position: int, implicit: bool, only: int | None) -> tuple[dict[int, _Place], int]:
    """(elements in rising order from a position on, where they end); of group ``only`` where that is given.

    Raises
    ------
    ValueError, KeyError, IndexError, struct.error
        The bytes are no such elements.
    """
    places: dict[int, _Place] = {}
    end, last = len(data), 0
    while position < end:
        group, number = _TAG(data, position)
        if only is not None and group != only:
            break
        tag = group << 16 | number
        value = position + 8
        if implicit:
            vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
            (length,) = _LENGTH(data, position + 4)
        else:
            vr, long = _FORM[data[position + 4 : position + 6]]
            if long:
                value = position + 12
                (length,) = _LENGTH(data, position + 8)
            else:
                length = data[position + 6] | data[position + 7] << 8
        if tag <= last or group in (0, 0xFFFE) or (only is None and group < 8):
            raise ValueError("no element of a data set")
        last = tag
        stop = value + length
        if length == 0xFFFFFFFF:
            stop = _end_of_items(data, value, implicit or vr == "UN", tag in _PIXELS, 0)
        if stop > end:
            raise ValueError("an element beyond the end")
        places[tag] = _Place(vr, position, value, stop)
        position = stop
    return places, position


def _end_of_items(data: bytes, position: int, implicit: bool, fragments: bool, depth: int) -> int:
    """Where a sequence of undefined length, or compressed pixels, end: behind their delimiter."""
    if depth > 32:
        raise ValueError("too deep")
    while True:
        group, number = _TAG(data, position)
        (length,) = _LENGTH(data, position + 4)
        position += 8
        if (group, number) == (0xFFFE, 0xE0DD):
            return position
        if (group, number) != (0xFFFE, 0xE000):
            raise ValueError("no item")
        if length != 0xFFFFFFFF:
            position += length
        elif fragments:
            raise ValueError("a fragment without length")
        else:
            position = _end_of_item(data, position, implicit, depth)


def _end_of_item(data: bytes, position: int, implicit: bool, depth: int) -> int:
    """Where an item of undefined length ends: behind its delimiter."""
    while True:
        group, number = _TAG(data, position)
        if (group, number) == (0xFFFE, 0xE00D):
            return position + 8
        value, vr = position + 8, ""
        if implicit:
            (length,) = _LENGTH(data, position + 4)
        else:
            vr, long = _FORM[data[position + 4 : position + 6]]
            if long:
                value = position + 12
                (length,) = _LENGTH(data, position + 8)
            else:
                length = data[position + 6] | data[position + 7] << 8
        if length == 0xFFFFFFFF:
            if not implicit and vr not in ("SQ", "UN"):
                raise ValueError("pixels in a sequence")
            position = _end_of_items(data, value, implicit or vr == "UN", False, depth + 1)
        else:
            position = value + length


class _Looked(NamedTuple):
    """A top-level element of a result: (element, its data set, whether at the top) of all in it, and what is compared file by file."""

    elements: list[tuple[DataElement, Dataset, bool]]
    tags: frozenset[int]
    uids: list[tuple[str, str]]
    dates: list[tuple[int, str, str, str]]
    texts: frozenset[tuple[str, str]]

    @classmethod
    def at(cls, raw: bytes, dataset: Dataset) -> "_Looked":
        """The element of a data set that is encoded like this, explicit and little endian."""
        tag = int.from_bytes(raw[:2], "little") << 16 | int.from_bytes(raw[2:4], "little")
        element = dataset[tag]
        elements = [(element, dataset, True), *_below(element)]
        tree = [each for each, _, _ in elements]
        tags = frozenset(int(each.tag) for each in tree)
        return cls(elements, tags, _uids_in(tree), _dates_in(tree), frozenset(_texts_of(element, "")))


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
        yield from _below(element)


def _below(element: DataElement) -> Iterator[tuple[DataElement, Dataset, bool]]:
    if element.VR == "SQ":
        for item in element.value:
            yield from _elements(item, top=False)


def _of_elements(elements: list, policy: dict[str, Any], wanted: _Wanted, identity: Identity) -> list[Finding]:
    """What is wrong with elements by themselves, whatever the UIDs and dates of their file."""
    findings = _structure(elements, policy, identity)
    findings += _cleaned(elements, policy, wanted)
    findings += _values_elsewhere(elements, wanted, policy)
    findings += _in_elements(elements, wanted)
    return findings


def _of_meta(tags: Iterable[int]) -> list[Finding]:
    """Elements of the file meta information that no result has."""
    return [Finding("tag", dictionary_keyword(tag) if dictionary_has_tag(tag) else "") for tag in tags if tag not in _META]


def _structure(elements: list, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    findings = []
    bulk = {tag_for_keyword(keyword) for keyword in policy["bulk"]}
    for element, holder, top in elements:
        tag = int(element.tag)
        group = tag >> 16
        if element.tag.is_private:
            if not _private_allowed(element, holder, policy):
                findings.append(Finding("tag"))
            continue
        if group >> 8 == 0x60:
            if not (top and identity.overlays_clean and "graphics" in policy["options"] and _OVERLAY.get(tag & 0xFFFF) == str(element.VR)):
                findings.append(Finding("tag"))
            continue
        if group < 8 or group >> 8 == 0x50 or not dictionary_has_tag(tag):
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
    if keyword in _CODE_KEYWORDS:
        return _is_published(holder) or policy["text"] == "scrub"  # what another code says is for `_cleaned`
    if _text_kept(int(element.tag), policy):
        return True  # what it says is for `_cleaned`
    return _is_listed(element, policy)


def _is_listed(element: DataElement, policy: dict[str, Any]) -> bool:
    """Whether a text is one that the policy accepts of this attribute."""
    pattern = policy["accept"].get(str(element.keyword))
    return pattern is not None and all(re.fullmatch(pattern, str(part)) for part in _values(element))


def _is_published(code: Dataset) -> bool:
    """Whether a code item is of a published scheme, with its publisher's meaning."""
    value = str(code.get("CodeValue") or code.get("LongCodeValue") or "")
    return standard_code(str(code.get("CodingSchemeDesignator", "")), value) == str(code.get("CodeMeaning", ""))


def _uids_in(elements: Iterable[DataElement]) -> list[tuple[str, str]]:
    """(keyword, UID) of elements; whose own implementation wrote the file is no instance."""
    of_ui = (element for element in elements if element.VR == "UI" and int(element.tag) != _IMPLEMENTATION)
    return [(str(element.keyword), str(value)) for element in of_ui for value in _values(element)]


def _uids(uids: list[tuple[str, str]], source: _Source, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    expected = set(policy["private_classes"])
    if "uids" in policy["options"]:
        expected |= source.uids
    unknown = {value for _, value in uids if value and value not in UID_dictionary and value not in expected}
    if unknown:
        unknown -= {identity.uid(uid) for uid in source.uids | source.registered}
    return [Finding("uid", keyword) for keyword, value in uids if value in unknown]


def _dates_in(elements: Iterable[DataElement]) -> list[tuple[int, str, str, str]]:
    """(tag, keyword, VR, value) of dates."""
    of_date = (element for element in elements if element.VR in ("DA", "DT"))
    return [(int(e.tag), str(e.keyword), str(e.VR), str(value)) for e in of_date for value in _values(e) if str(value)]


def _dates(dates: list[tuple[int, str, str, str]], source: _Source, policy: dict[str, Any], identity: Identity) -> list[Finding]:
    days = 0 if "full_dates" in policy["options"] else identity.shift_days
    findings = []
    for tag, keyword, vr, value in dates:
        of_source = source.dates.get(tag, set())
        if _moved(value, -days) not in {v.replace(".", "", 2) if vr == "DA" else v for v in of_source}:
            findings.append(Finding("date", keyword))
    return findings


def _moved(value: str, days: int) -> str | None:
    try:
        moved = datetime.strptime(value[:8], "%Y%m%d") + timedelta(days)
    except (ValueError, OverflowError):
        return None
    return f"{moved.year:04}{moved.month:02}{moved.day:02}{value[8:]}"


def _cleaned(elements: list, policy: dict[str, Any], wanted: _Wanted) -> list[Finding]:
    """Text that stays holds no identifier and nothing that reads like one, and known words only where the policy says so."""
    own = wanted.names | wanted.known
    findings = []
    for element, holder, _ in elements:
        local_code = element.keyword in _CODE_KEYWORDS and not _is_published(holder)
        if str(element.VR) not in _TEXT_VRS - {"PN"} or not (local_code or _text_kept(int(element.tag), policy)):
            continue
        value = "\\".join(map(str, _values(element)))
        if value in ("", policy["dummy"]):
            continue
        words = re.findall(r"[^\W_]+", value)
        joined = _bare(value)
        digits = [re.sub(r"\D", "", run) for run in re.findall(r"[0-9](?:[ .-]?[0-9])+", value)]
        if (
            ({_bare(word) for word in words} | _runs(words)) & own
            or any(len(word) >= 6 and word in joined for word in own)
            or _with_initials(words, own)
        ):
            findings.append(Finding("identifier", str(element.keyword)))
        elif not value.isascii() or "@" in value or re.search(r"[0-9]{6}", value) or any(p.search(value) for p in _DATES_IN_TEXT):
            findings.append(Finding("text", str(element.keyword)))
        elif any(normalise(scheme(name), run).value for run in digits if len(run) == 10 for name in ("chi", "nhs")):
            findings.append(Finding("identifier", str(element.keyword)))
        elif policy["text"] == "vocabulary" and not all(known_word(word) for word in words):
            findings.append(Finding("text", str(element.keyword)))
    return findings


def _runs(words: list[str]) -> set[str]:
    """Short names that may be written in parts or by letters: Mc Kay, S M I T H."""
    found = set()
    for first in range(len(words)):
        for behind in range(first + 2, min(first + 5, len(words)) + 1):
            found.add("".join(map(_bare, words[first:behind])))
    return {run for run in found if 4 <= len(run) <= 5}


def _with_initials(words: list[str], own: "Set[str]") -> bool:
    """Whether a word is a short name and a letter or two, or a number: JSmith, smith01; of five letters, and anything."""
    for word in words:
        bare = _bare(word)
        for name in own:
            beside = len(re.sub("[0-9]", "", bare)) - len(name)
            if 3 <= len(name) <= 5 and name.isalpha() and name in bare and beside <= (0, 1, 2, 99)[len(name) - 2] and not known_word(bare):
                return True
    return False


def _values_elsewhere(elements: list, wanted: _Wanted, policy: dict[str, Any]) -> list[Finding]:
    """A text of the source whose attribute is not in the result, as the value of another attribute there."""
    findings = []
    for element, holder, _ in elements:
        if str(element.VR) not in _TEXT_VRS | {"CS"} or element.tag.is_private:
            continue
        of_code = element.keyword in _CODE_KEYWORDS and _is_published(holder)
        # A maker's name is told by the policy's list, whatever else of the source was called so.
        of_maker = element.keyword == "Manufacturer" and _is_listed(element, policy)
        if wanted.gone & {str(value).casefold() for value in _values(element)} and not (of_code or of_maker):
            findings.append(Finding("value", str(element.keyword)))
    return findings


def _same_pixels(before: _Walked, after: _Walked) -> bool:
    """Whether the bytes of the pixels are those of the source, as far as they go; where not, they are to be decoded."""
    present = [tag for tag in _PIXELS if tag in after.places]
    if len(present) > 1 or (present and present[0] not in before.places):
        return False
    for tag in present:
        was, now = before.places[tag], after.places[tag]
        size, length = now.end - now.value, was.end - was.value
        if size > length:
            size -= 1  # made even
        if size > length or memoryview(before.data)[was.value : was.value + size] != memoryview(after.data)[now.value : now.value + size]:
            return False
    return True


def _is_native(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    return syntax is None or not syntax.is_encapsulated


def _pixel_bytes(source: Dataset, checked: Dataset, boxes: tuple[Box, ...]) -> list[Finding] | None:
    """Whether every pixel is what it was, where their bytes tell; None where they are to be decoded."""
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
    return None


def compare_pixels(original: bytes, result: bytes, boxes: Sequence[Box], frames: int = 1) -> list[Finding]:
    """Whether every pixel outside the boxes is what it was, and those inside are blank; ``frames`` is for those who limit its time."""
    source, checked = dcmread(BytesIO(original), force=True), dcmread(BytesIO(result))
    try:
        # Where colours were decoded, the result has them as they are shown.
        was, now = _frames(source, raw=not _is_rgb(checked) or _is_rgb(source)), _frames(checked)
        if was.shape != now.shape:
            return [Finding("pixels")]
        outside = np.ones(was.shape[:3], bool)
        for box in boxes:
            area = (slice(box.frame_from, box.frame_to + 1), slice(max(box.y0, 0), box.y1), slice(max(box.x0, 0), box.x1))
            outside[area] = False
            for frame in now[area]:
                if not _subsampled(checked) and (frame != frame[0, 0]).any():
                    return [Finding("pixels", "box")]
        if _subsampled(checked) and boxes:
            outside &= np.roll(outside, 1, 2) & np.roll(outside, -1, 2)  # colour is shared by two pixels side by side
        # Bits above those stored are no part of a pixel: an overlay may have been cleared there.
        return [] if (_shown(source, was)[outside] == _shown(checked, now)[outside]).all() else [Finding("pixels")]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - decoders raise anything: a panic of Rust's is no Exception
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


def _is_rgb(dataset: Dataset) -> bool:
    return str(dataset.get("PhotometricInterpretation", "")) == "RGB"


def _frames(dataset: Dataset, raw: bool = True) -> np.ndarray:
    """Samples as they are coded, or else as colours are shown: (frames, rows, columns[, samples])."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:
        syntax = dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2" if dataset.original_encoding[0] else "1.2.840.10008.1.2.1")
    mend(dataset, str(syntax))
    array, about = get_decoder(str(syntax)).as_array(dataset, raw=raw)
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


def _in_bytes(result: bytes, wanted: _Wanted, source: _Source) -> list[Finding]:
    """Identifiers and instance UIDs of the source, in any encoding, anywhere in the result."""
    uids = [uid for uid in source.uids - wanted.classes if len(uid) >= _UID] if wanted.all_uids else []
    # UIDs of a maker or a site start alike: where no start is found, none is.
    starts = sorted({uid[:_UID] for uid in uids})
    if not any_of((*wanted.in_bytes, *(needle for start in starts for needle in dict.fromkeys(_encodings(start)))), result):
        return []
    whole = any(needle in result for uid in uids for needle in _encodings(uid))
    return [Finding("identifier")] if whole or any(needle in result for needle in wanted.in_bytes) else []


def any_of(needles: tuple[bytes, ...], data: bytes) -> bool:
    """Whether one of some byte strings is in others: in one pass where these are many.

    Examples
    --------
    >>> any_of((b"Smith", b"0101501234"), b"...Smith..."), any_of((), b"Smith")
    (True, False)
    """
    if len(needles) <= _FEW_NEEDLES or len(data) < _LARGE:
        return any(needle in data for needle in needles)
    return _expression(needles).search(data) is not None


@lru_cache(64)
def _expression(needles: tuple[bytes, ...]) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes as they are
    hexadecimal = ("".join(f"\\x{byte:02x}" for byte in needle) for needle in needles)
    return re2.compile("|".join(hexadecimal).encode("ascii"), options)


def _in_elements(elements: list, wanted: _Wanted) -> list[Finding]:
    """Identifiers in numbers, tables and code strings."""
    findings = []
    for element, _, _ in elements:
        written = _as_bytes(element).lower()
        if written and (any(needle in written for needle in wanted.letters) or _reads_as_text(str(element.VR), written)):
            findings.append(Finding("identifier", str(element.keyword)))
        if element.VR == "CS":
            words = {word.upper() for value in _values(element) for word in [str(value), *re.split(r"[ _]+", str(value))]}
        elif element.VR in ("IS", "DS", "UL", "SL", "FL", "FD"):
            words = {word for value in _values(element) for word in re.findall(r"[0-9]{6,}", str(value))}
            words |= {f"0{word}" for word in words}
        else:
            continue
        if words & wanted.short:
            findings.append(Finding("identifier", str(element.keyword)))
    return findings


def _as_bytes(element: DataElement) -> bytes:
    """Numbers and tables as their bytes, where letters could be hidden; none of other elements and of pixels."""
    if element.VR in _FORMS and not element.is_empty:
        return struct.pack(f"<{element.VM}{_FORMS[element.VR]}", *map(_FORMS_OF.get(element.VR, lambda v: v), _values(element)))
    return bytes(element.value or b"") if element.VR in _BULK_VRS and int(element.tag) not in _PIXELS else b""


def _reads_as_text(vr: str, written: bytes) -> bool:
    found = re.finditer(rb"[a-z]{6}[a-z^ ]{4,}", written) if vr in _FORMS else ()
    # Letters in the order of the alphabet are a ramp of grey values.
    return any(bytes(sorted(run[0])) not in (run[0], run[0][::-1]) for run in found)


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
