"""``pictures synth --extracts N``: the health records of a nation of N people as extract files, and the truth about them.

Enters: how many people, and schemas/synthetic/ (nation, questions, scanning, extracts). Leaves, in the zone extracts: for each record
source files ``<source>-<number>.csv`` (or ``.parquet``) with the columns of schemas/records/; and below ``truth/``:
``people-<number>.csv`` (each number and whose it is), ``traps-<number>.csv`` (rows that are dirty, and how) and ``questions.csv``. The
people and what happens to them are those of ``pictures synth --tables N``, planted people included; the only reports are theirs. With
``--images`` the zone archive gets their scans as DICOM files without pixels, in zips, some studies in a second zip too. With
``--documents`` the folder ``documents/`` gets their headers as MongoDB documents. ``truth/scans-<number>.csv`` says which scan is which.

The people of a file are made by a worker, batch by batch, so memory is bounded; the bytes of a file depend on seed, N and its number only,
whatever runs beside it. ``truth/nation.json`` lists the files. Counts: ``seen`` and ``written`` are files.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import astuple, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from pictures_spark.errors import ConfigError
from pictures_spark.job import Job
from pictures_spark.keys import fingerprint
from pictures_spark.records.source import source
from pictures_spark.resources import code_fingerprint, load_schema
from pictures_spark.synthetic.draws import Draws, Flags, Whole, day
from pictures_spark.synthetic.lives import NEVER, Events, Lives, lead, nation
from pictures_spark.synthetic.nation import Home, first_day, homes, last_day, people
from pictures_spark.synthetic.nation_archive import Into, Zip, accession, scans_of
from pictures_spark.synthetic.nation_documents import Documents, collections
from pictures_spark.synthetic.nation_tables import wanted_scans
from pictures_spark.synthetic.questions import planted
from pictures_spark.synthetic.register import Ranks, Register, postcodes, register
from pictures_spark.synthetic.register import ranks as ranks_of
from pictures_spark.synthetic.scanning import Scans

if TYPE_CHECKING:
    from pyarrow import RecordBatch

SOURCES = ("chi", "smr00", "smr01", "smr02", "smr04", "smr06", "ae2", "deaths", "pis", "labs", "reports")
STAMP = ("truth", "nation.json")
# What the names of the archive's files begin with.
ARCHIVE = "nation/"
_BATCH = 10_000
# What stands in a cell for a byte that no text can have.
_BYTES = {"{latin1}": ("\ue000", b"\xe9"), "{nul}": ("\ue001", b"\0")}
_PEOPLE = (
    *("chi", "upi", "forename", "surname", "birth_date", "sex", "postcode", "merged_into_upi"),
    *("patient_id", "death_date"),
)
_STAYS = ("smr01", "smr02", "smr04")
# Of a person's things that are not of a stay: numbers from here on.
_LOOSE = 1 << 20
Cells = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """People who are made together: what happened to them, and the scans and reports of them."""

    lives: Lives
    ids: pa.Array
    scans: tuple[Scans, ...]
    reports: Mapping[str, pa.Table]
    clean: bool = False


@dataclass
class Rows:
    """Rows of one source: whose, of which day, cells by column (what is not there is empty), and which are written how."""

    who: Whole
    on: Whole
    cells: dict[str, pa.Array]
    traps: list[tuple[str, Flags]] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What is made of the nation: the form of the extracts (``csv`` or ``parquet``), and whether scans are, as files or documents."""

    form: str = "csv"
    images: bool = False
    documents: bool = False


