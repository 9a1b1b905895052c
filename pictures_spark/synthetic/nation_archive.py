"""The nation's scans as DICOM files without pixels, for ``pictures synth --extracts N --images``, and which scan is which.

Enters: people with their register rows and the wanted scans of a batch. Leaves: files of a zip, and rows of ``truth/scans``. The scans are
those of ``pictures synth --tables N``: the same headers, spoiled by the same traps; a study id of the answer key is in ``truth/scans``
beside the UID that stands in the files. Pure but for the zip. Nothing comes from the clock or from pydicom's own defaults.

An image differs from its series' first in three values of fixed width, which are put into the encoded bytes. Its Pixel Data element is
there and empty, so `pixels` has nothing to measure.
"""

import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from pydicom import Dataset, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from pictures_spark.synthetic.draws import Draws, Whole
from pictures_spark.synthetic.lives import Lives
from pictures_spark.synthetic.nation_tables import first_board
from pictures_spark.synthetic.people import mistyped
from pictures_spark.synthetic.register import Register, numbers_of
from pictures_spark.synthetic.scanning import ONE_REQUEST, Scans, days_off, first_image, header, made, request_of, scanning

COLUMNS = (
    *("chi", "patient_id_in_header", "study_id", "series_id", "study_uid", "series_uid", "accession", "modality", "images", "trap"),
    *("second_copy", ONE_REQUEST),
)
_TIME = (2020, 1, 1, 0, 0, 0)
# Digits of a UID below 2.25: all of one width, so that one can take another's place.
_LEAST, _ROOM = 10**37, 9 * 10**37
_PLACEHOLDER = f"2.25.{'1' * 38}"
# No number of an image and no place is like these.
_NUMBER, _POSITION = "-99999", "+99999.999"
# Pixel Data without any: the header then says of its frames what it would with them.
_NO_PIXELS = b"\xe0\x7f\x10\x00OW\0\0\0\0\0\0"
# Rank of a number that no birth day has so many people for.
_NOBODY = 440
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
_CLASS = UID("2.25.305828488182831875890203105390285383139")


def uid(name: str) -> str:
    """The UID of a thing that the nation calls by 32 hex digits.

    Examples
    --------
    >>> len(uid("0" * 32)), uid("0" * 32) != uid("0" * 31 + "1")
    (43, True)
    """
    return f"2.25.{_LEAST + int(name, 16) % _ROOM}"


def accession(study_id: str) -> str:
    """The accession number of the request that led to a study; where it led to several, to the first of them."""
    return study_id[:16].upper()


@dataclass
class Zip:
    """A zip that grows by files, the same bytes for the same files."""

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._zip = zipfile.ZipFile(self.path, "w")

    def add(self, name: str, content: bytes) -> None:
        """Add a file, deflated."""
        info = zipfile.ZipInfo(name, _TIME)
        # The system that packed it would otherwise be noted: 3 is Unix.
        info.create_system = 3
        info.external_attr = 0o644 << 16
        self._zip.writestr(info, content, zipfile.ZIP_DEFLATED, 1)

    def close(self) -> None:
        """Write the directory."""
        self._zip.close()


class Into(Protocol):
    """Takes images: name and bytes."""

    def add(self, name: str, content: bytes) -> None:
        """Take an image."""


def scans_of(
    draws: Draws,
    lives: Lives,
    ids: pa.Array,
    told: Register,
    scans: tuple[Scans, ...],
    clean: bool,
    into: Iterable[Into],
    second: Iterable[Into],
) -> pa.Table:
    """Write the images of a batch's scans; the rows of ``truth/scans``, one per series.

    Parameters
    ----------
    second : takes a share of the studies too: archives that were moved keep some of them twice.
    """
    board = first_board(draws, lives.people)
    rows = [row for wanted in scans for row in _protocol(draws, lives, ids, told, board, wanted, clean, tuple(into), tuple(second))]
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    return pa.table({name: pa.array([str(value) for value in column], pa.string()) for name, column in zip(COLUMNS, columns, strict=True)})


