"""What the catalogue's tables take per row, and what 10^10 instances would: measured on a made-up archive, from Delta's log.

    python benchmarks/layout.py [--n 20000] [--folder .cache/benchmarks]

The archive is that of benchmarks/headers.py: short and long series, loose files. The tables are those of `pictures catalogue` after
`pictures maintain identifiable`.
"""

import argparse
import json
import shutil
from pathlib import Path

import archive
import yaml

from pictures_spark import maintain
from pictures_spark.config import load_config
from pictures_spark.dicom import catalogue
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.resources import conf_dir, load_yaml
from pictures_spark.session import open_session
from pictures_spark.zones import Zones

INSTANCES = 10**10
# The file size that OPTIMIZE aims at.
FILE_BYTES = 2**30
TABLES = ("object", "header_instance", "header_series", "header_span", "catalogue_plan")


def main() -> None:
    """Catalogue, maintain, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"))
    arguments = parser.parse_args()
    home = (arguments.folder / "layout").resolve()
    shutil.rmtree(home, ignore_errors=True)
    archive.write(home / "archive", arguments.n)
    values = load_yaml(conf_dir() / "local.yaml") | {"home": str(home)}
    (home / "conf.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    config = load_config(home / "conf.yaml")
    zones = Zones(config, "identifiable")
    init_key(zones, "k1")
    run_job("catalogue", config, "identifiable", catalogue.run)
    maintain.run(config, "identifiable")
    found = {size.name: size for size in maintain.sizes(open_session(config, zones), zones, "identifiable")}
    instances = found["header_instance"].rows
    for name in TABLES:
        size = found[name]
        rows = size.rows / instances * INSTANCES
        size_there = rows * size.per_row
        files = size_there / FILE_BYTES
        print(f"{name:<16} {size.per_row:>8.1f} bytes/row {rows:>16,.0f} rows {size_there / 1e12:>7.2f} TB {files:>8,.0f} files")
    stored = found["header_instance"].size + found["header_series"].size
    print(json.dumps({"name": "layout_bytes_per_instance", "ours": round(stored / instances, 1), "unit": "bytes", "n": instances}))
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
