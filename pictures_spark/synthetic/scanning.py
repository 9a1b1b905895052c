"""Scans of people who do not exist, as rows of study, series, image_feature and burned_in_text.

Enters: wanted scans (protocol, person, day) and schemas/synthetic/scanning.yaml. Leaves: Arrow tables, and which study is spoiled by which
trap. Pure. Headers are told by publish's own rules, once for each protocol, device and trap; what differs between people is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.deid.derive import description_words
from pictures_spark.resources import load_schema
from pictures_spark.schema import table
from pictures_spark.synthetic.draws import Draws, Flags, Whole, completed_years
from pictures_spark.synthetic.lives import NEVER, People
from pictures_spark.synthetic.nation import dates
from pictures_spark.synthetic.published import ZONE
from pictures_spark.synthetic.told import told

# What found the planted text: no detector did.
PLANTED = "planted"
# The trap of studies that have one accession number.
ONE_REQUEST = "one_request"


@dataclass(frozen=True)
class Scans:
    """Studies of a batch of people, all of one protocol: places in the batch, days, and a number that no other study of the person has.

    ``same_as`` is the number of the person's earlier study whose pixels a study shows again under other UIDs, -1 for none. ``request`` is
    the number of the person's study whose accession number several of one day have, -1 where a study has its own.
    """

    protocol: str
    who: Whole
    on: Whole
    number: Whole
    same_as: Whole | None = None
    request: Whole | None = None


@dataclass(frozen=True)
class Made:
    """Tables by name, and the studies that a trap has spoiled: (study_id, trap)."""

    tables: Mapping[str, pa.Table]
    traps: pa.Table


@cache
def scanning() -> dict[str, Any]:
    """The data."""
    found: dict[str, Any] = load_schema("synthetic/scanning.yaml")
    return found


def header(protocol: str, number: int, device: Sequence[Any], trap: str | None) -> dict[str, Any]:
    """The header that all images of a protocol's series have."""
    data = scanning()
    plan = data["protocols"][protocol]
    series = plan["series"][number]
    found = {**data["common"][series["Modality"]], "Manufacturer": device[0], "ManufacturerModelName": device[1]}
    found |= {"StudyDescription": plan["StudyDescription"], **{name: value for name, value in series.items() if name[0].isupper()}}
    if "plane" in series:
        found["ImageOrientationPatient"] = data["planes"][series["plane"]]
    rule = _rule(trap)
    if series["Modality"] in rule.get("only", [series["Modality"]]):
        found |= rule.get("set", {})
        for keyword, spellings in rule.get("spelt", {}).items():
            found[keyword] = spellings.get(found[keyword], found[keyword])
    return {name: value for name, value in found.items() if value is not None}


def first_image(protocol: str, number: int, trap: str | None) -> dict[str, Any]:
    """What the first image of a protocol's series has otherwise than all others; nothing where it is the only one."""
    series, rule = scanning()["protocols"][protocol]["series"][number], _rule(trap)
    several = series["images"][0] > 2 and series["Modality"] in rule.get("only", [series["Modality"]])
    return dict(rule.get("first", {})) if several else {}


@cache
def _devices(modality: str) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(device) for device in scanning()["devices"][modality])


@cache
def _traps() -> tuple[str | None, ...]:
    return (None, *(row["id"] for row in scanning()["traps"]))


@cache
def _spoils(protocol: str) -> Flags:
    """For each of `_traps` whether it changes anything in studies of a protocol."""
    numbers = range(len(scanning()["protocols"][protocol]["series"]))
    device = ("", "")
    changes = [
        any(header(protocol, n, device, trap) != header(protocol, n, device, None) or first_image(protocol, n, trap) for n in numbers)
        for trap in _traps()
    ]
    # Of another spelling it depends on the device; all of those that a device's modality is made by have one.
    return np.array(changes) | np.array([False, *(not row.keys().isdisjoint(("unlinked", "spelt", "days")) for row in scanning()["traps"])])