def _protocol(
    draws: Draws,
    lives: Lives,
    ids: pa.Array,
    told: Register,
    board: Whole,
    wanted: Scans,
    clean: bool,
    into: tuple[Into, ...],
    second: tuple[Into, ...],
) -> Iterator[tuple[Any, ...]]:
    found = made(draws, lives.people, ids, board, wanted, clean)
    noted = list(zip(found.traps["uid"].to_pylist(), found.traps["trap"].to_pylist(), strict=True))
    traps = {study: trap for study, trap in noted if trap != ONE_REQUEST}
    together = {study for study, trap in noted if trap == ONE_REQUEST}
    requests = draws.names("study", lives.people.index[wanted.who], request_of(wanted)).to_pylist()
    unlinked = {row["id"]: row["unlinked"] for row in scanning()["traps"] if "unlinked" in row}
    plan, count = scanning()["protocols"][wanted.protocol], len(wanted.who)
    studies, series = found.tables["study"].to_pylist(), found.tables["series"].to_pylist()
    numbers, forenames, surnames = (column.to_pylist() for column in (told.number(wanted.who, wanted.on), told.forename, told.surname))
    group = lives.people
    twice = draws.happens("second_copy", group.index[wanted.who], scanning()["second_copy"], wanted.number) & (not clean)
    changed = draws.happens("changed_copy", group.index[wanted.who], scanning()["changed_copy"], wanted.number) & twice
    strangers = numbers_of(group.birth[wanted.who], group.male[wanted.who], np.full(count, _NOBODY)).to_pylist()
    for place, study in enumerate(studies):
        who, number, trap = int(wanted.who[place]), numbers[place], traps.get(study["study_id"])
        said = _patient_id(number, strangers[place], unlinked.get(trap or ""))
        shared = {
            "PatientName": f"{surnames[who].upper()}^{forenames[who].upper()}",
            "PatientID": said,
            "PatientBirthDate": _date(int(lives.people.birth[who])),
            "PatientSex": "M" if lives.people.male[who] else "F",
            "StudyInstanceUID": uid(study["study_id"]),
            "AccessionNumber": accession(requests[place]),
            "StudyTime": study["study_time"].replace(":", ""),
            "PatientAge": _age(int(wanted.on[place]) - int(lives.people.birth[who])),
            **{keyword: _date(int(wanted.on[place]) + days_off(trap, keyword)) for keyword in _DATES},
        }
        for at, entry in enumerate(plan["series"]):
            row = series[at * count + place]
            devices = scanning()["devices"][entry["Modality"]]
            device = draws.choice(f"device/{entry['Modality']}", board[wanted.who[place : place + 1]], [weight for *_, weight in devices])
            tags = {**header(wanted.protocol, at, devices[int(device[0])], trap), **shared, "SeriesNumber": str(at + 1)}
            tags |= {"SeriesInstanceUID": uid(row["series_id"]), "FrameOfReferenceUID": uid(row["frame_of_reference_id"])}
            # What shows the same pixels is told by pixels, which are not here.
            images = draws.names(
                "image", np.full(row["image_count"], lives.people.index[who]), _slots(wanted, place, at, row["image_count"])
            )
            uids = [uid(image) for image in images.to_pylist()]
            written = [(tags, into + (second if twice[place] and not changed[place] else ()))]
            if changed[place]:
                written.append((tags | {"SeriesDescription": f"{tags['SeriesDescription']} *"}, second))
            for said_of_it, takers in written:
                for name, content in _images(said_of_it, first_image(wanted.protocol, at, trap), entry, uids, row["frame_count"]):
                    for one in takers:
                        one.add(f"{shared['StudyInstanceUID']}/{at + 1:03d}/{name}", content)
            yield (
                *(number, said, study["study_id"], row["series_id"], shared["StudyInstanceUID"], tags["SeriesInstanceUID"]),
                *(
                    shared["AccessionNumber"],
                    entry["Modality"],
                    row["image_count"],
                    trap or "",
                    "changed" if changed[place] else "yes" if twice[place] else "",
                    "yes" if study["study_id"] in together else "",
                ),
            )


