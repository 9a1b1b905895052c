"""Write one image of a delivery: read it from the archive, de-identify it, check it, put it in its place.

What enters: rows of `pictures_spark.delivery.select.located`. What leaves: files in the delivery's staging folder, a journal line per file
written, one row per image for the manifest - and, for those who review the delivery, the verdict of the check on each image and every text
that the results hold, in the identifiable zone. Executors only; the keys are read here.
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from pictures_spark.deid.act import Deidentified, Deidentifier, WithheldError
from pictures_spark.deid.dicom_identity import Box, Identity, make_identity
from pictures_spark.deid.dicom_supervised import SupervisedPixels
from pictures_spark.deid.plan import load_plan
from pictures_spark.deid.verify import Checked, Checker, conformance, verdict
from pictures_spark.delivery.second_look import SecondLook
from pictures_spark.dicom.containers import ObjectChangedError, read_object
from pictures_spark.keys import KeyRef, pseudonymous_uid
from pictures_spark.pixels.supervise import Limits
from pictures_spark.roots import Root

RESULT_TYPE = (
    "patient_id string, study_uid string, series_uid string, image_uid string, modality string, scan_date date, age_years bigint, "
    "file string, size bigint, sha256 string, boxes_blanked bigint, status string, reason string, fresh boolean, object_id string, "
    "verdict string, second_look string, looks bigint, findings array<string>, nonconformities array<string>"
)
# Of these only those of the manifest leave the identifiable zone.
REVIEW_COLUMNS = ("object_id", "verdict", "second_look", "looks", "findings", "nonconformities")
_COLUMNS = [column.split()[0] for column in RESULT_TYPE.split(", ")]
_ROWS_PER_BATCH = 64
# So often a result is looked at, at most; what each look but the last finds is blanked.
_LOOKS = 3


@dataclass(frozen=True)
class Task:
    """What every image of a delivery has in common; safe to send to executors."""

    archive: Root
    staging: str
    journal: str
    former: str
    key: KeyRef
    shift_limit: int
    policy: str
    review: str
    second_look_share: float
    limits: Limits


def writer(task: Task) -> Any:
    """The function that `mapInArrow` runs: located rows in, manifest rows out."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        work = _Work(task)
        try:
            for batch in batches:
                for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
                    rows = [work.one(row) for row in batch.slice(start, _ROWS_PER_BATCH).to_pylist()]
                    work.tell_texts()
                    yield pa.RecordBatch.from_pylist(rows, _schema())
        finally:
            work.second_look.close()
            work.decoding.close()

    return write


def _schema() -> pa.Schema:
    types = {
        "string": pa.string(),
        "bigint": pa.int64(),
        "date": pa.date32(),
        "boolean": pa.bool_(),
        "array<string>": pa.list_(pa.string()),
    }
    return pa.schema([(name, types[kind]) for name, kind in (column.split() for column in RESULT_TYPE.split(", "))])


