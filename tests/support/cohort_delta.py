"""Delta tables written by hand, without Spark: one Parquet file and one commit a version."""

import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pictures_spark.schema import table


def publish(root: Path, tables: dict[str, list[dict[str, Any]]], release: str = "r1", versions: dict[str, int] | None = None) -> None:
    """Write tables of the de-identified zone below ``root``/tables and a release of them; written again, they get another version."""
    found = {name: write(root, name, rows) for name, rows in tables.items()}
    row = {
        "release": release,
        "run_id": "run",
        "fingerprint": "f",
        "published": datetime(2020, 1, 1),
        "table_versions": json.dumps(found | (versions or {})),
        "key_id": "k1",
    }
    write(root, "release", [row])


def write(root: Path, name: str, rows: list[dict[str, Any]]) -> int:
    """Replace the content of one table; its new version."""
    folder = root / "tables" / name
    log = folder / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    version = len(list(log.glob("*.json")))
    columns = table("deidentified", name).columns
    file = folder / f"{uuid.uuid4()}.parquet"
    pq.write_table(pa.table({c.name: pa.array([row.get(c.name) for row in rows], c.arrow_type) for c in columns}), file)
    actions: list[dict[str, Any]] = []
    if version == 0:
        fields = [{"name": c.name, "type": _type(c.type), "nullable": True, "metadata": {}} for c in columns]
        schema = json.dumps({"type": "struct", "fields": fields})
        actions.append(
            {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": ["timestampNtz"],
                    "writerFeatures": ["timestampNtz"],
                }
            }
        )
        actions.append(
            {
                "metaData": {
                    "id": str(uuid.uuid4()),
                    "format": {"provider": "parquet", "options": {}},
                    "schemaString": schema,
                    "partitionColumns": [],
                    "configuration": {},
                    "createdTime": 0,
                }
            }
        )
    old = {
        json.loads(line)["add"]["path"]
        for path in log.glob("*.json")
        for line in path.read_text().splitlines()
        if "add" in json.loads(line)
    }
    actions += [{"remove": {"path": path, "deletionTimestamp": 0, "dataChange": True}} for path in sorted(old)]
    actions.append(
        {"add": {"path": file.name, "partitionValues": {}, "size": file.stat().st_size, "modificationTime": 0, "dataChange": True}}
    )
    (log / f"{version:020d}.json").write_text("\n".join(map(json.dumps, actions)))
    return version


def _type(type_: str) -> Any:
    if type_.startswith("array<"):
        return {"type": "array", "elementType": type_[len("array<") : -1], "containsNull": True}
    return type_