def _slots(wanted: Scans, place: int, at: int, count: int) -> Whole:
    return (wanted.number[place] * 100 + at) * 10_000 + np.arange(count)


def _patient_id(number: str, stranger: str, unlinked: str | None) -> str:
    """PatientID as the header has it, where a trap makes the study nobody's."""
    match unlinked:
        case "no_identifier":
            return ""
        case "check_digit":
            return mistyped(number)
        case "unknown_person":
            return stranger
    return number


def _date(days: int) -> str:
    return str(np.datetime64(days, "D")).replace("-", "")


def _age(days: int) -> str:
    """PatientAge (AS): days, weeks or months of those under two, years of others; empty before birth."""
    for unit, length, below in (("D", 1, 14), ("W", 7, 91), ("M", 30, 730), ("Y", 365, 365_000)):
        if 0 <= days < below:
            return f"{days // length:03d}{unit}"
    return ""


def _images(
    tags: dict[str, Any], first: dict[str, Any], entry: dict[str, Any], uids: list[str], frames: int
) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of each image of a series; ``first`` is what the first one has otherwise."""
    step = float(entry.get("step", 0))
    normal = _normal(tags["ImageOrientationPatient"]) if "ImageOrientationPatient" in tags else None
    if "frames" in entry:
        base = _encoded(_enhanced(dict(tags), step, normal, frames))
    else:
        tags = tags | ({"ImagePositionPatient": [_POSITION] * 3} if normal else {})
        base = _encoded(tags)
    for number, name in enumerate(uids):
        data = (_encoded(tags | first) if first and number == 0 else base).replace(_PLACEHOLDER.encode(), name.encode())
        data = data.replace(_NUMBER.encode(), f"{number + 1:06d}".encode(), 1)
        if normal and "frames" not in entry:
            place = "\\".join(f"{part * step * number:+010.3f}" for part in normal)
            data = data.replace("\\".join([_POSITION] * 3).encode(), place.encode(), 1)
        yield f"{number + 1:06d}.dcm", data


def _normal(cosines: list[float]) -> list[float]:
    return [float(part) for part in np.cross(cosines[:3], cosines[3:])]


def _enhanced(tags: dict[str, Any], step: float, normal: list[float] | None, frames: int) -> dict[str, Any]:
    """The same series as one image of many frames: geometry is in functional groups (PS3.3 C.7.6.16)."""
    measures, plane = Dataset(), Dataset()
    measures.SliceThickness, measures.PixelSpacing = tags.pop("SliceThickness"), tags.pop("PixelSpacing")
    plane.ImageOrientationPatient = tags.pop("ImageOrientationPatient")
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([plane])
    each = []
    for frame in range(frames):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [round(part * step * frame, 3) for part in normal or (0, 0, 1)]
        group.PlanePositionSequence = Sequence([position])
        each.append(group)
    groups = {"SharedFunctionalGroupsSequence": Sequence([shared]), "PerFrameFunctionalGroupsSequence": Sequence(each)}
    return tags | groups | {"NumberOfFrames": str(frames)}


def _encoded(tags: dict[str, Any]) -> bytes:
    dataset = Dataset()
    values = {"SpecificCharacterSet": "ISO_IR 100", **tags, "SOPInstanceUID": _PLACEHOLDER, "InstanceNumber": _NUMBER}
    for keyword, value in values.items():
        tag = Tag(keyword)
        if isinstance(value, Sequence | int):
            setattr(dataset, keyword, value)
            continue
        # As it stands, whatever it is: a thickness of 1.5mm is one of the traps.
        text = "\\".join(str(part) for part in value) if isinstance(value, list) else str(value)
        padded = text.encode("latin-1")
        padded += (b"\0" if dictionary_VR(tag) == "UI" else b" ") * (len(padded) % 2)
        dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(padded), padded, 0, False, True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(tags["SOPClassUID"]), UID(_PLACEHOLDER)
    meta.ImplementationClassUID, meta.ImplementationVersionName = _CLASS, "SYNTHETIC"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return buffer.getvalue() + _NO_PIXELS