def run(job: Job, count: int, wanted: Wanted | None = None) -> None:
    """Make the extracts and what else is wanted, or find that they are there.

    Raises
    ------
    ConfigError
        The zone holds files that this job did not make.
    """
    seed, wanted = job.config["synth"]["seed"], wanted or Wanted()
    what = fingerprint("nation extracts", str(seed), str(count), *(str(value) for value in astuple(wanted)), code_fingerprint())
    places = Places(job.zones.path("extracts", mode="write"), job.zones.path("archive", mode="write") if wanted.images else None)
    stamp = _stamp(job)
    known: dict[str, int] = stamp["files"]
    where = {name: job.zones.path("archive" if name.startswith(ARCHIVE) else "extracts", name, mode="write") for name in known}
    intact = {name for name, size in known.items() if where[name].is_file() and where[name].stat().st_size == size}
    if stamp["fingerprint"] == what and len(intact) == len(known):
        job.report.counts = {"seen": len(known), "unchanged": len(known)}
        return
    for path in where.values():
        path.unlink(missing_ok=True)
    draws, size = Draws(seed), load_schema("synthetic/extracts.yaml")["people"]
    numbered = list(range(-1, -(-count // size)))
    _write_stamp(places, {"fingerprint": "", "files": {name: -1 for number in numbered for name in _names(number, wanted).values()}})
    job.say(f"{count:,} people in {len(numbered)} files of each source")
    ranked = job.spark.sparkContext.broadcast(ranks_of(draws, count))
    plan = job.spark.createDataFrame(job.spark.sparkContext.parallelize([(n,) for n in numbered], len(numbered)), "number long")

    def make(batches: "Iterator[RecordBatch]") -> "Iterator[RecordBatch]":
        for batch in batches:
            for number in batch.column("number").to_pylist():
                told = write(draws, ranked.value, count, number, places, wanted)
                yield pa.RecordBatch.from_pydict({"told": [json.dumps(told)]})

    files: dict[str, int] = {}
    rows: dict[str, int] = {}
    for row in plan.mapInArrow(make, "told string").collect():
        told = json.loads(row.told)
        files |= told["files"]
        for name, more in told["rows"].items():
            rows[name] = rows.get(name, 0) + more
    ranked.destroy()
    key = planted(draws).key
    pc_csv.write_csv(key, places.extracts / "truth" / "questions.csv")
    files["truth/questions.csv"] = (places.extracts / "truth" / "questions.csv").stat().st_size
    _write_stamp(places, {"fingerprint": what, "files": files})
    job.report.counts = {"seen": len(files), "written": len(files)}
    job.report.details = {f"{name}_rows": made for name, made in sorted(rows.items())}


@dataclass(frozen=True)
class Places:
    """Roots that files are written below; no archive where there are to be no images."""

    extracts: Path
    archive: Path | None = None

    def of(self, name: str) -> Path:
        """Where a file lies."""
        return (self.archive if name.startswith(ARCHIVE) and self.archive is not None else self.extracts) / name


def _stamp(job: Job) -> dict[str, Any]:
    path = job.zones.path("extracts", *STAMP)
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    for zone in ("extracts", "archive"):
        if any(file.is_file() and ".scratch" not in file.parts for file in job.zones.path(zone).rglob("*")):
            raise ConfigError(f"zone {zone} holds files that synth --extracts did not make: point zones.{zone} at an empty folder")
    return {"fingerprint": "", "files": {}}


def _write_stamp(places: Places, stamp: dict[str, Any]) -> None:
    path = places.extracts.joinpath(*STAMP)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _names(number: int, wanted: Wanted) -> dict[str, str]:
    """Files of the people of one number, by what they hold; those of -1 are the planted ones."""
    place = f"{number + 1:05d}"
    names = {name: f"{name}-{place}.{wanted.form}" for name in SOURCES} | {
        name: f"truth/{name}-{place}.csv" for name in ("people", "traps")
    }
    if wanted.images or wanted.documents:
        names["scans"] = f"truth/scans-{place}.csv"
    if wanted.images:
        names |= {"images": f"{ARCHIVE}{place}.zip", "second": f"{ARCHIVE}second/{place}.zip"}
    if wanted.documents:
        names |= {name: f"documents/{name}-{place}.jsonl" for name in collections()}
    return names


def write(draws: Draws, ranked: Ranks, count: int, number: int, places: Places, wanted: Wanted) -> dict[str, dict[str, int]]:
    """Write the files of one number; their sizes, and rows by source.

    Parameters
    ----------
    number : which stretch of people; -1 for the planted ones.
    """
    names = _names(number, wanted)
    paths = {what: places.of(name) for what, name in names.items()}
    (places.extracts / "truth").mkdir(parents=True, exist_ok=True)
    rows = dict.fromkeys(SOURCES, 0)
    with ExitStack() as opened:
        writers = {
            what: opened.enter_context(closing(_Writer(paths[what], wanted.form if what in rows else "csv")))
            for what in (*SOURCES, "people", "traps", *(["scans"] if "scans" in paths else []))
        }
        into: list[Into] = [opened.enter_context(closing(Zip(paths["images"])))] if wanted.images else []
        second = [opened.enter_context(closing(Zip(paths["second"])))] if wanted.images else []
        if wanted.documents:
            archive = f"{ARCHIVE}{number + 1:05d}.zip"
            into.append(opened.enter_context(closing(Documents(archive, {name: paths[name] for name in collections()}))))
        for batch in _batches(draws, count, number):
            home = homes(draws, batch.lives.people, last_day())
            told = register(draws, batch.lives.people, ranked, home)
            made, truth = extracts(draws, batch, told, home)
            writers["people"].add(truth)
            for name, found in made.items():
                table, traps = _dirty(draws, batch.lives, name, found, wanted.form == "parquet")
                writers[name].add(table)
                first = pc.add(traps["row"], rows[name])
                writers["traps"].add(traps.set_column(traps.column_names.index("row"), "row", first))
                rows[name] += table.num_rows
            if into:
                writers["scans"].add(scans_of(draws, batch.lives, batch.ids, told, batch.scans, batch.clean, into, second))
    return {"files": {name: paths[what].stat().st_size for what, name in names.items()}, "rows": rows}


def _batches(draws: Draws, count: int, number: int) -> Iterator[Batch]:
    if number < 0:
        plants = planted(draws)
        yield Batch(plants.lives, plants.ids, plants.scans, plants.reports, clean=True)
        return
    size = load_schema("synthetic/extracts.yaml")["people"]
    for start in range(number * size, min((number + 1) * size, count), _BATCH):
        index = np.arange(start, min(start + _BATCH, (number + 1) * size, count))
        lives = lead(draws, people(draws, index), first=first_day(), last=last_day())
        yield Batch(lives, draws.names("patient", index), wanted_scans(draws, lives), {})


class _Writer:
    """A CSV or Parquet file that grows by tables; where the first one has no rows, it has a header all the same."""

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form = path, form
        self._file: Any = None
        self._handle = path.open("wb")

    def add(self, rows: pa.Table) -> None:
        if self._form == "parquet":
            self._file = self._file or pq.ParquetWriter(self._handle, rows.schema)
            self._file.write_table(rows)
            return
        buffer = io.BytesIO()
        pc_csv.write_csv(rows, buffer, pc_csv.WriteOptions(include_header=self._file is None, quoting_style="needed"))
        self._file = self
        data = buffer.getvalue()
        for sign, byte in _BYTES.values():
            data = data.replace(sign.encode(), byte)
        self._handle.write(data)

    def close(self) -> None:
        if self._form == "parquet" and self._file is not None:
            self._file.close()
        self._handle.close()


def extracts(draws: Draws, batch: Batch, who: Register, home: Home) -> tuple[dict[str, Rows], pa.Table]:
    """The rows of every source for a batch of people, clean, and the rows of ``truth/people``."""
    lives = batch.lives
    told = [event for event in lives.events if len(event.who)]
    by_source: dict[str, list[Events]] = {name: [_covered(e) for e in told if e.source == name] for name in nation()["cover"]}
    makers: dict[str, Callable[..., Rows]] = {"smr00": _smr00, "smr06": _smr06, "ae2": _ae2, "deaths": _deaths, "pis": _pis, "labs": _labs}
    made = {"chi": _chi(draws, lives, who, home)}
    made |= {name: _stay_rows(draws, lives, who, name, by_source[name]) for name in _STAYS}
    made |= {name: make(draws, lives, who, by_source[name]) for name, make in makers.items()}
    made["reports"] = _reports(batch, who)
    return {name: _sorted(made[name]) for name in SOURCES}, _truth(lives, batch.ids, who, made["chi"])


def _covered(events: Events) -> Events:
    cover = nation()["cover"][events.source]
    return events.where((events.on >= day(cover["from"])) & (events.on <= day(cover["to"])))


def _sorted(rows: Rows) -> Rows:
    order = np.lexsort((rows.on, rows.who))
    at = pa.array(order)
    return Rows(
        rows.who[order],
        rows.on[order],
        {name: values.take(at) for name, values in rows.cells.items()},
        [(trap, mask[order]) for trap, mask in rows.traps],
    )


def _days(days: Whole, form: str) -> pa.Array:
    """Days as text; empty for ``NEVER``."""
    known = np.unique(days)
    dates = [np.datetime64(int(number), "D").item() if number < NEVER else None for number in known]
    texts = pa.array([one.strftime(form) if one is not None else "" for one in dates], pa.string())
    return texts.take(pa.array(np.searchsorted(known, days)))


def _one_of(texts: list[str], at: Whole) -> pa.Array:
    return pa.array(texts, pa.string()).take(pa.array(at))


def _constant(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), count)


def _chi(draws: Draws, lives: Lives, told: Register, home: Home) -> Rows:
    """A row for each number and stretch of residence; a stretch in which the number changed is two."""
    group = lives.people
    change = told.change[home.who]
    had = told.older.is_valid().to_numpy(zero_copy_only=False)[home.who]
    split = np.flatnonzero(had & (home.start < change) & (home.to >= change))
    to = home.to.copy()
    to[split] = change[split] - 1
    who, start = np.concatenate([home.who, home.who[split]]), np.concatenate([home.start, change[split]])
    end = np.concatenate([to, home.to[split]])
    place = np.concatenate([np.arange(len(home.who)), split])
    number = np.arange(len(home.who)) - np.searchsorted(home.who, home.who, side="left")
    editions = sorted((int(year), edition) for year, edition in nation()["simd_editions"].items())
    years = start.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    edition = np.maximum(np.searchsorted([year for year, _ in editions], years, side="right") - 1, 0)
    at = pa.array(who)
    cells = {
        "CHI": told.number(who, start),
        "UPI_NUMBER": told.upi.take(at),
        "FORENAME": told.forename.take(at),
        "SURNAME": told.surname.take(at),
        "DATE_OF_BIRTH": _days(group.birth[who], "%d/%m/%Y"),
        "SEX": _one_of(["F", "M"], group.male[who].astype(np.int64)),
        "POSTCODE": postcodes(draws, group.index[home.who], number).take(pa.array(place)),
        "HEALTH_BOARD": _one_of(nation()["health_boards"], home.board[place]),
        "SIMD_QUINTILE": _one_of(["", "1", "2", "3", "4", "5"], home.quintile[place]),
        "SIMD_EDITION": _one_of([name for _, name in editions], edition),
        "DATE_TRANSFER_IN": _days(start, "%d/%m/%Y"),
        "DATE_TRANSFER_OUT": _days(np.where(end > last_day(), NEVER, end), "%d/%m/%Y"),
    }
    return Rows(who, start, cells)


def _truth(lives: Lives, ids: pa.Array, told: Register, register_rows: Rows) -> pa.Table:
    """Every number that the register has, once, and whose it is."""
    numbers = register_rows.cells["CHI"]
    # Of a number's stretches the last says where its person lived.
    last = pa.table({"number": numbers, "at": pa.array(np.arange(len(numbers)))}).group_by("number", use_threads=False)
    at = last.aggregate([("at", "max")])["at_max"].to_numpy()
    who, group = register_rows.who[at], lives.people
    cells = {name: values.take(pa.array(at)) for name, values in register_rows.cells.items()}
    older = pc.not_equal(cells["CHI"], cells["UPI_NUMBER"])
    columns = {
        "chi": cells["CHI"],
        "upi": cells["UPI_NUMBER"],
        "forename": cells["FORENAME"],
        "surname": cells["SURNAME"],
        "birth_date": _days(group.birth[who], "%Y-%m-%d"),
        "sex": cells["SEX"],
        "postcode": cells["POSTCODE"],
        "merged_into_upi": pc.if_else(older, cells["UPI_NUMBER"], ""),
        "patient_id": ids.take(pa.array(who)),
        "death_date": _days(group.death[who], "%Y-%m-%d"),
    }
    return pa.table({name: columns[name] for name in _PEOPLE})


def _person(lives: Lives, told: Register, who: Whole, on: Whole, form: str = "%Y%m%d") -> dict[str, pa.Array]:
    """Columns that most sources have."""
    group = lives.people
    return {
        "UPI_NUMBER": told.upi.take(pa.array(who)),
        "CI_CHI_NUMBER": told.number(who, on),
        "LINK_NO": pc.cast(pa.array(group.index[who] + 50_000_000), pa.string()),
        "SEX": _one_of(["2", "1"], group.male[who].astype(np.int64)),
        "DOB": _days(group.birth[who], form),
    }


@cache
def _spellings(code: str) -> tuple[str, ...]:
    """A code of ICD-10 as it stands, dotted, filled, with a dagger, and in ICD-9; what it cannot be is as it stands."""
    three = len(code) == 3
    return (
        code,
        code if three else f"{code[:3]}.{code[3:]}",
        f"{code}X" if three else code,
        code if three else f"{code}D",
        load_schema("synthetic/extracts.yaml")["icd9"].get(code, code),
    )


def _icd(draws: Draws, lives: Lives, event: Events, stream: str) -> tuple[Cells, dict[str, Flags]]:
    """Codes as they are written, and which are written how."""
    shares = load_schema("synthetic/extracts.yaml")["written"]
    forms = np.array([_spellings(code) for code in event.codes])
    index = lives.people.index[event.who]
    drawn = draws.uniform(f"written/{stream}/{event.kind}/{event.position}", index, event.on)
    form = np.zeros(len(event.who), np.int64)
    names = ("dotted_code", "filled_code", "dagger", "icd9_code")
    three = np.array([len(code) == 3 for code in event.codes])[event.code]
    form[three & (drawn < shares["filled_code"])] = 2
    low = 0.0
    for at, name in ((1, "dotted_code"), (3, "dagger")):
        form[~three & (drawn >= low) & (drawn < low + shares[name])] = at
        low += shares[name]
    form[drawn >= 1 - shares["icd9_code"]] = 4
    written = forms[event.code, form]
    changed = written != forms[event.code, 0]
    return written, {name: changed & (form == at) for at, name in enumerate(names, start=1)}


def _stay_rows(draws: Draws, lives: Lives, told: Register, name: str, events: list[Events]) -> Rows:
    """Episodes of hospital care: one for each stay, some cut in two, and one for each thing that is of no stay."""
    index = lives.people.index
    kept = [event for event in events if event.kind in ("admission", "diagnosis", "procedure", "delivery")]
    if not kept:
        return _episodes(draws, lives, told, name, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), {}, [], {})
    loose = 0
    parts = []
    for event in kept:
        stay = event.stay.copy()
        free = np.flatnonzero(stay < 0)
        stay[free] = _LOOSE + loose + np.arange(len(free))
        loose += len(free)
        parts.append((event, stay))
    who, stay, on = (np.concatenate(values) for values in zip(*[(e.who, s, e.on) for e, s in parts], strict=True))
    admitted = np.concatenate([np.full(len(e.who), e.kind == "admission") for e, _ in parts])
    key = who * (_LOOSE << 10) + stay
    keys, firsts, place = np.unique(key, return_index=True, return_inverse=True)
    start = np.full(len(keys), NEVER, np.int64)
    np.minimum.at(start, place, np.where(admitted, on, NEVER))
    free = np.flatnonzero(start == NEVER)
    start[free] = on[firsts[free]]
    end = start.copy()
    cells: dict[str, Cells] = {}
    traps: dict[str, Flags] = {}
    at = 0
    for event, _ in parts:
        rows = place[at : at + len(event.who)]
        at += len(event.who)
        if event.kind == "admission":
            end[rows] = np.where(event.end < NEVER, event.end, start[rows])
        elif event.kind == "procedure":
            _put(cells, "MAIN_OPERATION", len(keys), rows, np.array(event.codes)[event.code])
            days = np.array(_days(event.on, "%Y%m%d").to_pylist())
            _put(cells, "DATE_OF_MAIN_OPERATION", len(keys), rows, days)
        elif event.kind == "delivery":
            _put(cells, "DATE_OF_DELIVERY", len(keys), rows, np.array(_days(event.on, "%Y%m%d").to_pylist()))
            single = rows[event.stay < 0]
            _put(cells, "MAIN_CONDITION", len(keys), single, np.array(event.codes)[event.code[event.stay < 0]])
        else:
            column = f"OTHER_CONDITION_{min(event.position, 5)}" if event.position else "MAIN_CONDITION"
            written, how = _icd(draws, lives, event, name)
            _put(cells, column, len(keys), rows, written)
            for trap, mask in how.items():
                traps.setdefault(trap, np.zeros(len(keys), bool))[rows[mask]] = True
    owner = keys // (_LOOSE << 10)
    number = np.arange(len(keys)) - np.searchsorted(owner, owner, side="left") + 1
    return _episodes(draws, lives, told, name, owner, start, end, cells, list(traps.items()), {"number": number, "index": index})


def _put(cells: dict[str, Cells], column: str, count: int, rows: Whole, texts: Cells) -> None:
    cells.setdefault(column, np.full(count, "", "U12"))[rows] = texts


def _episodes(
    draws: Draws,
    lives: Lives,
    told: Register,
    name: str,
    who: Whole,
    start: Whole,
    end: Whole,
    cells: Mapping[str, Cells],
    traps: list[tuple[str, Flags]],
    more: Mapping[str, Whole],
) -> Rows:
    data = load_schema("synthetic/extracts.yaml")
    number = more.get("number", np.zeros(0, np.int64))
    index = lives.people.index[who]
    slot = number * len(SOURCES) + SOURCES.index(name)
    cut = (end - start >= 2) & draws.happens("two_episodes", index, data["written"]["two_episodes"], slot) & (name != "smr02")
    second = np.flatnonzero(cut)
    middle = start[second] + draws.whole("two_episodes/day", index[second], 1, end[second] - start[second] - 1, slot[second])
    first_end = end.copy()
    first_end[second] = middle
    place = np.concatenate([np.arange(len(who)), second])
    again = np.concatenate([np.zeros(len(who), bool), np.ones(len(second), bool)])
    begins, stops = np.concatenate([start, middle]), np.concatenate([first_end, end[second]])
    unnumbered = draws.happens("no_stay_number", index, data["written"]["no_stay_number"], slot)[place]
    owner = who[place]
    specialty = draws.choice("specialty", index[place], [1] * len(data["specialties"]), slot[place] * 2 + again)
    location = draws.choice("location", index[place], [1] * len(data["locations"]), slot[place])
    dead = (lives.people.death[owner] == stops) & (lives.people.death[owner] < NEVER)
    later = np.concatenate([cut, np.zeros(len(second), bool)])
    whole = np.asarray(number[place]).astype("U12")
    found = {
        **_person(lives, told, owner, begins),
        "CIS_MARKER": pa.array(np.where(unnumbered, "", whole), pa.string()),
        "ADMISSION_DATE": _days(begins, "%Y%m%d"),
        "DISCHARGE_DATE": _days(stops, "%Y%m%d"),
        "SPECIALTY": _one_of(data["specialties"], specialty),
        "LOCATION": _one_of(data["locations"], location),
        "DISCHARGE_TRANSFER_TO": _one_of(["10", "40", "00"], np.where(dead, 2, np.where(later, 1, 0))),
        # What was found and done is of the first episode.
        **{column: pa.array(np.where(again, "", texts[place]), pa.string()) for column, texts in cells.items()},
    }
    if name == "smr02":
        born = found.get("DATE_OF_DELIVERY", _constant("", len(place)))
        found["CONDITION_ON_DISCHARGE"] = pc.if_else(pc.not_equal(born, ""), "3", "1")
    if len(second):
        # An episode without a condition still has the one that it goes on with.
        main = pa.array(cells["MAIN_CONDITION"][place] if "MAIN_CONDITION" in cells else np.full(len(place), ""), pa.string())
        found["MAIN_CONDITION"] = main
    all_traps = [(trap, mask[place] & ~again) for trap, mask in traps]
    all_traps += [("no_stay_number", unnumbered), ("two_episodes", np.concatenate([cut, np.ones(len(second), bool)]))]
    return Rows(owner, begins, found, all_traps)


def _joined(events: list[Events], kind: str) -> list[Events]:
    return [event for event in events if event.kind == kind]


def _pooled(events: list[Events]) -> tuple[Whole, Whole, Cells]:
    """(who, day, code) of events one after another."""
    parts = [(e.who, e.on, np.array(e.codes)[e.code] if e.codes else np.full(len(e.who), "")) for e in events]
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, "U1")
    who, on, code = (np.concatenate(values) for values in zip(*parts, strict=True))
    return who, on, code