class _Work:
    """One Spark task: its key, its policy, and the journal of what earlier runs of the same delivery finished."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.key = task.key.bytes()
        self.plan = load_plan(task.policy)
        self.decoding = SupervisedPixels(task.limits)
        self.deidentify = Deidentifier(self.plan, self.decoding.treat)
        self.check = Checker(self.plan.policy, self.decoding.compare)
        self.done = _journal(Path(task.journal))
        self.log = Path(task.journal) / f"{uuid.uuid4().hex}.jsonl"
        self.second_look = SecondLook(Path(task.journal).with_suffix(".look"), task.limits, task.second_look_share)
        self.texts: Counter[tuple[str, str]] = Counter()
        self.told: set[tuple[str, str]] = set()
        self.texts_log = Path(task.review) / f"{uuid.uuid4().hex}.texts"

    def one(self, row: dict[str, Any]) -> dict[str, Any]:
        """The manifest row of one image, after its file is in place."""
        identity = self._identity(row)
        # An image whose header is no longer in the catalogue still has one line in the manifest, under ids of its own.
        study, series, image = (
            pseudonymous_uid(self.key, row[name] or row[otherwise])
            for name, otherwise in (("study_uid", "study_id"), ("series_uid", "series_id"), ("sop_uid", "image_id"))
        )
        line = {
            "patient_id": identity.patient,
            "study_uid": study,
            "series_uid": series,
            "image_uid": image,
            "modality": row["modality"],
            "scan_date": _shifted(row["scan_date"], identity.shift_days),
            "age_years": row["age_years"],
            "object_id": row["object_id"],
        }
        file = f"images/{identity.patient}/{study}/{series}/{image}.dcm"
        finished = self.done.get(image)
        if finished is not None and _sha256(Path(self.task.staging, file)) == finished["sha256"]:
            return self._line(line, **finished, status="delivered")
        review: dict[str, Any] = {}
        try:
            result = self._result(row, identity, image, review)
        except WithheldError as withheld:
            return self._line(line, **review, status="withheld", reason=withheld.reason, fresh=False)
        written = {
            "file": file,
            "size": len(result.data),
            "sha256": hashlib.sha256(result.data).hexdigest(),
            "boxes_blanked": result.boxes_blanked,
            "fresh": _place(result.data, Path(self.task.staging, file), Path(self.task.former, file)),
            **review,
        }
        with self.log.open("a", encoding="ascii") as log:
            log.write(json.dumps({"image_uid": image, **written}) + "\n")
        return self._line(line, **written, status="delivered")

    def _line(self, line: dict[str, Any], **rest: Any) -> dict[str, Any]:
        return dict.fromkeys(_COLUMNS) | line | rest

    def _identity(self, row: dict[str, Any]) -> Identity:
        boxes = [Box(**box) for box in row["boxes"] or []]
        verdict = row["verdict"]
        if row["verdicts_differ"]:
            verdict = "not_determined"
        elif verdict == "text" and not boxes and row["text_elsewhere"]:
            verdict = "clean"  # all of it lies in overlays or icons, which then are not written
        return make_identity(
            self.key,
            row["subject_id"],
            self.task.shift_limit,
            known=row["known"] or (),
            verdict=verdict,
            boxes=boxes,
            overlays_clean=verdict in ("clean", "text") and not row["text_elsewhere"],
        )

    def tell_texts(self) -> None:
        """Write down which texts the results of this batch hold, and in how many images; in the identifiable zone, for review."""
        if self.texts:
            self.told |= self.texts.keys()
            Path(self.task.review).mkdir(parents=True, exist_ok=True)
            with self.texts_log.open("a", encoding="ascii") as log:
                for (element, value), images in sorted(self.texts.items()):
                    log.write(json.dumps({"element": element, "value": value, "images": images}) + "\n")
            self.texts.clear()

    def _result(self, row: dict[str, Any], identity: Identity, image_uid: str, review: dict[str, Any]) -> Deidentified:
        """The de-identified instance, after both checks of it; what they say goes into ``review``."""
        if row["conflict"]:
            raise WithheldError("conflict")
        if row["path"] is None:
            raise WithheldError("not_in_archive")
        try:
            data = read_object(
                self.task.archive, row["path"], row["offset"], row["length"], row["compression"], sha256=row["content_sha256"]
            )
        except ObjectChangedError:
            raise WithheldError("changed") from None
        except (OSError, ValueError):
            raise WithheldError("not_in_archive") from None
        result, checked = self._checked(data, identity, image_uid, review)
        if result.frames and self.second_look.wanted(image_uid, bool(result.boxes_blanked)):
            result, checked = self._looked_at(data, identity, image_uid, review, result, checked)
            review["nonconformities"] = conformance(data, result.data)
            if review["second_look"] != "clean":
                raise WithheldError("text_left" if review["second_look"] == "text" else "text_not_determined")
            if review["nonconformities"]:
                raise WithheldError("conformance_worse")
        self.texts.update(checked.texts)
        if not checked.texts <= self.told:
            self.tell_texts()  # before the image counts as done: a killed run must not lose a text
        return result

    def _checked(self, data: bytes, identity: Identity, image_uid: str, review: dict[str, Any]) -> tuple[Deidentified, Checked]:
        """The de-identified instance, and what the independent check says of it."""
        result = self.deidentify(data, identity)
        if result.image_uid != image_uid:
            raise WithheldError("changed")
        checked = self.check(data, result.data, identity)
        # Names of attributes and kinds of findings, never a value.
        review |= {"verdict": verdict(checked.findings), "findings": [f"{f.code} {f.keyword}".strip() for f in checked.findings]}
        if review["verdict"] != "clean":
            raise WithheldError("verification_failed" if review["verdict"] == "found" else "verification_not_determined")
        return result, checked

    def _looked_at(
        self, data: bytes, identity: Identity, image_uid: str, review: dict[str, Any], result: Deidentified, checked: Checked
    ) -> tuple[Deidentified, Checked]:
        """The same once more without the text that a second look finds beside what was blanked: a line of which a part was not read.

        Text in an image that was said to have none is not blanked but told: others of its kind that nobody looks at may have it, too.
        """
        for look in range(1, _LOOKS + 1):
            first = tuple(frame for box in identity.boxes for frame in range(box.frame_from, box.frame_to + 1))
            found = self.second_look.boxes(result.data, result.frames, first)
            review |= {"looks": look, "second_look": "not_determined" if found is None else "text" if found else "clean"}
            if not found or not result.boxes_blanked or look == _LOOKS:
                break
            more = (Box(0, result.frames - 1, *box.sides) for box in found)
            identity = replace(identity, boxes=(*identity.boxes, *more))
            result, checked = self._checked(data, identity, image_uid, review)
        return result, checked


def _place(data: bytes, target: Path, former: Path) -> bool:
    """Put a file in its place, whole or not at all; False where an equal one was there or in the former delivery."""
    if _holds(target, data):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{uuid.uuid4().hex}"
    try:
        if _holds(former, data):
            os.link(former, scratch)
            scratch.replace(target)
            return False
        scratch.write_bytes(data)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _journal(folder: Path) -> dict[str, dict[str, Any]]:
    """What earlier runs finished, by image; the last line of a run that was killed may be torn and is left out."""
    done = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="ascii").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            done[entry.pop("image_uid")] = entry
    return done


def _shifted(day: date | None, days: int) -> date | None:
    return None if day is None else day + timedelta(days)