def days_off(trap: str | None, keyword: str) -> int:
    """How many days a trap moves a date of the header."""
    days: int = _rule(trap).get("days", {}).get(keyword, 0)
    return days


def _rule(trap: str | None) -> dict[str, Any]:
    """What a trap does; nothing where it is none."""
    found: dict[str, Any] = next((row for row in scanning()["traps"] if row["id"] == trap), {})
    return found


@cache
def _look(protocol: str, number: int, device: int, trap: int) -> dict[str, Any]:
    """Columns of ``series`` that a protocol's series on a device has, spoiled by a trap or not."""
    series = scanning()["protocols"][protocol]["series"][number]
    found = header(protocol, number, _devices(series["Modality"])[device], _traps()[trap])
    return told(found, series.get("frames", series["images"])[0], series.get("step"), first_image(protocol, number, _traps()[trap]))


def _looks(protocol: str, number: int, device: Whole, trap: Whole) -> pa.Table:
    """`_look` of each study; few of them differ."""
    kinds, which = np.unique(device * len(_traps()) + trap, return_inverse=True)
    declared = table(ZONE, "series").by_name
    rows = [_look(protocol, number, *divmod(int(kind), len(_traps()))) for kind in kinds]
    looks = {name: pa.array([row[name] for row in rows], declared[name].arrow_type) for name in rows[0]}
    return pa.table(looks).take(pa.array(which))


def trap_of(draws: Draws, index: Whole, board: Whole, number: Whole) -> Whole:
    """Place of each study's trap in `_traps`, 0 for none, at the rates of its board's profile."""
    profiles = scanning()["profiles"]
    rates = np.array([[profile.get(trap, 0.0) for trap in _traps()] for profile in profiles])
    rates[:, 0] = 1 - rates[:, 1:].sum(axis=1)
    ends = np.cumsum(rates, axis=1)
    drawn = draws.uniform("trap", index, number)
    return np.minimum((ends[board % len(profiles)] <= drawn[:, None]).sum(axis=1), len(_traps()) - 1)


def requested(draws: Draws, group: People, scans: Sequence[Scans]) -> tuple[Scans, ...]:
    """The scans of a batch, some of a person's studies of one day under one request."""
    if not scans:
        return ()
    who, on, number = (np.concatenate([getattr(one, name) for one in scans]) for name in ("who", "on", "number"))
    order = np.lexsort((number, on, who))
    starts = np.flatnonzero((np.diff(who[order], prepend=-1) != 0) | (np.diff(on[order], prepend=0) != 0))
    sizes = np.diff(starts, append=len(order))
    first = order[np.repeat(starts, sizes)]
    one = np.repeat(sizes, sizes) > 1
    one &= draws.happens("one_request", group.index[who[order]], scanning()["one_request"], on[order])
    request = np.empty(len(order), np.int64)
    request[order] = np.where(one, number[first], -1)
    parts = np.split(request, np.cumsum([len(one.who) for one in scans])[:-1])
    return tuple(replace(one, request=part) for one, part in zip(scans, parts, strict=True))


