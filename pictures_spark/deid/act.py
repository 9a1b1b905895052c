"""De-identify one DICOM instance: bytes in, bytes out, or a reason why not.

What enters: the bytes of an instance (any transfer syntax), a compiled policy and the :class:`Identity` of its person in the project. What
leaves: a new file in which every element was decided upon - the whole tree, file meta information and preamble included - or
:class:`WithheldError` with a reason of schemas/deid/withheld.yaml. Pure; runs on executors. Nothing in an error quotes a value.

The result is built up, not cut down: an element is written only where the plan keeps its tag, the value has the form of its value
representation, and no identifier of the person is in it. So unknown private elements, curves, signatures, group lengths and padding need no
rule of their own.

The instances of a series are nearly the same bytes. A :class:`Deidentifier` remembers, for a person and for what a file says about people,
what became of each element's bytes; only what it has not seen is parsed and judged. What became of an element whoever the person is, it
remembers for all, with what has to be asked of each person before it holds (:class:`_Judged`).
"""

import logging
import math
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS, format_number_as_ds

from pictures_spark.deid.dicom_codes import standard_code
from pictures_spark.deid.dicom_identity import Box, Identity
from pictures_spark.deid.dicom_overlays import overlays
from pictures_spark.deid.dicom_pixels import (
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    NATIVE,
    OFFSET_TABLES,
    PIXEL_DATA,
    NotCleanableError,
    Pixels,
    copy_pixels,
    native_length,
    treat_file,
)
from pictures_spark.deid.dicom_read import MalformedError, Node, Place, Source, element_of, items_of, read
from pictures_spark.deid.dicom_rectangles import deciding_tags, rectangles
from pictures_spark.deid.dicom_scrub import Own, Scrub, known_code, normal, own_words
from pictures_spark.deid.dicom_series import MAX_PLAIN, Slot, Template, differences, may_differ
from pictures_spark.deid.dicom_values import NOTHING, NUMBERS, Noted, NotedScrub, NotedValues, Unless, calendar
from pictures_spark.deid.dicom_values import Values as _Values
from pictures_spark.deid.dicom_write import Element, FileHead, Items, encode_one, encode_value, file_head, fits, text
from pictures_spark.deid.plan import Action, Plan

