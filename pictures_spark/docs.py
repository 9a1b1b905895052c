"""Generate what docs/ derives from schemas/: the data dictionary and the settings page. ``pictures docs`` writes them; a test compares."""

from pathlib import Path

from pictures_spark.deid.explain import page
from pictures_spark.deid.plan import load_plan
from pictures_spark.quarantine import reasons
from pictures_spark.resources import conf_dir, load_schema
from pictures_spark.schema import ZONES, Column, Table, tables, vocabulary

_ZONE_TITLES = {
    "identifiable": "Identifiable zone",
    "deidentified": "De-identified zone",
    "project": "Project private zone (Parquet files of a delivery)",
}


def pages() -> dict[str, str]:
    """File name below docs/ -> text."""
    return {
        "data-dictionary.md": _dictionary(),
        "deid-plan.md": page(load_plan("default")),
        "pixel-features.md": _features(),
        "quarantine.md": _quarantine(),
        "settings.md": _settings(),
    }


def write() -> None:
    """Write the generated pages into docs/ of the source tree."""
    for name, text in pages().items():
        (page_folder() / name).write_text(text, encoding="utf-8")
        print(f"docs/{name}: {len(text.splitlines())} lines")


def page_folder() -> Path:
    """docs/ of the source tree."""
    return conf_dir().parent / "docs"


def _dictionary() -> str:
    lines = [
        "# Data dictionary",
        "",
        "Generated from `schemas/` by `make docs`; change it there. *Made safe* says what was done to a column before it left the",
        "identifiable zone. Types are Spark's.",
    ]
    for zone in ZONES:
        lines += ["", f"## {_ZONE_TITLES[zone]}"]
        for declared in tables(zone):
            lines += _table(declared)
    lines += ["", "## Vocabularies", "", "| name | values |", "|---|---|"]
    lines += [f"| `{name}` | {', '.join(f'`{value}`' for value in vocabulary(name))} |" for name in load_schema("vocabularies.yaml")]
    return "\n".join(lines) + "\n"


def _table(declared: Table) -> list[str]:
    safe = declared.zone != "identifiable"
    head = "| column | type | meaning |" + (" made safe |" if safe else "")
    lines = ["", f"### {declared.name}", "", f"{declared.meaning} Key: {', '.join(f'`{k}`' for k in declared.key)}.", ""]
    lines += [head, "|---|---|---|" + ("---|" if safe else "")]
    for column in declared.columns:
        lines.append(f"| `{column.name}` | {column.type} | {_meaning(column)} |" + (f" {column.deid} |" if safe else ""))
    return lines


def _meaning(column: Column) -> str:
    notes = []
    if column.unit:
        notes.append(f"unit: {column.unit}")
    if column.dicom:
        notes.append(f"DICOM {column.dicom}" + (f", {column.rollup} over the images" if column.rollup else ""))
    if column.vocabulary:
        notes.append(f"one of `{column.vocabulary}`")
    if column.range:
        notes.append("from {:g} to {:g}".format(*column.range))
    if not column.nullable:
        notes.append("never missing")
    return column.meaning.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")


def _quarantine() -> str:
    lines = [
        "# Why things are in quarantine",
        "",
        "Generated from `schemas/` by `make docs`; change it there. Where reasons of the storage pile up, `catalogue` stops and asks",
        "whether the mount is there, instead of quarantining the archive (`catalogue.io_failure_limit`).",
        "",
        "| job | reason | meaning | storage |",
        "|---|---|---|---|",
    ]
    lines += [f"| {job} | `{code}` | {meaning} | {'yes' if storage else ''} |" for job, code, meaning, storage in reasons()]
    return "\n".join(lines) + "\n"


def _features() -> str:
    lines = [
        "# Pixel features",
        "",
        "Generated from `schemas/features.yaml` by `make docs`; change it there. `pictures pixels` measures them, once per image and",
        "version; `pictures pixels --feature NAME[@VERSION] --where modality=CT` measures one of some images. Rows are in",
        "`pixel_feature`; `publish` gives those marked *published* to `image_feature`, of images and, rolled up, of series. What cannot be",
        "had has status `failed` and a reason ([quarantine](quarantine.md) lists them): a CT feature of an image whose values are not",
        "Hounsfield units is missing, never guessed.",
        "",
        "Definitions are append-only: a changed one gets a new version, and the old one stays. *ms*: on one core, of a 512 x 512 slice,",
        "asked alone (`python benchmarks/pixels.py --costs`); together they cost far less than their sum, for they share decoding,",
        "histogram and masks.",
        "",
        "| feature | what | of | unit | series | published | IBSI | source | ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in load_schema("features.yaml")["features"]:
        of = ", ".join(entry.get("applies", ["any"]))
        cells = [
            f"`{entry['name']}@{entry['version']}`",
            entry["meaning"],
            of,
            entry.get("unit", ""),
            entry.get("rollup", ""),
            "yes" if entry["publish"] and entry["level"] == "image" else "series only" if entry["publish"] else "no",
            entry.get("ibsi", ""),
            entry["source"],
            str(entry["cost"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *load_schema("pixels/measures.yaml")["words"].strip().splitlines()]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    schema = load_schema("conf.yaml")
    lines = [
        "# Settings",
        "",
        "Generated from `schemas/conf.yaml` by `make docs`. Every job reads one settings file, given by `--conf-file`;",
        "`conf/local.yaml` is the default.",
        "",
        "| setting | meaning |",
        "|---|---|",
    ]
    for path, text in _described(schema, ()):
        lines.append(f"| `{'.'.join(path)}` | {text} |")
    return "\n".join(lines) + "\n"


def _described(node: dict, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    found = [(path, node["description"])] if "description" in node else []
    for name, child in node.get("properties", {}).items():
        found += _described(child, (*path, name))
    if isinstance(node.get("additionalProperties"), dict):
        found += _described(node["additionalProperties"], (*path, "<name>"))
    return found