def made(draws: Draws, group: People, ids: pa.Array, board: Whole, scans: Scans, clean: bool = False) -> Made:
    """The rows of one protocol's scans.

    Parameters
    ----------
    board : health board of each person of the batch; the site that scanned.
    clean : no trap.
    """
    plan = scanning()["protocols"][scans.protocol]
    who, on, index = scans.who, scans.on, group.index[scans.who]
    trap = np.zeros(len(who), np.int64) if clean else trap_of(draws, index, board[who], scans.number)
    # A trap that leaves such a header as it was is none.
    trap = np.where(_spoils(scans.protocol)[trap], trap, 0)
    reasons = np.array([None, *(row.get("unlinked") for row in scanning()["traps"])], object)[trap]
    linked = np.array([reason is None for reason in reasons], bool)
    person = pc.if_else(pa.array(linked), ids.take(pa.array(who)), pa.scalar(None, pa.string()))
    study_id = draws.names("study", index, scans.number)
    times = draws.whole("time", index, 8 * 3600, 18 * 3600 - 1, scans.number)
    age = _ages(group, who, on, linked)
    clock = pa.array([f"{t // 3600:02d}:{t // 60 % 60:02d}:{t % 60:02d}" for t in times.tolist()], pa.string())
    boards = np.array([f"board-{number:02d}" for number in range(len(load_schema("synthetic/nation.yaml")["health_boards"]))])
    parts = [_series(draws, scans, number, index, board[who], trap) for number in range(len(plan["series"]))]
    rows = []
    for number, (looks, images, frames) in enumerate(parts):
        frame_of = draws.names("frame", index, scans.number * 100 + (0 if plan.get("one_frame") else number))
        own = {
            "series_id": draws.names("series", index, scans.number * 100 + number),
            "study_id": study_id,
            "patient_id": person,
            "scan_date": dates(on),
            "scan_time": clock,
            "scan_date_source": pa.repeat(pa.scalar("AcquisitionDate"), len(who)),
            "image_count": pa.array(images),
            "frame_count": pa.array(frames),
            "n_objects": pa.array(images),
            "conflict_count": pa.array(np.zeros(len(who), np.int64)),
            "frame_of_reference_id": frame_of,
            "dup_of": _dup_of(draws, scans, index, number),
            **age,
        }
        rows.append(pa.table({**dict(zip(looks.column_names, looks.columns, strict=True)), **own}))
    study = {
        "study_id": study_id,
        "patient_id": person,
        "unlinked_reason": pa.array(reasons.tolist(), pa.string()),
        "accession_id": draws.names("accession", index, request_of(scans)),
        "study_date": dates(on + np.array([days_off(name, "StudyDate") for name in _traps()])[trap]),
        "study_time": clock,
        "site": pa.array(boards[board[who]]),
        "scan_date": dates(on),
        "series_count": pa.array(np.full(len(who), len(rows))),
        "description_norm": _study_words(plan, len(who)),
        "conflict_count": pa.array(np.zeros(len(who), np.int64)),
        "conflict_flags": _empty_lists(len(who)),
        "tag_conflicts": _empty_lists(len(who)),
        **age,
    }
    spoiled, one = np.flatnonzero(trap), np.flatnonzero(_shares_request(scans))
    names = np.array([name or "" for name in _traps()])
    series = pa.concat_tables(rows)
    noted = pa.array([*names[trap[spoiled]], *[ONE_REQUEST] * len(one)], pa.string())
    return Made(
        {"study": pa.table(study), "series": series, **_pixels(plan, rows)},
        pa.table({"uid": study_id.take(pa.array(np.concatenate([spoiled, one]))), "trap": noted}),
    )


def _shares_request(scans: Scans) -> Flags:
    """Which studies have an accession number that others have too."""
    return np.zeros(len(scans.who), bool) if scans.request is None else scans.request >= 0


def request_of(scans: Scans) -> Whole:
    """Numbers of the studies whose accession numbers the studies have."""
    return scans.number if scans.request is None else np.where(scans.request >= 0, scans.request, scans.number)


def _dup_of(draws: Draws, scans: Scans, index: Whole, number: int) -> pa.Array:
    """The earlier series whose pixels each study's series shows."""
    if scans.same_as is None:
        return pa.nulls(len(index), pa.string())
    earlier = draws.names("series", index, np.maximum(scans.same_as, 0) * 100 + number)
    return pc.if_else(pa.array(scans.same_as >= 0), earlier, pa.scalar(None, pa.string()))


