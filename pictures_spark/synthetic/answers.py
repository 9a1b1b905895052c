"""De-identification scored in the manner of the MIDI-B challenge: synthetic patients planted in DICOM files, and a key of what must become
of each value.

What enters: a seed. What leaves: files in memory, for each its :class:`Answer` list, and the share of them that an engine gets right, by
the challenge's ten actions. `write_key` gives the key in the form that the challenge's public validation script reads. Pure but for that.
"""

import csv
import hashlib
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    UID_dictionary,
)

from pictures_spark.deid.act import Deidentifier
from pictures_spark.deid.dicom_identity import Box, make_identity
from pictures_spark.deid.plan import Plan

ACTIONS = (
    "tag_retained",
    "text_notnull",
    "text_retained",
    "text_removed",
    "date_shifted",
    "uid_changed",
    "uid_consistent",
    "patid_consistent",
    "pixels_hidden",
    "pixels_retained",
)
_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless)
_FORENAMES = ("Morwenna", "Ottoline", "Bartholomew", "Zuleika", "Caradoc", "Li", "Jürgen", "Anaïs")
_SURNAMES = ("Quillfeather", "Zanzibari", "Threlkeldson", "Vandersnoot", "Ng", "O'Shaughnessy", "Smith-Wemyss", "Kjærgård")
_PHRASES = (
    "CT HEAD W/O CONTRAST",
    "T2 FLAIR AXIAL 3mm",
    "CHEST PA AND LATERAL",
    "LUMBAR SPINE SAG T1",
    "ABDOMEN PORTAL VENOUS PHASE",
    "HIP LEFT",
)
_LARGEST_BASE = 300_000
# Numbers that a result must still have, where the source has them.
_NUMBERS = (
    "SliceThickness",
    "KVP",
    "Rows",
    "Columns",
    "BitsAllocated",
    "PixelSpacing",
    "RepetitionTime",
    "InstanceNumber",
    "ImagePositionPatient",
)
# The script's own columns of an answer's origin; ours have none.
_CATEGORIES = {"hipaa": ("z", "m"), "dicom": ("p15", "iod", "safe"), "tcia": ("ptkb", "p15", "rev")}
_MAPPED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ReferencedSOPInstanceUID")
_CODES = ("Modality", "BodyPartExamined", "PatientPosition", "Laterality", "ScanOptions")


class Answer(NamedTuple):
    """What must become of the value at ``path``, a chain of tags and item numbers; ``value`` is the part of it that counts."""

    action: str
    path: tuple[int, ...]
    value: str


@dataclass(frozen=True)
class Person:
    """A synthetic patient."""

    number: int
    name: str
    chi: str
    born: str
    address: str
    phone: str
    referrer: str
    place: str

    @property
    def known(self) -> list[str]:
        """What the zone knows of the person."""
        return [*self.name.replace("^", " ").split(), self.chi, self.address]


@dataclass(frozen=True)
class Planted:
    """A file with a synthetic patient in it, the key, and where text was drawn into its pixels."""

    data: bytes
    person: Person
    answers: tuple[Answer, ...]
    boxes: tuple[Box, ...] = ()
    base: str = field(default="", compare=False)


def plant_all(patients: int, seed: int) -> list[Planted]:
    """Every small image that pydicom ships, and two generated files a patient in every native syntax and RLE, with patients planted."""
    chance = random.Random(seed)
    people = [_person(number, chance) for number in range(patients)]
    planted = []
    for place, (name, data) in enumerate(_bases()):
        planted.append(_plant(dcmread(BytesIO(data)), people[place % patients], chance, name))
    for person in people:
        for number in range(2):
            planted.append(_generated(person, number, chance))
    return planted


def score(plan: Plan, planted: Sequence[Planted]) -> tuple[Counter[str], Counter[str]]:
    """(checks passed, checks made) by action, over all files in one project."""
    results = run(plan, planted)
    passed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for action, fine in _checks(planted, results):
        tried[action] += 1
        passed[action] += fine
    return passed, tried


