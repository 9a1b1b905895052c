"""The files of a delivery beside its images: tables, checksums, README, delivery.json - and whether a delivery is whole.

What enters: Arrow tables of the project zone's schemas. What leaves: files that are the same byte for byte whenever the same delivery is
made again; no clock is in them. Project private zone; driver.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pictures_spark.resources import load_schema

SUMS, README, ABOUT = "SHA256SUMS", "README.md", "delivery.json"
MANIFEST, EVENTS, PATIENTS = "manifest.parquet", "records/event.parquet", "records/patient.parquet"


def write_table(rows: pa.Table, folder: Path, name: str, order: str) -> None:
    """Write a table as one Parquet file, ordered by the project's own ids, so that the order of the source cannot be told from it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.sort_by(order).combine_chunks(), path, compression="zstd")


def write_papers(folder: Path, about: dict[str, Any], manifest: pa.Table, events: int, patients: int) -> None:
    """Write README.md, delivery.json and last SHA256SUMS, which covers every other file."""
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / README).write_text(_readme(about, manifest, events, patients), encoding="utf-8")
    images = dict(zip(manifest["file"].to_pylist(), manifest["sha256"].to_pylist(), strict=True))
    sums = {name: digest for name, digest in images.items() if name}
    for name in (MANIFEST, EVENTS, PATIENTS, README, ABOUT):
        sums[name] = _sha256(folder / name)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())), encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any] | None:
    """delivery.json of a delivery; None where there is none that can be read."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def is_whole(folder: Path) -> bool:
    """Whether every file that SHA256SUMS lists is there and is what it was."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        return bool(lines) and all(_sha256(folder / name) == digest for digest, name in (line.split("  ", 1) for line in lines))
    except (OSError, ValueError):
        return False


def withheld_reasons(manifest: pa.Table) -> dict[str, int]:
    """How many images were withheld, by reason."""
    return dict(sorted(Counter(reason for reason in manifest["reason"].to_pylist() if reason).items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readme(about: dict[str, Any], manifest: pa.Table, events: int, patients: int) -> str:
    meanings = load_schema("deid/withheld.yaml")
    delivered = manifest.num_rows - sum(about["withheld"].values())
    withheld = "".join(f"- {count:,} x `{reason}`: {meanings[reason]}\n" for reason, count in about["withheld"].items()) or "- none\n"
    return f"""# {about["delivery"]}, delivered to project {about["project"]}

{delivered:,} de-identified images and {events:,} linked records of {patients:,} people.

| file | what it is |
|---|---|
| `images/<patient_id>/<study_uid>/<series_uid>/<image_uid>.dcm` | the images, DICOM |
| `{MANIFEST}` | one row per image: its ids, shifted date, age, file, checksum - and one per image that was withheld, with the reason |
| `{EVENTS}` | diagnoses, dispensing, laboratory results and other events of the same people |
| `{PATIENTS}` | one row per person: sex, shifted date of death |
| `{ABOUT}` | what this delivery was made with |
| `{SUMS}` | a checksum of every file: `sha256sum --check --quiet {SUMS}` |

## Ids and dates
`patient_id` is the same in the manifest, the records and PatientID of the images. All ids and UIDs belong to this project alone. An image
that could not be linked to a person has a `patient_id` of its study and no records.

Every date of a person, in images and records alike, is moved by the same secret number of days. Intervals are true: the days between a scan
and a dispensing, a stay or a death are what they were. Calendar dates, weekdays and seasons are not. Times of day are unchanged.
`age_years` was computed before dates were moved: completed years, on the day of the scan or event.

## What was removed
Names, numbers, places, staff, devices, embedded icons and overlays. Of descriptions and protocol names only what the policy lets stay is
left (`default`: words of a list), with `*` where something was taken away; of private elements only numbers and
codes that their maker documents as safe. Text burned into the pixels was blanked; `boxes_blanked` counts the boxes, and every pixel outside
them is unchanged. Code sequences hold published codes only. Policy `detailed` also keeps local codes with their meanings cleaned, and
overlays that were read and hold no text. The policy is `{about["policy"]}`; it is written in DeidentificationMethod of every image.

## What was withheld
{withheld}
## How to open it
With Python, pandas, pyarrow, pydicom and matplotlib: set `PICTURES_DELIVERY` to this folder and run the notebook
`01_open_a_package.ipynb`, or

```python
import pandas, pydicom
manifest = pandas.read_parquet("{MANIFEST}")
image = pydicom.dcmread(manifest.file.dropna().iloc[0])
```
"""