def _series(draws: Draws, scans: Scans, number: int, index: Whole, board: Whole, trap: Whole) -> tuple[pa.Table, Whole, Whole]:
    """What each study's series looks like, and how many images and frames it has. A board has one device of a kind."""
    series = scanning()["protocols"][scans.protocol]["series"][number]
    devices = _devices(series["Modality"])
    device = draws.choice(f"device/{series['Modality']}", board, [weight for *_, weight in devices])
    looks = _looks(scans.protocol, number, device, trap)
    (least, most), slot = series["images"], scans.number * 100 + number
    images = frames = draws.whole("images", index, least, most, slot)
    if "frames" in series:
        least, most = series["frames"]
        frames = draws.whole("frames", index, least, most, slot)
    return looks, images, frames


def _ages(group: People, who: Whole, on: Whole, linked: Flags) -> dict[str, pa.Array]:
    birth, death = group.birth[who], group.death[who]
    early = on < birth
    return {
        "age_years": pa.array(completed_years(birth, on), mask=~linked | early),
        "before_birth": pa.array(early, mask=~linked),
        "after_death": pa.array((on > death) & (death < NEVER), mask=~linked),
    }


def _study_words(plan: Mapping[str, Any], count: int) -> pa.Array:
    return pa.array([sorted(description_words(plan["StudyDescription"]))], pa.list_(pa.string())).take(pa.array(np.zeros(count, np.int64)))


def _empty_lists(count: int) -> pa.Array:
    return pa.array([[]], pa.list_(pa.string())).take(pa.array(np.zeros(count, np.int64)))


def _definitions(name: str) -> list[tuple[str, str]]:
    """Level and version of every definition of a feature: one of images has a value for their series too."""
    declared = [entry for entry in load_schema("features.yaml")["features"] if entry["name"] == name]
    return [(level, entry["version"]) for entry in declared for level in dict.fromkeys((entry["level"], "series"))]


def _pixels(plan: Mapping[str, Any], rows: Sequence[pa.Table]) -> dict[str, pa.Table]:
    """What the pixels would tell: features of each series, and whether its images have text.

    One image stands for all of a series: these tables have no images.
    """
    features, texts = [], []
    for entry, found in zip(plan["series"], rows, strict=True):
        count, series_id = found.num_rows, found.column("series_id")
        for name, value in entry.get("features", {}).items():
            features += [
                pa.table(
                    {
                        "level": pa.repeat(pa.scalar(level), count),
                        "id": series_id,
                        "series_id": series_id,
                        "feature": pa.repeat(pa.scalar(name), count),
                        "version": pa.repeat(pa.scalar(version), count),
                        "value": pa.array(np.full(count, float(value))),
                        "status": pa.repeat(pa.scalar("ok"), count),
                    }
                )
                for level, version in _definitions(name)
            ]
        if entry["Modality"] in ("CR", "DX", "US"):
            text = entry.get("text", False)
            box = {
                name: pa.array(np.full(count, at), mask=np.full(count, not text))
                for name, at in zip(("x0", "y0", "x1", "y1"), (8, 8, 220, 24), strict=True)
            }
            whole = {name: pa.array(np.zeros(count, np.int64), mask=np.full(count, not text)) for name in ("frame_from", "frame_to")}
            texts.append(
                pa.table(
                    {
                        "image_id": series_id,
                        "locator_id": series_id,
                        "series_id": series_id,
                        **whole,
                        **box,
                        "plane": pa.repeat(pa.scalar("pixel"), count),
                        "kind": pa.repeat(pa.scalar("text" if text else None, pa.string()), count),
                        "verdict": pa.repeat(pa.scalar("text" if text else "clean"), count),
                        "engine_version": pa.repeat(pa.scalar(PLANTED), count),
                        "rule": pa.repeat(pa.scalar(PLANTED), count),
                    }
                )
            )
    found = {"image_feature": features, "burned_in_text": texts}
    return {name: pa.concat_tables(parts) for name, parts in found.items() if parts}