# pydicom's warnings and log lines quote element values; on an executor they would end in a log file.
logging.getLogger("pydicom").addHandler(logging.NullHandler())
logging.getLogger("pydicom").propagate = False

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT_NAME, _PATIENT_ID, _CHARACTER_SET = 0x00100010, 0x00100020, 0x00080005
_PIXEL_TAGS = (PIXEL_DATA, FLOAT_PIXELS, DOUBLE_PIXELS)
_PIXEL_REPRESENTATION, _FRAMES, _BIRTH_DATE = 0x00280103, 0x00280008, 0x00100030
# Tables that make pixels visible, and what says how many entries they have (PS3.3 C.7.9, C.11.1).
_TABLES = {0x00283006: 0x00283002, **{tag: tag - 0x100 for tag in range(0x00281201, 0x00281205)}}
# Without these nobody can show the pixels: PhotometricInterpretation, Rows, Columns, BitsAllocated.
_IMAGE_ESSENTIALS = (0x00280004, 0x00280010, 0x00280011, 0x00280100)
# One item per frame, or common to all: the number of items has a meaning (PS3.3 C.7.6.16). So it has in a report, whose items are
# referred to by their number (PS3.3 C.17.3.2.5).
_FUNCTIONAL_GROUPS = (0x52009229, 0x52009230)
_CONTENT_SEQUENCE = 0x0040A730
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_CODE_VALUE, _CODE_SCHEME, _CODE_MEANING, _LONG_CODE, _URN_CODE = 0x00080100, 0x00080102, 0x00080104, 0x00080119, 0x00080120
_CODE_MACRO = range(0x00080100, 0x00080125)
_WORD = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4, "OW": 2, "OF": 4, "OD": 8, "OV": 8, "OB": 1}
_PERSONAL = (Action.UID, Action.SHIFT, Action.ACCESSION)
_REPLACED = (("UI", Action.UID), ("UI", Action.KEEP), ("DA", Action.SHIFT), ("SH", Action.ACCESSION))
_TEXT_VRS = frozenset(("LO", "SH", "ST", "LT", "UT", "UC"))
_ONE_VALUE = frozenset(("ST", "LT", "UT"))
# What may say who somebody is, whatever its tag.
_SAYING_VRS = frozenset(("PN", "DA", "SQ", "UN"))
_LIMITS = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240}
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")
# A code of somebody's own scheme, and the scheme's name: one word, and no number that could be a person's or a date.
_LOCAL_CODE = re.compile(rb"(?!.*[0-9]{6})[A-Za-z0-9_.:-]{1,64}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TIME = re.compile(r"[0-2][0-9](:?[0-5][0-9](:?[0-6][0-9](\.[0-9]{1,6})?)?)?")
_AGE = re.compile(r"([0-9]{3})([DWMY])")
# Explicitly encoded numbers and times in the standard's form that are too short to be anybody's: they stay byte for byte.
_PLAIN = {
    "DS": re.compile(rb"-?[0-9]{1,5}(?:\.[0-9]{1,5})?(?:\\-?[0-9]{1,5}(?:\.[0-9]{1,5})?)* ?"),
    "IS": re.compile(rb"-?[0-9]{1,5}(?:\\-?[0-9]{1,5})* ?"),
    "TM": re.compile(rb"[0-2][0-9][0-5][0-9][0-6][0-9](?:\.[0-9]{1,6})? ?"),
    "US": re.compile(rb"..", re.DOTALL),
    "SS": re.compile(rb"..", re.DOTALL),
}
# Of the same form, but with fractions that an identifier could be hidden in.
_FRACTIONS = re.compile(rb"-?[0-9]{1,5}(?:\.[0-9]{1,9})?(?:\\-?[0-9]{1,5}(?:\.[0-9]{1,9})?)* ?")
_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
_DATE_TIME = re.compile(r"([0-9]{8})(([0-2][0-9])?([0-5][0-9])?([0-6][0-9](\.[0-9]{1,6})?)?([+-][0-9]{4})?)")
_PATH = re.compile(r"\s*(?:\\\\|[A-Za-z]:\\)")
_DIGITS = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[A-Za-z0-9]+")
# PS3.16 CID 7050: what says that an option was applied.
_OPTION_CODES = {
    "graphics": "113103",
    "structured_content": "113104",
    "descriptors": "113105",
    "full_dates": "113106",
    "modified_dates": "113107",
    "patient": "113108",
    "device": "113109",
    "uids": "113110",
    "safe_private": "113111",
    "institution": "113112",
}
_CLEAN_PIXELS = "113101"
# What is remembered, at most: people, contexts of a person, elements of a context, and bytes of an element.
_PEOPLE, _CONTEXTS, _ELEMENTS, _REMEMBERED_BYTES = 64, 64, 4096, 4096
# The same for what is remembered for all people.
_SHARED_CONTEXTS, _SHARED_BYTES = 16, 1024
_SAMPLES, _TEMPLATES = 64, 16


class WithheldError(Exception):
    """The instance does not leave; ``reason`` is a code of schemas/deid/withheld.yaml."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Deidentified(NamedTuple):
    """A de-identified file, its UIDs in the project (None where the source has none), how many text boxes were blanked, and how many frames
    it has (0 without pixels)."""

    data: bytes
    study_uid: str | None
    series_uid: str | None
    image_uid: str
    boxes_blanked: int
    frames: int


def deidentify(data: bytes, plan: Plan, identity: Identity) -> Deidentified:
    """De-identify an instance.

    Raises
    ------
    WithheldError
        It cannot be made safe, or is no image; ``reason`` says which.
    """
    return Deidentifier(plan)(data, identity)


class Deidentifier:
    """De-identifies instances one after the other, those of a series at the price of their differences. Belongs to one thread.

    ``treat`` does what needs a decoder, which may end its process: `dicom_supervised.SupervisedPixels` lets that be a child.
    """

    def __init__(self, plan: Plan, treat: Callable[[bytes, Sequence[Box], int], Pixels] = treat_file) -> None:
        self.plan = plan
        self._treat = treat
        self._people: dict[tuple, _Person] = {}
        self._last: tuple[Identity | None, Any] = (None, None)
        self._shared: dict[tuple, _Shared] = {}
        self._statements: dict[bool, dict[int, bytes]] = {}

    def __call__(self, data: bytes, identity: Identity) -> Deidentified:
        """The de-identified instance, the same whatever was de-identified before.

        Raises
        ------
        WithheldError
            It cannot be made safe, or is no image; ``reason`` says which.
        """
        person = self._person(identity)
        if identity.verdict == "clean" and not identity.boxes:
            result = person.by_template(data)
            if result is not None:
                return result
        with _quiet():
            try:
                return self._one(data, identity, person)
            except (WithheldError, MemoryError):
                raise
            except NotCleanableError:
                raise WithheldError("pixels_not_cleanable") from None
            except Exception:  # noqa: BLE001 - whatever a damaged file makes the parser raise, it means that it cannot be read
                raise WithheldError("not_readable") from None

    def _one(self, data: bytes, identity: Identity, person: "_Person") -> Deidentified:
        source = read(data)
        sop_class, instance_uid = source.text(_SOP_CLASS), source.text(_SOP_INSTANCE)
        image = sop_class in self.plan.image_classes and len(source.pixels) == 1
        report = sop_class.startswith(_REPORTS) and self.plan.policy["objects"]["structured_reports"] == "clean"
        if not image and not report:
            # A DICOMDIR says what it is in its file meta information only.
            said = sop_class or source.media_class
            if not said:
                raise WithheldError("not_readable")
            raise WithheldError("not_an_image" if said in UID_dictionary else "unknown_class_uid")
        if not instance_uid:
            raise WithheldError("not_readable")
        if image:
            if identity.verdict not in ("clean", "text"):
                raise WithheldError("text_not_determined")
            if (identity.verdict == "text") != bool(identity.boxes):
                raise WithheldError("pixels_not_cleanable")
        always = rectangles(self.plan.policy["pixels"], source) if image else ()
        if always:
            identity = replace(identity, boxes=(*identity.boxes, *always))
        if source.syntax not in UID_dictionary:
            raise WithheldError("unknown_class_uid")

        plan = self.plan.for_class(sop_class)
        treatment = person.treatment(source, plan, self._shared_of(source, plan))
        elements = treatment.encoded(source)
        if image and any(len(elements.get(tag, b"")) <= 8 for tag in _IMAGE_ESSENTIALS):
            raise WithheldError("not_readable")
        drawn = self._overlays(source, identity, treatment) if image else {}
        elements.update(drawn)
        pixels = self._pixels(data, source, identity) if image else None
        syntax = "1.2.840.10008.1.2.1"
        if pixels is not None:
            syntax = pixels.transfer_syntax
            elements.update((tag, encode_one(element)) for tag, element in pixels.header.items())
        elements.update(person.statements(plan, image))
        if pixels is not None and source.nodes is None and pixels.as_they_were and not drawn:
            person.learn(source, elements, treatment)
        image_uid = treatment.uid(_SOP_INSTANCE, instance_uid)
        parts = [_head(plan, sop_class, syntax)(image_uid), *map(elements.__getitem__, sorted(elements))]
        if pixels is not None:
            parts += pixels.parts()
        study_uid, series_uid = (treatment.uid(tag, uid) if (uid := source.text(tag)) else None for tag in (_STUDY, _SERIES))
        blanked, frames = (0, 0) if pixels is None else (pixels.blanked, source.number(_FRAMES, 1) or 1)
        return Deidentified(b"".join(parts), study_uid, series_uid, image_uid, blanked, frames)

    def _overlays(self, source: Source, identity: Identity, treatment: "_Treatment") -> dict[int, bytes]:
        if not identity.overlays_clean or "graphics" not in self.plan.policy["options"]:
            return {}
        return {element.tag: encode_one(element) for element in overlays(source, lambda data: treatment.values.in_bytes(data, True))}

    def _pixels(self, data: bytes, source: Source, identity: Identity) -> Pixels:
        if not identity.boxes:
            copied = copy_pixels(source)
            if copied is not None:
                return copied
        treat = treat_file if source.syntax in NATIVE else self._treat
        return treat(data, identity.boxes, source.number(_FRAMES, 1) or 1)

    def _shared_of(self, source: Source, plan: Plan) -> "_Shared":
        key = (plan.variant, source.implicit)
        shared = self._shared.get(key)
        if shared is None:
            if len(self._shared) >= _SHARED_CONTEXTS:
                self._shared.clear()
            shared = self._shared[key] = _Shared(plan)
        return shared

    def _person(self, identity: Identity) -> "_Person":
        if identity is self._last[0]:
            return self._last[1]
        who = (identity.key, identity.patient, identity.shift_days, identity.known, identity.overlays_clean)
        person = self._people.get(who)
        if person is None:
            if len(self._people) >= _PEOPLE:
                self._people.clear()
            person = self._people[who] = _Person(identity, self._statements)
        self._last = (identity, person)
        return person


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns of what it meets, and may quote it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _head(plan: Plan, sop_class: str, syntax: str) -> FileHead:
    written = plan.policy["written"]
    return file_head(sop_class, syntax, written["implementation_class_uid"], written["implementation_version_name"])


def _statements(plan: Plan, image: bool) -> Iterator[Element]:
    """What every result says of itself, but for whose it is (PS3.15 E.1, PS3.3 C.7.1.1 and C.12.1)."""
    written, options = plan.policy["written"], plan.policy["options"]
    yield text(0x00120062, "CS", "YES")  # PatientIdentityRemoved: no image comes here without a verdict on its pixels
    yield text(0x00120063, "LO", f"{written['method']} {plan.name}")  # DeidentificationMethod
    names = sorted({*written["method_codes"], *(_OPTION_CODES[option] for option in options), *([_CLEAN_PIXELS] if image else [])})
    codes = [_code_items("DCM", code) for code in names]
    yield Element(0x00120064, "SQ", [code for code in codes if code is not None])  # DeidentificationMethodCodeSequence
    if image:
        yield text(0x00280301, "CS", "NO")  # BurnedInAnnotation
    modified = "UNMODIFIED" if "full_dates" in options else "MODIFIED" if "modified_dates" in options else "REMOVED"
    yield text(0x00280303, "CS", modified)  # LongitudinalTemporalInformationModified


class _Learned(NamedTuple):
    """A template and what its files have in common."""

    key: tuple
    template: Template
    treatment: "_Treatment"
    head: FileHead
    study_uid: str | None
    series_uid: str | None
    image_uid: str


_NOTHING = Own(frozenset(), frozenset())


class _Person:
    """What was learned of one person's files: what elements say about people, and what became of them."""

    def __init__(self, identity: Identity, statements_of_all: dict[bool, dict[int, bytes]]) -> None:
        self.identity = identity
        self.statements_of_all = statements_of_all
        self._of_zone: Own | None = None
        self._treatments: dict[tuple, _Treatment] = {}
        self._statements: dict[bool, dict[int, bytes]] = {}
        self._templates: list[_Learned] = []
        # By treatment, syntax and elements: a file up to its pixels, and what became of it. Its bytes are one object, its elements many.
        self._samples: dict[tuple, tuple[bytes, dict[int, bytes]]] = {}

    def statements(self, plan: Plan, image: bool) -> dict[int, bytes]:
        """What every result of the person says of itself, encoded, by tag."""
        made = self._statements.get(image)
        if made is None:
            shared = self.statements_of_all.get(image)
            if shared is None:
                shared = self.statements_of_all[image] = {e.tag: encode_one(e) for e in _statements(plan, image)}
            patient = self.identity.patient
            written = patient.encode("ascii")
            own = {_PATIENT_ID: encode_value(_PATIENT_ID, "LO", written), _PATIENT_NAME: encode_value(_PATIENT_NAME, "PN", written)}
            made = self._statements[image] = shared | own
        return made

    def by_template(self, data: bytes) -> Deidentified | None:
        """The result for a file that is like others before it; None where there were none like it."""
        for place, learned in enumerate(self._templates):
            try:
                found = learned.template.apply(data, learned.treatment.instance)
            except Exception:  # noqa: BLE001 - whatever a damaged file makes of it, the long way says what it is
                return None
            if found is None:
                continue
            if place:
                self._templates.insert(0, self._templates.pop(place))
            image_uid = found[0] or learned.image_uid
            made = b"".join((learned.head(image_uid), *found[1]))
            return Deidentified(made, learned.study_uid, learned.series_uid, image_uid, 0, learned.template.frames)
        return None

    def learn(self, source: Source, made: dict[int, bytes], treatment: "_Treatment") -> None:
        """Make a template of a file and the one like it before it in its series, or remember it until there is one.

        Where a series of anybody's was of the same elements, what differed in it will differ in this one.
        """
        shape = (source.syntax, tuple(source.places))
        key = (treatment, source.raw(_SERIES), *shape)
        shapes, sample = treatment.blocks.shared.shapes, self._samples.get(key)
        if sample is None:
            if len(self._samples) >= _SAMPLES:
                self._samples.clear()
            self._samples[key] = (source.data[: source.places[source.pixels[0]].value + 8], made)
            slots = shapes.get(shape)
            if slots is not None and slots == may_differ(source, slots, treatment.saying()):
                self._teach(key, (source, made), slots, treatment)
            return
        former = (read(sample[0]), sample[1])
        slots = differences(former[0], source, treatment.saying())
        if slots is None:
            return
        known = next((learned for learned in self._templates if learned.key == key), None)
        if known is not None:
            slots |= known.template.slots
            self._templates.remove(known)
        if len(shapes) >= _SHARED_CONTEXTS:
            shapes.clear()
        shapes[shape] = slots
        # The template holds the creator of a private block; so it must be of a file in which the block's slots stayed.
        if not self._teach(key, former, slots, treatment) and self._teach(key, (source, made), slots, treatment):
            self._samples[key] = (source.data[: source.places[source.pixels[0]].value + 8], made)

    def _teach(self, key: tuple, of: tuple[Source, dict[int, bytes]], slots: frozenset[int], treatment: "_Treatment") -> bool:
        """Keep a template of a file and what became of it; False where a private element of a slot did not stay in it."""
        source, made = of
        if not {tag for tag in slots if tag & 0x10000 and treatment.wants(tag)} <= made.keys():
            return False
        uids = {tag: treatment.uid(tag, uid) if (uid := source.text(tag)) else None for tag in (_STUDY, _SERIES, _SOP_INSTANCE)}
        syntax = source.syntax if source.syntax not in NATIVE else "1.2.840.10008.1.2.1"
        learned = _Learned(
            key=key,
            template=Template(source, slots, made, treatment.slot, native_length(source)),
            treatment=treatment,
            head=_head(treatment.plan, source.text(_SOP_CLASS), syntax),
            study_uid=uids[_STUDY],
            series_uid=uids[_SERIES],
            image_uid=uids[_SOP_INSTANCE] or "",
        )
        self._templates = [learned, *self._templates][:_TEMPLATES]
        return True

    def treatment(self, source: Source, plan: Plan, shared: "_Shared") -> "_Treatment":
        """The treatment that holds for a file."""
        charset, signed = source.raw(_CHARACTER_SET), source.number(_PIXEL_REPRESENTATION) == 1
        identifiers, charsets = plan.identifiers, _charsets(charset)
        found: list[Own] = []
        saying: list[bytes] = []
        creators: list[bytes] = []
        if source.nodes is None:
            data, known = source.data, shared.said_in(charset)
            # What says something, and the creators of private blocks: (gggg,00xx) with an odd group.
            spoken = [p for tag, p in source.places.items() if p[1] in _SAYING_VRS or tag in identifiers or tag & 0x1FF00 == 0x10000]
            for tag, vr, start, _, end, _ in spoken:
                raw = data[start:end]
                if tag & 0x1FF00 == 0x10000:
                    if tag & 0xFF >= 0x10:
                        creators.append(raw)
                    if vr not in _SAYING_VRS and tag not in identifiers:
                        continue
                said = known.get(raw)
                if said is None:
                    said = _said(source.node(tag), charsets, plan)
                    if len(known) >= _ELEMENTS:
                        known.clear()
                    if len(raw) <= _SHARED_BYTES:
                        known[raw] = said
                if said is not _NOTHING:
                    found.append(said)
                    saying.append(raw)
        else:
            found = [_said(node, charsets, plan) for tag, node in source.nodes.items() if tag not in _PIXEL_TAGS]
            creators = [f"{tag:08X}{creator}".encode() for tag, creator in _creators_of(source).items()]
        blocks = shared.blocks(tuple(creators), source)
        context = (blocks, charset, signed, tuple(saying))
        treatment = self._treatments.get(context) if source.nodes is None else None
        if treatment is None:
            treatment = _Treatment(blocks, self.identity, Scrub.of([self._known(plan), *found]), charsets, signed)
            if source.nodes is None:
                if len(self._treatments) >= _CONTEXTS:
                    self._treatments.clear()
                self._treatments[context] = treatment
        return treatment

    def _known(self, plan: Plan) -> Own:
        """What the zone knows of the person."""
        if self._of_zone is None:
            self._of_zone = own_words((), self.identity.known, plan.policy["limits"]["identifier_length"])
        return self._of_zone


def _creators_of(source: Source) -> dict[int, str]:
    """Private creators at the top: tag of the creator element -> its text."""
    tags = source.places if source.nodes is None else source.nodes
    return {tag: source.text(tag) for tag in tags if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF}


@lru_cache(256)
def _charsets(raw: bytes) -> list[str]:
    """Python's names of the character sets that a data set declares; an unknown one is read as latin-1."""
    names = [part.strip(" \0") for part in raw.decode("latin-1").split("\\")]
    try:
        with _quiet():
            return list(convert_encodings(names or [""]))
    except Exception:  # noqa: BLE001 - a damaged name of a character set
        return ["latin-1"]


def _shared_letters(value: bytes) -> bool:
    """Whether a text is of letters that all of DICOM's character sets share."""
    return value.isascii() and b"\x1b" not in value


def _decoded(value: bytes, charsets: list[str]) -> str:
    if _shared_letters(value):
        return value.decode("ascii").strip(" \0")
    try:
        with _quiet():
            return decode_bytes(value, charsets, TEXT_VR_DELIMS).strip(" \0")
    except Exception:  # noqa: BLE001 - bytes that are not of the declared character set
        return value.decode("latin-1").strip(" \0")


def _said(node: Node, charsets: list[str], plan: Plan) -> Own:
    """The identifiers of the person that an element holds, at any depth, whole and by name part."""
    if node.vr == "DA" and node.tag != _BIRTH_DATE and isinstance(node.value, bytes) and len(node.value) == 8 and node.value.isdigit():
        return Own(frozenset(), frozenset((node.value.decode("ascii"),)))
    names: set[str] = set()
    others: set[str] = set()
    found = _walk(node, charsets) if node.vr in ("SQ", "UN") else ((node, charsets),)
    for each, own in found:
        vr = each.vr
        if vr == "UN" and each.tag in DicomDictionary:
            vr = DicomDictionary[each.tag][0]
        if vr != "PN" and vr != "DA" and each.tag not in plan.identifiers:
            continue
        value = bytes(each.value)  # type: ignore[arg-type]
        for form in {value.decode("latin-1").strip(" \0"), _decoded(value, own)}:
            parts = [part.strip() for part in form.split("\\")]
            if vr == "PN":
                names.update(re.split(r"[\\^= ,]+", form))
                names.update(part for part in parts if part)
            else:
                others.update(parts)
                if each.tag == _BIRTH_DATE:
                    others.update(spelt for part in parts for spelt in _spelt_dates(part))
    names.discard("")
    others.discard("")
    return own_words(names, others, plan.policy["limits"]["identifier_length"]) if names or others else _NOTHING


@lru_cache(1 << 13)
def _codes(value: bytes) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """Each value of an encoded code string as it is compared, and its words; None where one may not stay or is not spelt as it would be."""
    if len(value) % 2 or len(value) > _REMEMBERED_BYTES or not value.isascii():
        return None
    values = value.decode("ascii").removesuffix(" ").split("\\")
    if any(part != part.strip(" \0") or not _CODE_STRING.fullmatch(part) or not known_code(part) for part in values):
        return None
    if any(len(run) > 3 for part in values for run in _DIGITS.findall(part)):
        return None
    return tuple(map(normal, values)), frozenset(normal(word) for part in values for word in (part, *_WORDS.findall(part)))


def _spelt_dates(value: str) -> list[str]:
    """The digits of a DA value in the orders that people write them in."""
    match = _DATE.fullmatch(value)
    if match is None:
        return []
    year, month, day = match[1], match[3], match[4]
    return [day + month + year, month + day + year, day + month + year[2:], month + day + year[2:], year[2:] + month + day]


def _walk(node: Node, charsets: list[str]) -> Iterator[tuple[Node, list[str]]]:
    """Every element that is no sequence, at any depth, with the character sets of its item."""
    value = node.value
    if not isinstance(value, list) and node.vr == "UN" and DicomDictionary.get(node.tag, ("",))[0] == "SQ":
        try:
            value = items_of(value)
        except MalformedError:
            return  # never written either
    if not isinstance(value, list):
        yield node, charsets
        return
    for item in value:
        own = item.get(_CHARACTER_SET)
        inner = _charsets(own.value) if own is not None and isinstance(own.value, bytes) else charsets
        for each in item.values():
            yield from _walk(each, inner)


def _explicit(tag: int, raw: bytes, vr: str, start: int, implicit: bool) -> bytes:
    """An element whose value, from ``start`` on, stays as it is."""
    return encode_value(tag, vr, raw[start:]) if implicit else raw


class _PersonalError(Exception):
    """What becomes of an element depends on whose it is, or on what else its file says."""


class _Judged(NamedTuple):
    """What becomes of an element's bytes, and what must not be the person's for that to hold; ``made`` is None where it never does."""

    made: bytes | None
    unless: Unless


class _Kind(NamedTuple):
    """What a tag alone says of an element, where it is of one of the VRs that the standard gives it.

    ``stays``: whether it may; ``shared``: whether it is judged for all people; ``plain``: it may stay byte for byte; ``replaced``: it is a
    UID, a date or an accession number that is only to be replaced; ``made``: what it becomes, whatever its value.
    """

    stays: bool
    shared: bool = False
    vrs: tuple[str, ...] = ()
    plain: bool = False
    replaced: bool = False
    made: bytes | None = None


_NEVER = _Kind(False)


class _Shared:
    """What is known of elements whoever the person is: of data sets with the same rules and encoding."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.judged: dict[bytes, _Judged] = {}
        self.kinds: dict[int, _Kind] = plan.remembered
        self.shapes: dict[tuple, frozenset[int]] = {}
        self._said: dict[bytes, dict[bytes, Own]] = {}
        self._blocks: dict[tuple[bytes, ...], _Blocks] = {}

    def said_in(self, charset: bytes) -> dict[bytes, Own]:
        """What elements say about people, where texts are in a character set."""
        if charset not in self._said and len(self._said) >= _SHARED_CONTEXTS:
            self._said.clear()
        return self._said.setdefault(charset, {})

    def kind(self, tag: int) -> _Kind:
        """What is done with a standard attribute. Pixels are written apart."""
        kind = self.kinds.get(tag)
        if kind is None:
            kind = self._kind(tag)
            if tag in DicomDictionary:
                self.kinds[tag] = kind
        return kind

    def _kind(self, tag: int) -> _Kind:
        action = self.plan.decide(tag).action
        if action is Action.REMOVE or tag in _PIXEL_TAGS or tag in OFFSET_TABLES:
            return _NEVER
        vr = DicomDictionary[tag][0]
        vrs = tuple(vr.split(" or "))
        if tag in self.plan.accept:
            return _Kind(stays=True, shared=action not in _PERSONAL)
        made = None
        if vr != "SQ" and len(vrs) == 1 and action in (Action.EMPTY, Action.PATIENT):
            made = encode_value(tag, vr, b"") if action is Action.EMPTY else b""  # the pseudonym is written with the statements
        elif vr in _TEXT_VRS and action is Action.DUMMY:
            made = encode_one(text(tag, vr, self.plan.policy["dummy"]))
        return _Kind(
            stays=True,
            shared=action not in _PERSONAL and tag not in _TABLES and vr not in ("UI", "DA", "DT"),
            vrs=vrs,
            plain=action is Action.KEEP and tag not in _TABLES,
            replaced=(vr, action) in _REPLACED,
            made=made,
        )

    def blocks(self, creators: tuple[bytes, ...], source: Source) -> "_Blocks":
        """The private blocks of data sets with these creator elements."""
        blocks = self._blocks.get(creators)
        if blocks is None:
            if len(self._blocks) >= _CONTEXTS:
                self._blocks.clear()
            blocks = self._blocks[creators] = _Blocks(self, _creators_of(source))
        return blocks


class _Blocks:
    """What is known of private elements whoever the person is, and the way to judge any element so."""

    def __init__(self, shared: _Shared, creators: dict[int, str]) -> None:
        self.shared = shared
        self.creators = creators
        self.judged: dict[bytes, _Judged] = {}
        self.kinds: dict[int, _Kind] = {}
        self._nobody = _Nobody(self)

    def kind(self, tag: int) -> _Kind:
        """What is done with an element, private or not."""
        if not tag & 0x10000:
            return self.shared.kind(tag)
        kind = self.kinds.get(tag)
        if kind is None:
            creator = self.creators.get(_creator_tag(tag), "") if tag & 0xFFFF > 0xFF else ""
            stays = bool(creator) and self.shared.plan.decide_private(creator, tag).action is not Action.REMOVE
            kind = _Kind(True, shared=True) if stays else _NEVER
            if len(self.kinds) < _ELEMENTS:
                self.kinds[tag] = kind
        return kind

    def judge(self, source: Source, tag: int, place: Place, raw: bytes) -> _Judged:
        """What becomes of a top-level element whoever the person is."""
        nobody, start = self._nobody, place.value - place.start
        if nobody.is_short(tag, raw, place.vr, start):
            return self._remember(tag, raw, _Judged(_explicit(tag, raw, place.vr, start, source.implicit), NOTHING))
        nobody.noted.forget()
        made: bytes | None
        if place.vr == "CS" and nobody.plain(tag, "CS") and (code := _codes(raw[start:])) is not None:
            nobody.noted.code(*code)
            made = _explicit(tag, raw, "CS", start, source.implicit)
        elif place.vr != "CS" and nobody.is_plain(tag, raw, place.vr, start):
            made = _explicit(tag, raw, place.vr, start, source.implicit)
        else:
            try:
                element = nobody.treated(source.node(tag), nobody.charsets, self.creators, source.raw)
                made = encode_one(element) if element is not None else b""
            except _PersonalError:
                made = None
        return self._remember(tag, raw, _Judged(made, nobody.noted.unless()))

    def _remember(self, tag: int, raw: bytes, judged: _Judged) -> _Judged:
        if len(raw) <= _SHARED_BYTES:
            memory = self.judged if tag & 0x10000 else self.shared.judged
            if len(memory) >= _ELEMENTS:
                memory.clear()
            memory[raw] = judged
        return judged


class _Treatment:
    """The plan applied to the data sets of instances that say the same about people."""

    def __init__(self, blocks: _Blocks, identity: Identity | None, scrub: Scrub, charsets: list[str], signed: bool) -> None:
        shared = blocks.shared
        plan = shared.plan
        self.blocks = blocks
        self.plan = plan
        self.identity = identity
        self.signed = signed
        self.charsets = charsets
        self.creators = blocks.creators
        self.mask = plan.sop_class.startswith(_REPORTS)
        self.any_word = plan.policy["text"] != "vocabulary"
        self.scrub = scrub
        self.values = _Values(scrub, plan.policy["limits"])
        self._memory: dict[bytes, bytes] = {}
        self._uids: dict[str, str] = {}
        self._dates: dict[str, bytes] = {}
        self._keeps_uids = plan.decide(_SOP_INSTANCE).action is Action.KEEP

    def encoded(self, source: Source) -> dict[int, bytes]:
        """The top-level elements that stay, treated and encoded, by tag."""
        result: dict[int, bytes] = {}
        if source.nodes is not None:
            for tag, node in source.nodes.items():
                if self.wants(tag):
                    element = self.treated(node, self.charsets, self.creators, source.raw)
                    if element is not None:
                        result[tag] = encode_one(element)
        elif not self._as_for_all(source, result):
            result.clear()
            for tag, place in source.places.items():
                if self.wants(tag):
                    self._alone(source, tag, place, source.data[place.start : place.end], result)
        if self.creators:
            for element in _blocks(result, self.creators):
                result[element.tag] = encode_one(element)
        return result

    def _as_for_all(self, source: Source, result: dict[int, bytes]) -> bool:
        """Fill ``result``, as far as that goes by what holds for all people; False where that may not hold for this one."""
        data, blocks = source.data, self.blocks
        kinds, private_kinds = blocks.shared.kinds, blocks.kinds
        judged_of, private_of = blocks.shared.judged, blocks.judged
        isdisjoint, near = self.scrub.words.isdisjoint, self.scrub.near
        wholes: list[str] = []
        blobs: list[bytes] = []
        never = _NEVER
        for place in source.places.values():
            tag, vr, start, _, end, undefined = place
            private = tag & 0x10000
            kind = (private_kinds if private else kinds).get(tag) or blocks.kind(tag)
            if kind is never:
                continue
            _, shared, vrs, _, replaced, fixed = kind
            if fixed is not None and vr in vrs and not undefined:
                if fixed:
                    result[tag] = fixed
                continue
            raw = data[start:end]
            if not shared:
                direct = self._directly(kind, tag, raw, place) if replaced else None
                if direct is None:
                    self._alone(source, tag, place, raw, result)
                else:
                    result[tag] = direct
                continue
            made, unless = (private_of if private else judged_of).get(raw) or blocks.judge(source, tag, place, raw)
            if unless is not NOTHING:
                if not isdisjoint(unless.words) or any(map(near, unless.near)):
                    made = None
                wholes.append(unless.whole)
                if unless.blob:
                    blobs.append(unless.blob)
            if made is None:
                self._alone(source, tag, place, raw, result)
            elif made:
                result[tag] = made
        return not self.values.inside_any("\0".join(wholes), b"\xff".join(blobs))

    def _alone(self, source: Source, tag: int, place: Place, raw: bytes, result: dict[int, bytes]) -> None:
        """One top-level element that the plan lets stay, treated as this person's and encoded, into ``result``."""
        made = self._memory.get(raw)
        if made is None:
            start = place.value - place.start
            if self.is_plain(tag, raw, place.vr, start):
                result[tag] = _explicit(tag, raw, place.vr, start, source.implicit)
                return
            element = self.treated(source.node(tag), self.charsets, self.creators, source.raw)
            made = encode_one(element) if element is not None else b""
            if len(raw) <= _REMEMBERED_BYTES and tag not in _TABLES:
                if len(self._memory) >= _ELEMENTS:
                    self._memory.clear()
                self._memory[raw] = made
        if made:
            result[tag] = made

    def _directly(self, kind: _Kind, tag: int, raw: bytes, place: Place) -> bytes | None:
        """A UID, date or accession number by the shortest way, encoded; None where it is not one plain value of an attribute of that VR."""
        vr = place.vr
        value = raw[place.value - place.start :].decode("latin-1")
        if vr not in kind.vrs or not value.isascii() or "\\" in value:
            return None
        if vr == "UI":
            return encode_value(tag, vr, self.uid(tag, value).encode("ascii"))
        value = value.strip(" \0")
        if vr == "SH":
            return encode_value(tag, vr, self._accession(value).encode("ascii") if value else b"")
        moved = self._dates.get(value)
        if moved is None:
            moved = self._dates[value] = ((value and self._safe_one(vr, value, Action.SHIFT)) or "").encode("ascii")
            if len(self._dates) >= _ELEMENTS:
                self._dates.clear()
        return encode_value(tag, vr, moved)

    def slot(self, tag: int, place: Place, implicit: bool) -> "tuple[re.Pattern[bytes] | None, Slot | None]":
        """What the values of an element look like that may stay byte for byte, and what becomes of its bytes; see `Template`.

        It is no name, no date and no identifier. Nothing becomes of it where it says something about people, or would open or close a
        private block.
        """
        vr, wanted = place.vr, self.wants(tag)
        saying = vr in _SAYING_VRS
        if not wanted and not saying:
            return None, None

        def treat(raw: bytes, value: int) -> bytes | None:
            made = self._memory.get(raw)
            if made is None:
                if saying:
                    node = element_of(raw, implicit)
                    if _said(node, self.charsets, self.plan) is not _NOTHING:
                        return None
                elif self.is_plain(tag, raw, vr, value):
                    return _explicit(tag, raw, vr, value, implicit)
                else:
                    node = Node(tag, vr, raw[value:])
                element = self.treated(node, self.charsets, self.creators, lambda _: b"") if wanted else None
                made = encode_one(element) if element is not None else b""
                if len(raw) <= _REMEMBERED_BYTES:
                    if len(self._memory) >= _ELEMENTS:
                        self._memory.clear()
                    self._memory[raw] = made
            return None if not made and wanted else made

        return _PLAIN.get(vr) if self.plain(tag, vr) else None, treat

    def saying(self) -> frozenset[int]:
        """Attributes that say who the person is, or what is done with the pixels."""
        return self.plan.identifiers | deciding_tags(self.plan.policy["pixels"])

    def instance(self, value: str) -> str:
        """What the UID of an instance becomes; as `uid`, but not remembered: each has its own."""
        value = value.strip(" \0")
        if self._keeps_uids or not value or value in UID_dictionary:
            return self.uid(_SOP_INSTANCE, value)
        return self._mapped(value)

    def is_plain(self, tag: int, raw: bytes, vr: str, start: int) -> bool:
        """Whether an element that the plan keeps is the same when it is encoded again; ``start`` is where its value is in ``raw``."""
        if vr == "CS":
            return self._is_plain_code(tag, raw[start:])
        if self.is_short(tag, raw, vr, start):
            return True
        fractions = vr == "DS" and not len(raw) & 1 and len(raw) <= MAX_PLAIN and _FRACTIONS.fullmatch(raw, start) is not None
        return fractions and self.plain(tag, vr) and not self.values.in_fractions(raw[start:])

    def is_short(self, tag: int, raw: bytes, vr: str, start: int) -> bool:
        """Whether that is so because its values are too short to be anybody's."""
        pattern = _PLAIN.get(vr)
        fits = pattern is not None and not len(raw) & 1 and len(raw) <= MAX_PLAIN and pattern.fullmatch(raw, start) is not None
        return fits and self.plain(tag, vr)

    def plain(self, tag: int, vr: str) -> bool:
        """Whether an attribute of a VR may stay byte for byte."""
        kind = self.blocks.kind(tag)
        return kind.plain and vr in kind.vrs

    def _is_plain_code(self, tag: int, value: bytes) -> bool:
        read = _codes(value)
        if read is None or not self.plain(tag, "CS"):
            return False
        wholes, words = read
        mine = self.values.words
        return mine.isdisjoint(words) and not any(word in whole for whole in wholes for word in self.values.inside)

    def items(self, nodes: dict[int, Node], charsets: list[str]) -> Items:
        """The elements of an item that stay, treated."""
        own = nodes.get(_CHARACTER_SET)
        if own is not None and isinstance(own.value, bytes):
            charsets = _charsets(own.value)
        creators = {
            tag: node.value.decode("latin-1").strip(" \0")
            for tag, node in nodes.items()
            if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and isinstance(node.value, bytes)
        }

        def beside(tag: int) -> bytes:
            node = nodes.get(tag)
            return node.value if node is not None and isinstance(node.value, bytes) else b""

        kept = []
        for tag, node in nodes.items():
            # Pixels are written apart at the top level, and belong nowhere else (icons, thumbnails).
            if tag in _PIXEL_TAGS or tag in OFFSET_TABLES or not self._wanted(tag, creators):
                continue
            element = self.treated(node, charsets, creators, beside)
            if element is not None:
                kept.append(element)
        return [*kept, *_blocks({element.tag for element in kept}, creators)]

    def wants(self, tag: int) -> bool:
        """Whether the plan lets a top-level element stay, whatever its value. Pixels are written apart."""
        return self.blocks.kind(tag).stays

    def _wanted(self, tag: int, creators: dict[int, str]) -> bool:
        if tag >> 16 & 1:
            creator = creators.get(_creator_tag(tag), "") if tag & 0xFFFF > 0xFF else ""
            return bool(creator) and self.plan.decide_private(creator, tag).action is not Action.REMOVE
        return self.plan.decide(tag).action is not Action.REMOVE

    def treated(self, node: Node, charsets: list[str], creators: dict[int, str], beside: Callable[[int], bytes]) -> Element | None:
        """One element; ``beside`` gives the bytes of another one of the same data set."""
        tag = node.tag
        if tag >> 16 & 1:
            vr, pattern = self.plan.private[creators[_creator_tag(tag)], tag >> 16, tag & 0xFF]
            if node.vr not in (vr, "UN") or isinstance(node.value, list):
                return None
            return self._private(tag, vr, pattern, node.value)
        action = self.plan.decide(tag).action
        allowed = DicomDictionary[tag][0].split(" or ")
        value = node.value
        vr = node.vr
        if vr == "UN" or " or " in vr:
            vr = self._own_vr(allowed, value)
        if vr not in allowed:
            return None
        if vr == "SQ":
            if not isinstance(value, list):
                try:
                    value = items_of(value)
                except MalformedError:
                    return None
            return self._sequence(tag, value, action, charsets)
        if isinstance(value, list):
            return None
        if action is Action.EMPTY:
            return Element(tag, vr, b"")
        if action is Action.PATIENT:
            return None  # written with the statements, whether the source had it or not
        if vr in _WORD:
            return self._binary(tag, vr, _table_only(value, beside(_TABLES[tag])) if tag in _TABLES else value)
        return self._text(tag, vr, value, action, charsets)

    def _own_vr(self, allowed: list[str], value: "bytes | list") -> str:
        """The VR that the file leaves open (PS3.5 A.1): words of a table, else signed where the pixels are."""
        if "OW" in allowed and len(value) > 2:
            return "OW"
        if "SS" in allowed:
            return "SS" if self.signed else "US"
        return allowed[0]

    def _private(self, tag: int, vr: str, pattern: "re.Pattern[str] | None", value: bytes) -> Element | None:
        if vr in _WORD:
            made = self._binary(tag, vr, value)
            return made if made is not None and made.value else None
        values = _ascii_values(value)
        if pattern is not None:
            fine = any(values) and all(pattern.fullmatch(part) and not self.values.in_text(part) for part in values)
            return text(tag, vr, "\\".join(values)) if fine else None
        treated = self._safe(vr, values, Action.KEEP)
        return text(tag, vr, treated) if treated and fits(vr, treated.encode()) else None

    def _sequence(self, tag: int, items: list[dict[int, Node]], action: Action, charsets: list[str]) -> Element | None:
        if action is Action.EMPTY:
            return Element(tag, "SQ", [])
        if action is not Action.RECURSE:
            return None
        keep_all = tag in _FUNCTIONAL_GROUPS or tag == _CONTENT_SEQUENCE
        treated = []
        for item in items:
            elements = self._item(item, charsets)
            if elements or keep_all or (elements is not None and not item):
                treated.append(elements or [])
        return Element(tag, "SQ", treated) if treated or not items else None

    def _item(self, item: dict[int, Node], charsets: list[str]) -> Items | None:
        """A treated item; None where it is a code that may not stay."""
        elements = self.items(item, charsets)
        if not any(tag in item for tag in (_CODE_VALUE, _LONG_CODE, _URN_CODE)):
            return elements
        scheme = _ascii(item[_CODE_SCHEME]) if _CODE_SCHEME in item else ""
        value = next((_ascii(item[tag]) for tag in (_CODE_VALUE, _LONG_CODE) if tag in item), "")
        code = _code_items(scheme or "", value or "") or self._local_code(item, charsets)
        # What else is said of a code (PS3.3 8.8: versions, the source's own context groups) means nothing without the source; sequences in
        # it (modifiers, equivalent codes) do, and what the item says of the thing that the code names, such as the volume of an agent.
        return None if code is None else [*code, *(e for e in elements if e.vr == "SQ" or e.tag not in _CODE_MACRO)]

    def _local_code(self, item: dict[int, Node], charsets: list[str]) -> Items | None:
        """A code that no published scheme has, under a policy whose texts somebody reads: its meaning cleaned, the rest only unchanged."""
        if not self.any_word:
            return None
        place = _CODE_VALUE if _CODE_VALUE in item else _LONG_CODE
        value = self._unchanged(item.get(place), "SH" if place == _CODE_VALUE else "UC", charsets)
        scheme = self._unchanged(item.get(_CODE_SCHEME), "SH", charsets)
        if value is None or scheme is None:
            return None
        node = item.get(_CODE_MEANING)
        meaning = self._cleaned(_CODE_MEANING, "LO", node.value, charsets) if node is not None and isinstance(node.value, bytes) else None
        if meaning is None or not meaning.value:
            meaning = text(_CODE_MEANING, "LO", self.plan.policy["dummy"])
        return [value, scheme, meaning]

    def _unchanged(self, node: Node | None, vr: str, charsets: list[str]) -> Element | None:
        """A word of a code, if it is one that cleaning leaves as it is."""
        if node is None or not isinstance(node.value, bytes) or not _LOCAL_CODE.fullmatch(node.value.strip(b" \0")):
            return None
        cleaned = self._cleaned(node.tag, vr, node.value, charsets)
        return cleaned if cleaned is not None and cleaned.value == node.value.strip(b" \0") else None

    def _binary(self, tag: int, vr: str, value: bytes) -> Element | None:
        size = _WORD[vr]
        if vr.startswith("O") and tag not in self.plan.bulk:
            return None
        if len(value) % size or not fits(vr, value) or len(value) > size * _most_values(tag) or self.values.in_bytes(value, vr[0] == "O"):
            return Element(tag, vr, b"")
        return Element(tag, vr, b"" if vr in NUMBERS and self.values.in_numbers(vr, value) else value)

    def _text(self, tag: int, vr: str, value: bytes, action: Action, charsets: list[str]) -> Element | None:
        values = _ascii_values(value)
        if action is Action.ACCESSION:
            accession = value.strip(b" \0").decode("latin-1")
            return text(tag, vr, self._accession(accession) if accession else "")
        pattern = self.plan.accept.get(tag)
        if pattern is not None and any(values) and all(pattern.fullmatch(part) for part in values):
            return text(tag, vr, "\\".join(values))
        if action is Action.DUMMY:
            return text(tag, vr, self.plan.policy["dummy"])
        if pattern is not None:
            return text(tag, vr, "")
        if action is Action.CLEAN:
            return self._cleaned(tag, vr, value, charsets)
        if vr == "UI":
            parts = value.decode("latin-1").split("\\")
            return text(tag, vr, "\\".join(self.uid(tag, part) for part in parts))
        treated = self._safe(vr, values, action)
        if treated is None or not fits(vr, treated.encode()):
            return text(tag, vr, "")
        return text(tag, vr, treated)

    def _cleaned(self, tag: int, vr: str, value: bytes, charsets: list[str]) -> Element | None:
        """Free text as the policy's rule for text leaves it; nothing where nothing is left of it."""
        form = self._read(value, charsets)
        # A path's backslashes would make values of its folders.
        parts = [form] if vr in _ONE_VALUE or _PATH.match(form) else form.split("\\")
        vocabulary = self.plan.policy["text"] == "vocabulary"
        cleaned = [self.scrub.clean(part, vocabulary, self.mask and vr == "UT") for part in parts]
        limit = _LIMITS.get(vr)
        cleaned = [part if limit is None else part[:limit] for part in cleaned]
        if any(character.isalnum() for part in cleaned for character in part):
            return text(tag, vr, "\\".join(cleaned))
        required = self.plan.required.get(tag)
        if required is Action.DUMMY:
            return text(tag, vr, self.plan.policy["dummy"])
        return text(tag, vr, "") if required is not None or not form else None

    def _read(self, value: bytes, charsets: list[str]) -> str:
        return _decoded(value, charsets)

    def uid(self, tag: int, value: str) -> str:
        """What a UID becomes."""
        value = value.strip(" \0")
        if not value:
            return ""
        if value in UID_dictionary and tag not in self.plan.instances:
            return value
        if tag in self.plan.classes and value in self.plan.private_classes:
            return value
        if tag in self.plan.classes:
            raise WithheldError("unknown_class_uid")
        if self.plan.decide(tag).action is Action.KEEP:
            return value if re.fullmatch(r"[0-9.]{1,64}", value) else ""
        made = self._uids.get(value)
        if made is None:
            if len(self._uids) >= _ELEMENTS:
                self._uids.clear()
            made = self._uids[value] = self._mapped(value)
        return made

    def _mapped(self, uid: str) -> str:
        return self._identity().uid(uid)

    def _accession(self, number: str) -> str:
        return self._identity().accession(number)

    def _days(self) -> int:
        return self._identity().shift_days

    def _identity(self) -> Identity:
        if self.identity is None:
            raise _PersonalError
        return self.identity

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
        if vr in ("DA", "DT"):
            days = self._days() if action is Action.SHIFT else 0
            return shift_date(value, days) if vr == "DA" else shift_date_time(value, days)
        if vr == "CS":
            if not _CODE_STRING.fullmatch(value):
                return None
            # The other values of the attribute keep their places.
            return value if not self.values.in_text(value) and (self.any_word or known_code(value)) else ""
        if vr == "TM":
            return value if _TIME.fullmatch(value) else None
        if vr == "AS":
            return banded_age(value, self.plan.policy["limits"]["age"])
        if vr == "IS":
            fits_word = _INTEGER.fullmatch(value) and -(2**31) <= int(value) < 2**31
            return value if fits_word and not self.values.in_number(value) else None
        if vr == "DS":
            if len(value) > 64 or not _DECIMAL.fullmatch(value) or self.values.in_number(value):
                return None
            return value if len(value) <= 16 else format_number_as_ds(float(value))
        return None


class _Nobody(_Treatment):
    """Treats elements as anybody's, and notes what must not be the person's for that to hold.

    The more identifiers a person has, the more is refused: what is refused here is refused for everybody, and what is not is the same for
    everybody in whom nothing of what was noted is found.
    """

    def __init__(self, blocks: _Blocks) -> None:
        limits = blocks.shared.plan.policy["limits"]
        self.noted = Noted()
        super().__init__(blocks, None, NotedScrub(limits["identifier_length"], self.noted), [], False)
        self.values = NotedValues(self.scrub, limits, self.noted)

    def _read(self, value: bytes, charsets: list[str]) -> str:
        # What other letters are is for the file to say.
        if not _shared_letters(value):
            raise _PersonalError
        return super()._read(value, charsets)

    def _own_vr(self, allowed: list[str], value: "bytes | list") -> str:
        # Whether numbers have a sign, too.
        if "SS" in allowed:
            raise _PersonalError
        return super()._own_vr(allowed, value)


@lru_cache(4096)
def _most_values(tag: int) -> float:
    """How many values an attribute may have at most."""
    vr, many = DicomDictionary.get(tag, ("O", "n"))[:2]
    most = many.rsplit("-", 1)[-1]
    return int(most) if most.isdigit() and "O" not in vr.replace(" or ", "") else math.inf


def _table_only(value: bytes, described: bytes) -> bytes:
    """A lookup table, cut to the entries that its descriptor says."""
    if len(described) < 6:
        return b""
    entries, _, bits = struct.unpack("<3H", described[:6])
    entries = entries or 1 << 16
    wide = bits > 8 or len(value) >= 2 * entries
    return value[: 2 * entries if wide else entries + entries % 2]


def banded_age(value: str, limit: int) -> str | None:
    """An AS value, or the limit and a year where it is above the limit in years; None where it is no age.

    Examples
    --------
    >>> banded_age("065Y", 89), banded_age("094Y", 89), banded_age("old", 89)
    ('065Y', '090Y', None)
    """
    match = _AGE.fullmatch(value)
    if match is None:
        return None
    days = int(match[1]) * {"D": 1, "W": 7, "M": 30, "Y": 365}[match[2]]
    return f"{limit + 1:03}Y" if days > limit * 365 + 364 else value


def shift_date(value: str, days: int) -> str | None:
    """A DA value moved by whole days, in the standard's form; None where it is no date of the calendar.

    Examples
    --------
    >>> shift_date("20200228", 2), shift_date("2020.02.28", -1), shift_date("20200230", 1)
    ('20200301', '20200227', None)
    """
    match = _DATE.fullmatch(value)
    moved = calendar(match[1] + match[3] + match[4]) if match else None
    try:
        return None if moved is None else (moved + timedelta(days)).isoformat().replace("-", "")
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


def _blocks(tags: Iterable[int], creators: dict[int, str]) -> list[Element]:
    """The creator elements of private elements that stay."""
    blocks = {_creator_tag(tag) for tag in tags if tag >> 16 & 1 and tag & 0xFFFF > 0xFF}
    return [text(tag, "LO", creators[tag]) for tag in sorted(blocks)]


def _creator_tag(tag: int) -> int:
    return (tag & 0xFFFF0000) | (tag >> 8 & 0xFF)


def _ascii(node: Node) -> str | None:
    try:
        return node.value.decode("ascii").strip(" \0") if isinstance(node.value, bytes) else None
    except UnicodeDecodeError:
        return None


def _ascii_values(value: bytes) -> list[str]:
    try:
        return [part.strip(" \0") for part in value.decode("ascii").split("\\")]
    except UnicodeDecodeError:
        return []


@lru_cache(4096)
def _code_items(scheme: str, value: str) -> Items | None:
    meaning = standard_code(scheme, value)
    if meaning is None:
        return None
    tag, vr = (_CODE_VALUE, "SH") if len(value) <= 16 else (_LONG_CODE, "UC")
    return [text(tag, vr, value), text(_CODE_SCHEME, "SH", scheme), text(_CODE_MEANING, "LO", meaning)]