def run(plan: Plan, planted: Sequence[Planted]) -> list[bytes]:
    """The files de-identified, each as its person's, with its boxes.

    Raises
    ------
    WithheldError
        One of them is withheld.
    """
    deidentifier = Deidentifier(plan)
    results = []
    for one in planted:
        who = make_identity(
            bytes(range(32)),
            f"synthetic {one.person.number}",
            180,
            known=one.person.known,
            verdict="text" if one.boxes else "clean",
            boxes=one.boxes,
        )
        results.append(deidentifier(one.data, who).data)
    return results


def failures(plan: Plan, planted: Sequence[Planted]) -> list[tuple[str, str, str]]:
    """(action, base, keyword) of every check that fails; no value, so that it can be printed."""
    results = run(plan, planted)
    found = []
    for one, result in zip(planted, results, strict=True):
        for answer, (action, fine) in zip(one.answers, _of_file(one, dcmread(BytesIO(result)), result), strict=True):
            if not fine:
                found.append((action, one.base, str(pydicom.datadict.keyword_for_tag(answer.path[-1]))))
    return found


def write_key(folder: Path, planted: Sequence[Planted], results: Sequence[bytes]) -> None:
    """Write ``answers.db`` (table ``answer_data``), ``uids.csv`` and ``patids.csv`` (id_old, id_new) for the public validation script."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, uids, people = [], {}, {}
    for one, result in zip(planted, results, strict=True):
        before, after = dcmread(BytesIO(one.data)), dcmread(BytesIO(result))
        checks = {}
        for number, answer in enumerate(one.answers):
            path = answer.path or ((0x7FE00010,) if answer.action.startswith("pixels_") else (0x00110010,))
            label = f"<{_label(path, before)}>"
            name = pydicom.datadict.dictionary_description(path[-1]) if pydicom.datadict.dictionary_has_tag(path[-1]) else ""
            checks[str(number)] = {
                "action": f"<{answer.action}>",
                "action_text": f"<{_said(answer, before, one.boxes)}>",
                "value": f"<{before.PatientID if answer.action == 'patid_consistent' else answer.value}>",
                "tag": label,
                "tag_ds": label,
                "tag_name": f"<{name}>",
                "answer_category_v2": {"prev_cat": "", **{group: dict.fromkeys(names, "") for group, names in _CATEGORIES.items()}},
            }
            if answer.action == "uid_consistent":
                uids[answer.value] = _text(_at(after, answer.path))
        if one.boxes:  # of a redacted image the bytes differ, and the script compares nothing else
            checks = {number: entry for number, entry in checks.items() if entry["action"] != "<pixels_retained>"}
        ids = [
            str(before.get(name, "")) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        ]
        rows.append((*ids, str(before.get("Modality", "")), json.dumps(checks)))
        people[ids[0]] = str(after.PatientID)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if name in before and name in after:
                uids[str(before[name].value)] = str(after[name].value)
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality", "AnswerData")
    (folder / "answers.db").unlink(missing_ok=True)
    connection = sqlite3.connect(folder / "answers.db")
    with connection:
        connection.execute(f"CREATE TABLE answer_data ({', '.join(f'{name} TEXT' for name in names)})")
        connection.executemany(f"INSERT INTO answer_data VALUES ({', '.join('?' * len(names))})", rows)
    connection.close()
    for name, pairs in (("uids.csv", uids), ("patids.csv", people)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("id_old", "id_new"), *sorted(pairs.items())])


def _label(path: tuple[int, ...], dataset: Dataset) -> str:
    """A path as the public script writes it: tags in brackets, item numbers of four digits, private tags by their creator."""
    steps = []
    for place, step in enumerate(path):
        if place % 2:
            steps.append(f"[<{step:04}>]")
        elif step >> 16 & 1:
            steps.append(f'<({step >> 16:04x},"{dataset[step].value}",01)>')
        else:
            steps.append(f"<({step >> 16:04x},{step & 0xFFFF:04x})>")
    return "".join(steps)[1:-1]


def _said(answer: Answer, before: Dataset, boxes: tuple[Box, ...]) -> str:
    """What the script compares with: the value, for pixels their checksum or what is written where."""
    if answer.action == "pixels_retained":
        value = bytes(before.PixelData)
        if not before.original_encoding[1] and int(before.BitsAllocated) == 16:
            value = np.frombuffer(value, ">u2").astype("<u2").tobytes()
        return hashlib.md5(value, usedforsecurity=False).hexdigest()
    if answer.action == "pixels_hidden":
        box = boxes[0]
        return json.dumps({"text": "anything", "top_left": [box.x0, box.y0], "bottom_right": [box.x1, box.y1]})
    return answer.value


# --- planting -------------------------------------------------------------------------------------------------------------------------


def _person(number: int, chance: random.Random) -> Person:
    born = date(1925, 1, 1) + timedelta(days=chance.randrange(30_000))
    head = f"{born:%d%m%y}{chance.randrange(100):02}{chance.randrange(10)}"
    check = -sum(int(digit) * weight for digit, weight in zip(head, range(10, 1, -1), strict=True)) % 11
    chi = f"{head}{check % 10}"
    return Person(
        number,
        f"{chance.choice(_SURNAMES)}^{chance.choice(_FORENAMES)}",
        chi,
        f"{born:%Y%m%d}",
        f"{chance.randint(1, 99)} Glenmuckle Wynd, EH{chance.randint(1, 17)} {chance.randint(1, 9)}QX",
        f"0131 555 {chance.randint(0, 9999):04}",
        f"{chance.choice(_SURNAMES)}^{chance.choice(_FORENAMES)}",
        chance.choice(("Auchtermuchty Infirmary", "Glenmuckle Cottage Hospital")),
    )


@cache
def _bases() -> list[tuple[str, bytes]]:
    found = {}
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*")):
        if not path.is_file() or path.stat().st_size > _LARGEST_BASE or path.suffix in (".txt", ".json", ".py"):
            continue
        data = path.read_bytes()
        try:
            dataset = dcmread(BytesIO(data))
            whole = bool(dataset.PixelData) and "Image" in dataset.SOPClassUID.name and dataset.file_meta.TransferSyntaxUID
            if whole and "SOPInstanceUID" in dataset and path.name != "MR_truncated.dcm":
                list(dataset.iterall())
                found[data] = path.name
        except Exception:  # noqa: BLE001 - no image, or a damaged one
            continue
    return [(name, data) for data, name in found.items()]


def _set(dataset: Dataset, keyword: str, value: Any) -> int:
    tag = int(pydicom.datadict.tag_for_keyword(keyword) or 0)
    vr = pydicom.datadict.dictionary_VR(tag)
    dataset[tag] = DataElement(tag, vr, value, validation_mode=0)
    return tag


def _plant(dataset: Dataset, person: Person, chance: random.Random, base: str, boxes: tuple[Box, ...] = ()) -> Planted:
    """Write a person into a data set, and the key of what must become of everything."""
    answers: list[Answer] = []
    dataset.SpecificCharacterSet = "ISO_IR 192"
    surname, forename = person.name.split("^")
    gone = {
        "PatientName": person.name,
        "PatientID": person.chi,
        "PatientBirthDate": person.born,
        "PatientAddress": person.address,
        "PatientTelephoneNumbers": person.phone,
        "OtherPatientIDs": f"X{person.chi}",
        "ReferringPhysicianName": person.referrer,
        "OperatorsName": "Hoskinson^Jane",
        "InstitutionName": person.place,
        "AccessionNumber": f"ACC{person.number:05}",
        "PatientMotherBirthName": "Threlkeldson",
        "RequestedProcedureID": f"RP{person.number:06}",
    }
    for keyword, value in gone.items():
        answers.append(Answer("text_removed", (_set(dataset, keyword, value),), value))
    patient_id = (0x00100020,)
    answers += [
        Answer("text_notnull", patient_id, ""),
        Answer("text_notnull", (0x00100010,), ""),
        Answer("patid_consistent", patient_id, ""),
    ]
    chi = person.chi
    sayings = (
        f"{forename} {surname}",
        f"{surname.upper()}, {forename}",
        f"{chi[:6]} {chi[6:]}",
        chi,
        person.phone,
        "Dr Hoskinson",
        f"{surname[:3]}{surname[4]}{surname[3]}{surname[5:]}" if len(surname) > 7 else surname,
        f"{chance.randint(1, 28)}/{chance.randint(1, 12)}/20{chance.randint(10, 20)}",
    )
    for keyword in ("SeriesDescription", "StudyDescription", "ProtocolName", "ImageComments", "DerivationDescription"):
        phrase, word = chance.choice(_PHRASES), chance.choice(sayings)
        tag = _set(dataset, keyword, f"{phrase}; {word}"[:64])
        answers += [Answer("text_retained", (tag,), phrase), Answer("text_removed", (tag,), word)]
    nested = Dataset()
    phrase = chance.choice(_PHRASES)
    inner = _set(nested, "ScheduledProcedureStepDescription", f"{phrase}; {surname}")
    _set(nested, "RequestedProcedureDescription", forename)
    dataset.RequestAttributesSequence = Items([nested])
    path = (0x00400275, 0)
    answers += [Answer("text_retained", (*path, inner), phrase), Answer("text_removed", (*path, inner), surname)]
    dataset.private_block(0x0011, "GLENMUCKLE", create=True).add_new(1, "LO", person.name)
    answers.append(Answer("text_removed", (), person.name))
    for keyword in (*_NUMBERS, *_CODES):
        element = dataset.get(keyword)
        if element not in (None, "") and "CT5N" not in base:
            tag = int(dataset[keyword].tag)
            text = _text(dataset[keyword])
            answers += [Answer("tag_retained", (tag,), text), Answer("text_retained", (tag,), text)]
    answers += _of_tree(dataset, ())
    answers += [Answer("pixels_hidden" if boxes else "pixels_retained", (), "")]
    if boxes:
        answers.append(Answer("pixels_retained", (), ""))
    buffer = BytesIO()
    dataset.save_as(buffer)
    return Planted(buffer.getvalue(), person, tuple(answers), boxes, base)


def _of_tree(dataset: Dataset, path: tuple[int, ...]) -> list[Answer]:
    """Dates and UIDs at any depth that the result must still have, moved and mapped."""
    answers = []
    for element in dataset:
        if element.tag.is_private or element.tag.group > 0x0040:
            continue
        if element.VR == "SQ" and element.keyword in ("ReferencedImageSequence", "SourceImageSequence", "RequestAttributesSequence"):
            for number, item in enumerate(element.value):
                answers += _of_tree(item, (*path, int(element.tag), number))
        elif element.VR == "DA" and element.keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate") and str(element.value):
            answers.append(Answer("date_shifted", (*path, int(element.tag)), str(element.value)))
        elif element.keyword in _MAPPED and str(element.value) not in UID_dictionary:
            where = (*path, int(element.tag))
            answers += [Answer("uid_changed", where, str(element.value)), Answer("uid_consistent", where, str(element.value))]
    return answers


def _generated(person: Person, number: int, chance: random.Random) -> Planted:
    """A CT that refers to the other one of its person, in one of the syntaxes; the second has text drawn into its pixels."""
    made = Dataset()
    root = f"1.2.826.0.1.3680043.10.99.{person.number + 1}"
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"{root}.1.1.{number + 1}"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = f"{root}.1", f"{root}.1.1", f"{root}.9"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = (
        f"20{chance.randint(10, 19)}{chance.randint(1, 12):02}{chance.randint(1, 28):02}"
    )
    made.Modality, made.BodyPartExamined, made.PatientPosition, made.PatientSex = "CT", "HEAD", "HFS", "F"
    made.SliceThickness, made.KVP, made.InstanceNumber, made.PixelSpacing = "1.25", "120", str(number + 1), ["0.5", "0.5"]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CTImageStorage, f"{root}.1.1.{2 - number}"
    made.ReferencedImageSequence = Items([reference])
    pixels = np.random.default_rng(person.number * 2 + number).integers(10, 200, (32, 32), np.uint16)
    boxes: tuple[Box, ...] = ()
    if number:
        boxes = (Box(0, 0, 4, 4, 20, 10),)
        pixels[4:10:2, 4:20:2] = 4000
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows = made.Columns = 32
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    syntax = _SYNTAXES[(person.number + number) % len(_SYNTAXES)]
    big = syntax == ExplicitVRBigEndian
    made.add_new(0x7FE00010, "OW", pixels.astype(">u2" if big else "<u2").tobytes())
    made.preamble = bytes(128)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    made.set_original_encoding(syntax == ImplicitVRLittleEndian, not big)
    if syntax == RLELossless:
        made.compress(RLELossless, generate_instance_uid=False)
    planted = _plant(made, person, chance, f"generated {syntax.name}", boxes)
    return replace(planted, boxes=boxes)


# --- checking -------------------------------------------------------------------------------------------------------------------------


def _checks(planted: Sequence[Planted], results: Sequence[bytes]) -> Iterable[tuple[str, bool]]:
    mapped: dict[str, set[str]] = {}
    back: dict[str, set[str]] = {}
    patients: dict[int, set[str]] = {}
    parsed = [dcmread(BytesIO(result)) for result in results]
    for one, made in zip(planted, parsed, strict=True):
        patients.setdefault(one.person.number, set()).add(str(made.PatientID))
        for answer in one.answers:
            if answer.action == "uid_consistent":
                now = _text(_at(made, answer.path))
                mapped.setdefault(answer.value, set()).add(now)
                back.setdefault(now, set()).add(answer.value)
    for one, made, result in zip(planted, parsed, results, strict=True):
        for answer, (action, fine) in zip(one.answers, _of_file(one, made, result), strict=True):
            if action == "uid_consistent":
                names = mapped[answer.value]
                yield action, len(names) == 1 and "" not in names and len(back[next(iter(names))]) == 1
            elif action == "patid_consistent":
                mine = patients[one.person.number]
                yield action, len(mine) == 1 and not any(mine & other for number, other in patients.items() if number != one.person.number)
            else:
                yield action, fine


def _of_file(one: Planted, made: Dataset, result: bytes) -> Iterable[tuple[str, bool]]:
    """(action, whether it is fulfilled as far as the file alone can tell) of each answer."""
    for answer in one.answers:
        element = _at(made, answer.path) if answer.path else None
        value = _text(element)
        match answer.action:
            case "tag_retained":
                fine = element is not None
            case "text_notnull":
                fine = bool(value)
            case "text_retained":
                fine = answer.value in value
            case "text_removed":
                needle = answer.value
                fine = needle not in value and (len(needle) < 8 or not any(needle.encode(c) in result for c in ("utf-8", "utf-16-le")))
            case "date_shifted":
                fine = bool(value) and value != answer.value
            case "uid_changed":
                fine = bool(value) and value != answer.value and value.startswith("2.25.")
            case "pixels_hidden" | "pixels_retained":
                fine = _pixels(one, made, answer.action)
            case _:
                fine = bool(value)
        yield answer.action, fine


def _pixels(one: Planted, made: Dataset, action: str) -> bool:
    source = dcmread(BytesIO(one.data))
    if not one.boxes and source.file_meta.TransferSyntaxUID == made.file_meta.TransferSyntaxUID:
        before, after = source.PixelData, made.PixelData
        return before[: len(after)] == after or bool((source.pixel_array == made.pixel_array).all())
    before, after = source.pixel_array, made.pixel_array
    inside = np.zeros(before.shape[:2], bool)
    for box in one.boxes:
        inside[box.y0 : box.y1, box.x0 : box.x1] = True
    if action == "pixels_hidden":
        return len(np.unique(after[inside])) == 1
    return bool((after == before).all()) if not one.boxes else bool((after[~inside] == before[~inside]).all())


def _at(dataset: Dataset, path: tuple[int, ...]) -> DataElement | None:
    """The element at a path; None where it is not there."""
    holder: Dataset = dataset
    for place in range(0, len(path) - 1, 2):
        if path[place] not in holder or len(holder[path[place]].value) <= path[place + 1]:
            return None
        holder = holder[path[place]].value[path[place + 1]]
    return holder.get_item(path[-1]) and holder[path[-1]]


def _text(element: DataElement | None) -> str:
    if element is None or element.value is None:
        return ""
    values = element.value if element.VM > 1 else [element.value]
    return "\\".join(map(str, values))
