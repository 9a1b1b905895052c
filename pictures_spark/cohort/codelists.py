"""Code lists: from a question's inline codes or a CSV file to codes in the form that events carry, with a hash.

Runs on the driver. Every entry must have the shape of its coding system (schemas/codelists/systems.yaml): a code of the wrong shape is
an error, never a list that silently finds nobody.
"""

import csv
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pictures_spark.cohort.faults import nearest
from pictures_spark.cohort.model import CodeList, Expand, Question
from pictures_spark.records import steps
from pictures_spark.resources import load_schema, schemas_dir

_COLUMNS = ("code", "term", "category")
_DOTTED = re.compile(r"[0-9]{1,2}(\.[0-9]{1,2}){1,3}")
_SHOWN = 3


@dataclass(frozen=True)
class Codes:
    """A code list ready to be matched: normalised, sorted, without repeats and, for prefixes, without what another prefix covers.

    ``version`` is that of schemas/codelists/library.yaml, where the list is from there.
    """

    name: str
    system: str
    expand: Expand
    codes: tuple[str, ...]
    version: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 over system, expansion and codes, hex: what the list finds, not how it was written or what it is called."""
        return hashlib.sha256("\n".join((self.system, self.expand, *self.codes)).encode()).hexdigest()

    @property
    def label(self) -> str:
        """The coding system's name for people."""
        text: str = systems()[self.system]["label"]
        return text


def systems() -> dict[str, Any]:
    """The coding systems a list may be in."""
    found: dict[str, Any] = load_schema("codelists/systems.yaml")
    return found


def normalise(system: str, entry: str) -> str | None:
    """An entry in the form that events carry; None where it does not have the shape of its system.

    Examples
    --------
    >>> normalise("icd10", "i63.9"), normalise("bnf", "2.8.2"), normalise("icd10", "stroke")
    ('I639', '020802', None)
    """
    rules = systems()[system]
    code = entry.strip()
    if "dotted" in rules and _DOTTED.fullmatch(code):
        parts = list(zip(code.split("."), rules["dotted"], strict=False))
        if any(len(str(int(part))) > width for part, width in parts):
            return None
        code = "".join(str(int(part)).zfill(width) for part, width in parts)
    code = steps.apply(load_schema("codes.yaml")[system]["steps"], code).rstrip(rules.get("strip_end", ""))
    return code if re.fullmatch(rules["pattern"], code) else None


def library() -> dict[str, Any]:
    """The lists of schemas/codelists, by the names of their files: system, version, SHA-256 of the file, meaning."""
    found: dict[str, Any] = load_schema("codelists/library.yaml")
    return found


def resolve(question: Question, folder: Path) -> tuple[dict[str, Codes], list[str]]:
    """Every code list of a question, read and normalised, and what is wrong with them.

    ``folder`` is where the question's file lies: a list's file is looked for there, then in schemas/codelists.
    """
    found: dict[str, Codes] = {}
    faults: list[str] = []
    for codelist in question.codelists:
        where = f"code list {codelist.name}"
        if codelist.system not in systems():
            faults.append(f"{where}: unknown coding system {codelist.system!r}{nearest(codelist.system, systems())}")
            continue
        entries, version = list(codelist.codes or ()), None
        if codelist.file is not None:
            entries, wrong = _read(codelist, folder)
            known = {} if (folder / codelist.file).is_file() else library().get(PurePosixPath(codelist.file).stem, {})
            version = known.get("version")
            if known and known["system"] != codelist.system:
                labels = [systems()[name]["label"] for name in (known["system"], codelist.system)]
                wrong.append(f"file {codelist.file} is a list of {labels[0]}, not of {labels[1]}")
            faults += [f"{where}: {text}" for text in wrong]
            if wrong:
                continue
        if not entries:
            faults.append(f"{where} is empty: it would find nobody")
            continue
        codes = {entry: normalise(codelist.system, entry) for entry in entries}
        bad = [entry for entry, code in codes.items() if code is None]
        if bad:
            rules = systems()[codelist.system]
            more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            shown = ", ".join(repr(entry[:40]) for entry in bad[:_SHOWN])
            faults.append(f"{where}: {shown}{more} does not look like {rules['label']}, which is {rules['looks_like']}")
            continue
        found[codelist.name] = Codes(
            codelist.name,
            codelist.system,
            codelist.expand,
            _shortest({c for c in codes.values() if c is not None}, codelist.expand),
            version,
        )
    return found, faults


def _shortest(codes: set[str], expand: Expand) -> tuple[str, ...]:
    if expand == "exact":
        return tuple(sorted(codes))
    return tuple(sorted(c for c in codes if not any(c[:length] in codes for length in range(1, len(c)))))


def _read(codelist: CodeList, folder: Path) -> tuple[list[str], list[str]]:
    """Entries of a list's file, and what is wrong with it."""
    name = PurePosixPath(codelist.file or "")
    if name.is_absolute() or ".." in name.parts or not name.parts:
        return [], [f"file {codelist.file!r} must be a name beside the question or in schemas/codelists, without .."]
    places = [folder / name, schemas_dir() / "codelists" / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return [], [f"file {name} is neither beside the question nor in schemas/codelists"]
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError:
        return [], [f"file {name} is not UTF-8 text"]
    except csv.Error:
        return [], [f"file {name} is not valid CSV"]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    strange = [cell for cell in header if cell not in _COLUMNS]
    if "code" not in header or strange or len(set(header)) != len(header):
        return [], [f"file {name} must start with the header code,term or code,term,category"]
    short = [number for number, row in enumerate(rows[1:], start=2) if len(row) != len(header)]
    if short:
        return [], [f"file {name} has {len(short)} rows with more or fewer cells than its header, the first is row {short[0]}"]
    at = header.index("code")
    empty = [number for number, row in enumerate(rows[1:], start=2) if not row[at].strip()]
    if empty:
        return [], [f"file {name} has {len(empty)} rows without a code, the first is row {empty[0]}"]
    return [row[at].strip() for row in rows[1:]], []
