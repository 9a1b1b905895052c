"""Rows of `pictures_spark.delivery.select.located` and what `pictures_spark.delivery.write` makes of them, without Spark."""

import hashlib
import secrets
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from instances import dicom_bytes, instance

from pictures_spark.delivery.write import Task, writer
from pictures_spark.keys import KeyRef
from pictures_spark.pixels.supervise import Limits

DATA = dicom_bytes(instance())
BOX = {"frame_from": 0, "frame_to": 0, "x0": 0, "y0": 0, "x1": 4, "y1": 2}
_TEXTS = ["image_id", "study_id", "series_id", "patient_id", "subject_id", "modality", "sop_uid", "study_uid", "series_uid",
          "content_sha256", "object_id", "path", "compression", "verdict"]  # fmt: skip
_TYPES = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [(name, pa.bool_()) for name in ("conflict", "verdicts_differ", "text_elsewhere")]
    + [(name, pa.int64()) for name in ("age_years", "offset", "length")]
    + [("scan_date", pa.date32()), ("known", pa.list_(pa.string())), ("boxes", pa.list_(pa.struct([(k, pa.int64()) for k in BOX])))]
)


def new_task(root: Path) -> Task:
    """A task with empty folders and a key of its own."""
    folders = {}
    for name in ("archive", "staging", "journal", "former", "review"):
        (root / name).mkdir()
        folders[name] = str(root / name)
    key = root / "k1.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(32))
    limits = Limits(seconds=60, memory_bytes=1 << 31, max_samples=1 << 24)
    return Task(
        **folders, key=KeyRef(str(key), "k1", "project:demo"), shift_limit=180, policy="default", second_look_share=0.0, limits=limits
    )


def row(**changes: Any) -> dict[str, Any]:
    """The located row of a clean image, `DATA` at a.dcm; ``changes`` by column."""
    source = instance()
    return {
        "image_id": "i", "study_id": "s", "series_id": "e", "patient_id": "p", "subject_id": "p", "conflict": False,
        "modality": "CT", "scan_date": date(2015, 6, 25), "age_years": 65,
        "sop_uid": source.SOPInstanceUID, "study_uid": source.StudyInstanceUID, "series_uid": source.SeriesInstanceUID,
        "content_sha256": hashlib.sha256(DATA).hexdigest(), "path": "a.dcm", "offset": None, "length": None, "compression": None,
        "object_id": "o", "verdict": "clean", "verdicts_differ": False, "boxes": None, "text_elsewhere": False, "known": ["Quillfeather"],
        **changes,
    }  # fmt: skip


def write(task: Task, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Manifest rows of the images; ``rows`` hold what differs from `row`."""
    batch = pa.RecordBatch.from_pylist([row(**changes) for changes in rows], _TYPES)
    return [line for made in writer(task)([batch]) for line in made.to_pylist()]
