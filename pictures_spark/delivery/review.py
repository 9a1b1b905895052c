"""What people look at before a delivery is handed over: the verdict on each image, and every text that is left in them; and that they did.

What enters: the rows that the executors made, and the texts that they wrote down. What leaves: two Parquet files in
``review/<project>/<cohort>/<delivery>/`` of the identifiable zone. They name objects and may, where the engine failed, hold an identifier:
that is what they are read for. A third file, ``signed.json``, says who has read the texts. Driver.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pictures_spark.config import Config
from pictures_spark.errors import InputError
from pictures_spark.report import utc_now
from pictures_spark.zones import Zones

INVENTORY, VERDICTS, SIGNED = "inventory.parquet", "verdicts.parquet", "signed.json"


def write_review(folder: Path, results: pa.Table) -> int:
    """Write both files; the number of distinct texts, by element, is given back.

    ``inventory.parquet``: element (path of keywords), value, images (how many hold it; fewer than there are where a run was killed).
    ``verdicts.parquet``: object_id, image_uid (the project's), verdict (clean, found, not_determined, null where it was withheld before the
    check), second_look (clean, text, not_determined, null where it was not looked at again), looks (how often it was looked at: what any
    look but the last finds beside blanked text is blanked, too), findings, nonconformities (what dciodvfy finds wrong with it and not
    with its source; null where it was not looked at again, or dicom3tools is not installed), status, reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: Counter[tuple[str, str]] = Counter()
    if (folder / INVENTORY).is_file():
        # Of images that an earlier run of the same delivery finished.
        texts.update({(row["element"], row["value"]): row["images"] for row in pq.read_table(folder / INVENTORY).to_pylist()})
    logs = sorted(folder.glob("*.texts"))
    for log in logs:
        for line in log.read_text(encoding="ascii").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was killed
            texts[entry["element"], entry["value"]] += entry["images"]
    rows = [{"element": element, "value": value, "images": images} for (element, value), images in sorted(texts.items())]
    schema = pa.schema([("element", pa.string()), ("value", pa.string()), ("images", pa.int64())])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / INVENTORY)
    verdicts = results.select(
        ["object_id", "image_uid", "verdict", "second_look", "looks", "findings", "nonconformities", "status", "reason"]
    )
    pq.write_table(verdicts.sort_by("image_uid"), folder / VERDICTS)
    for log in logs:
        log.unlink()
    return len(rows)


def sign(config: Config, project: str, cohort: str, by: str) -> None:
    """Write down that somebody has read every text of a delivery and that it may be handed over with them.

    Raises
    ------
    InputError
        The delivery was never made.
    """
    folder = _folder(config, project, cohort)
    said = {"inventory_sha256": _sha256(folder / INVENTORY), "by": by, "at": utc_now().isoformat()}
    (folder / SIGNED).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def is_signed(folder: Path) -> bool:
    """Whether somebody has signed these very texts; another text, and they are to be read again."""
    try:
        said = json.loads((folder / SIGNED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(said["inventory_sha256"] == _sha256(folder / INVENTORY))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder(config: Config, project: str, cohort: str) -> Path:
    """Where the newest inventory of a delivery is."""
    folder = Zones(config, "identifiable").path("identifiable", "review", project, cohort)
    found = sorted(folder.glob(f"*/{INVENTORY}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise InputError(f"there is no inventory of cohort {cohort} in project {project}: run `pictures extract` first")
    return found[-1].parent


def looked_at(results: pa.Table) -> dict[str, int]:
    """Counts for the report: images by verdict of the check, by what the second look said, and by whether they are as well formed."""
    counts = {}
    for column in ("verdict", "second_look"):
        for entry in pc.value_counts(results[column]).to_pylist():
            if entry["values"] is not None:
                counts[f"{column}_{entry['values']}"] = entry["counts"]
    if again := sum((looks or 0) > 1 for looks in results["looks"].to_pylist()):
        counts["blanked_again"] = again
    faults = [found for found in results["nonconformities"].to_pylist() if found is not None]
    if faults:
        worse = sum(map(bool, faults))
        counts |= {"conformance_as_before": len(faults) - worse, "conformance_worse": worse}
    return counts


def print_inventory(config: Config, project: str, cohort: str) -> None:
    """Print the texts of a delivery, tab-separated: element, images, value; for somebody who may see the identifiable zone.

    Raises
    ------
    InputError
        The delivery was never made.
    """
    for row in pq.read_table(_folder(config, project, cohort) / INVENTORY).to_pylist():
        print(row["element"], row["images"], row["value"], sep="\t")