def _per_day(events: list[Events]) -> tuple[Whole, Whole, Cells, Whole]:
    """(who, day, first code) of each person's days on which there is an event, and how many such days came before."""
    who, on, code = _pooled(events)
    span = 1 << 20
    key, first, place = np.unique(who * span + on + (span >> 1), return_index=True, return_inverse=True)
    found = np.full(len(key), "", "U12")
    filled = code != ""
    # Backwards, so that the first one stays.
    found[place[filled][::-1]] = code[filled][::-1]
    return who[first], on[first], found, np.arange(len(key)) - np.searchsorted(who[first], who[first], side="left")


def _smr00(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    who, on, code, number = _per_day(events)
    data, index = load_schema("synthetic/extracts.yaml"), lives.people.index[who]
    cells = {
        **_person(lives, told, who, on),
        "CLINIC_DATE": _days(on, "%Y%m%d"),
        "CLINIC_TYPE": _constant("1", len(who)),
        "CLINIC_ATTENDANCE": _constant("1", len(who)),
        "MAIN_CONDITION": pa.array(code, pa.string()),
        "SPECIALTY": _one_of(data["specialties"], draws.choice("smr00/specialty", index, [1] * len(data["specialties"]), number)),
        "LOCATION": _one_of(data["locations"], draws.choice("smr00/location", index, [1] * len(data["locations"]), number)),
    }
    return Rows(who, on, cells)


def _ae2(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    who, on, code, number = _per_day(events)
    data, index = load_schema("synthetic/extracts.yaml"), lives.people.index[who]
    shared = _person(lives, told, who, on)
    minute = draws.whole("ae2/time", index, 0, 24 * 60 - 1, number)
    cells = {
        "PAT_UPI": shared["UPI_NUMBER"],
        "PATIENT_CHI": shared["CI_CHI_NUMBER"],
        "PATIENT_DOB": shared["DOB"],
        "PATIENT_SEX": shared["SEX"],
        "ARRIVAL_DATE": _days(on, "%Y%m%d"),
        "ARRIVAL_TIME": _clock(minute, "{:02d}:{:02d}"),
        "DISEASE_1_CODE": pa.array(code, pa.string()),
        "TREATMENT_LOCATION_CODE": _one_of(data["locations"], draws.choice("ae2/location", index, [1] * len(data["locations"]), number)),
    }
    return Rows(who, on, cells)


def _clock(minute: Whole, form: str) -> pa.Array:
    return pa.array([form.format(*divmod(number, 60)) for number in range(24 * 60)], pa.string()).take(pa.array(minute))


def _smr06(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    who, on, code = _pooled(_joined(events, "tumour"))
    order = np.lexsort((code, on, who))
    who, on, code = who[order], on[order], code[order]
    number = np.arange(len(who)) - np.searchsorted(who, who, side="left") + 1
    shared = _person(lives, told, who, on)
    cells = {
        **{name: shared[name] for name in ("LINK_NO", "UPI_NUMBER", "SEX")},
        "TUMOUR_NO": pc.cast(pa.array(number), pa.string()),
        "INCIDENCE_DATE": _days(on, "%Y%m%d"),
        "ICD10S_CANCER_SITE": pa.array(code, pa.string()),
        "TYPE_ICDO3": _constant("81403", len(who)),
        "DATE_OF_BIRTH": shared["DOB"],
    }
    return Rows(who, on, cells)


def _deaths(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    who, on, _ = _pooled(_joined(events, "death"))
    of, _, code = _pooled(_joined(events, "death_cause"))
    cause = np.full(len(lives.people), "", "U12")
    cause[of[::-1]] = code[::-1]
    shared = _person(lives, told, who, on)
    causes = pa.array(cause[who], pa.string())
    cells = {
        **{name: shared[name] for name in ("UPI_NUMBER", "SEX", "DOB")},
        "CHI": shared["CI_CHI_NUMBER"],
        "DATE_OF_DEATH": _days(on, "%Y%m%d"),
        "UNDERLYING_CAUSE_OF_DEATH": causes,
        "CAUSE_OF_DEATH_CODE_0": causes,
    }
    return Rows(who, on, cells)


def _pis(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    who, on, code = _pooled(_joined(events, "dispensing"))
    order = np.lexsort((code, on, who))
    who, on, code = who[order], on[order], code[order]
    number = np.arange(len(who)) - np.searchsorted(who, who, side="left")
    index = lives.people.index[who]
    month = on.astype("datetime64[D]").astype("datetime64[M]") + 1
    # An item dispensed is an item of its own: what else is equal on a day, its quantity is not.
    same = np.zeros(len(who), np.int64)
    same[1:] = (who[1:] == who[:-1]) & (on[1:] == on[:-1]) & (code[1:] == code[:-1])
    cells = {
        "Pat UPI": told.number(who, on),
        "PI BNF Item Code": pa.array(code, pa.string()),
        "PD Prescribed Date": _days(on - draws.whole("pis/prescribed", index, 0, 3, number), "%d/%m/%Y"),
        "Disp Date": _days(on, "%d/%m/%Y"),
        "Paid Date": _days(month.astype("datetime64[D]").astype(np.int64) - 1, "%d/%m/%Y"),
        "Paid Quantity": _one_of(["28", "56", "84", "112"], draws.whole("pis/quantity", index, 0, 1, number) * 2 + same),
    }
    rows = Rows(who, on, cells)
    _number(draws, lives, rows, "Pat UPI", "pis", number)
    return rows


def _labs(draws: Draws, lives: Lives, told: Register, events: list[Events]) -> Rows:
    data, labs = load_schema("synthetic/extracts.yaml"), _joined(events, "lab")
    who, on, code = _pooled(labs)
    value = np.concatenate([e.value if e.value is not None else np.full(len(e.who), np.nan) for e in labs]) if labs else np.zeros(0)
    unit = np.concatenate([np.full(len(e.who), e.unit or "", "U16") for e in labs]) if labs else np.zeros(0, "U16")
    order = np.lexsort((value, code, on, who))
    who, on, code, value, unit = who[order], on[order], code[order], value[order], unit[order]
    number = np.arange(len(who)) - np.searchsorted(who, who, side="left")
    index = lives.people.index[who]
    result = np.round(np.nan_to_num(value), 1).astype("U16")
    below = np.zeros(len(who), bool)
    for name, limit in data["below"].items():
        low = (code == name) & (value < limit)
        result[low] = f"<{limit:g}"
        below |= low
    drawn = draws.uniform("labs/unit", index, number)
    other = np.array([data["misspelt"].get(text, "") for text in unit.tolist()], "U16") if len(unit) else unit
    misspelt = (drawn < data["written"]["misspelt_unit"]) & (other != "")
    missing = (drawn >= 1 - data["written"]["missing_unit"]) & (unit != "")
    minute = draws.whole("labs/time", index, 7 * 60, 19 * 60 - 1, number)
    tests = {name: at for at, name in enumerate(data["tests"])}
    named = np.array([tests[name] for name in code.tolist()], np.int64) if len(code) else np.zeros(0, np.int64)
    cells = {
        "chi": told.number(who, on),
        "SampleDate": pc.binary_join_element_wise(_days(on, "%Y-%m-%d"), _clock(minute, "{:02d}:{:02d}:00"), " "),
        "TestCode": _one_of(list(data["tests"].values()), named),
        "Result": pa.array(result, pa.string()),
        "QuantityUnit": pa.array(np.where(missing, "", np.where(misspelt, other, unit)), pa.string()),
        "ReadCodeValue": pc.utf8_rpad(pa.array(code, pa.string()), 5, "."),
    }
    rows = Rows(who, on, cells, [("below_limit", below), ("misspelt_unit", misspelt), ("missing_unit", missing)])
    _number(draws, lives, rows, "chi", "labs", number)
    return rows


def _reports(batch: Batch, told: Register) -> Rows:
    """The planted reports, a finding each; what they say is worded from their truth."""
    if not batch.reports:
        return Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), {})
    words, data = load_schema("synthetic/reports.yaml")["findings"], load_schema("synthetic/extracts.yaml")["report_texts"]
    found = batch.reports["report_finding"].to_pylist()
    ids = {name: place for place, name in enumerate(batch.ids.to_pylist())}
    who = np.array([ids[row["patient_id"]] for row in found], np.int64)
    on = batch.reports["report"]["report_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    texts = []
    for row in found:
        kind = "family" if row["subject"] == "family" else row["polarity"]
        texts.append(data[kind].format(**{form: words[row["finding"]][form][0] for form in ("some", "bare")}))
    count = len(found)
    cells = {
        "CHI": told.number(who, on),
        "REPORT_ID": pa.array([row["report_id"][:16].upper() for row in found], pa.string()),
        "ACCESSION_NUMBER": pa.array([accession(row["study_id"]) for row in found], pa.string()),
        "EXAM_DATE": _days(on, "%d/%m/%Y"),
        "REPORT_DATE": _days(on, "%d/%m/%Y"),
        "REPORT_STATUS": _constant("F", count),
        "REPORT_TEXT": pa.array(texts, pa.string()),
    }
    return Rows(who, on, cells)


def _number(draws: Draws, lives: Lives, rows: Rows, column: str, stream: str, slot: Whole) -> None:
    """Write some numbers without their leading zero, and some in groups."""
    shares = load_schema("synthetic/extracts.yaml")["written"]
    drawn = draws.uniform(f"{stream}/number", lives.people.index[rows.who], slot)
    numbers = rows.cells[column]
    zero = pc.starts_with(numbers, "0").to_numpy(zero_copy_only=False) & ~pc.starts_with(numbers, "00").to_numpy(zero_copy_only=False)
    lost = zero & (drawn < shares["lost_zero"])
    spaced = drawn >= 1 - shares["spaced_number"]
    grouped = pc.binary_join_element_wise(pc.utf8_slice_codeunits(numbers, 0, 6), pc.utf8_slice_codeunits(numbers, 6), " ")
    rows.cells[column] = pc.if_else(pa.array(lost), pc.utf8_slice_codeunits(numbers, 1), pc.if_else(pa.array(spaced), grouped, numbers))
    rows.traps += [("lost_zero", lost), ("spaced_number", spaced)]


def _dirty(draws: Draws, lives: Lives, name: str, rows: Rows, plain: bool) -> tuple[pa.Table, pa.Table]:
    """The rows of a source as a table with all its columns, broken copies at the end; and the traps: source, row, trap.

    ``plain``: no bytes that only a CSV file can have.
    """
    columns = [column.name for column in source(name).columns]
    count = len(rows.who)
    table = pa.table({column: rows.cells.get(column, _constant("", count)) for column in columns})
    noted = [(np.flatnonzero(mask), trap) for trap, mask in rows.traps]
    index = lives.people.index[rows.who]
    number = np.arange(count) - np.searchsorted(rows.who, rows.who, side="left")
    parts, total = [table], count
    for rule in load_schema("synthetic/extracts.yaml")["added"]:
        change = rule["set"].get(name)
        if (rule["set"] and change is None) or (plain and any("{" in text for text in (change or {}).values())):
            continue
        chosen = np.flatnonzero(draws.happens(f"added/{name}/{rule['trap']}", index, rule["share"], number))
        copies = table.take(pa.array(chosen))
        for column, text in (change or {}).items():
            for sign, (stands_for, _) in _BYTES.items():
                text = text.replace(sign, stands_for)
            copies = copies.set_column(columns.index(column), column, _constant(text, len(chosen)))
        parts.append(copies)
        noted.append((np.arange(total, total + len(chosen)), rule["trap"]))
        total += len(chosen)
    places = np.concatenate([at for at, _ in noted]) if noted else np.zeros(0, np.int64)
    traps = pa.concat_arrays([_constant(trap, len(at)) for at, trap in noted]) if noted else pa.array([], pa.string())
    told = pa.table({"source": _constant(name, len(places)), "row": pa.array(places + 1), "trap": traps})
    return pa.concat_tables(parts), told.take(pa.array(np.argsort(places, kind="stable")))
