"""Tables of people who do not exist: who they are, where they lived, what happened to them, in the form of the de-identified zone.

Enters: indices of people and `Draws`. Leaves: Arrow tables with the columns of patient, residence, event, stay and source_cover. Pure;
batch by batch, and the same whatever the batches: everything about a person is drawn from the person's own index.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.resources import load_schema
from pictures_spark.schema import table
from pictures_spark.synthetic.draws import Draws, Flags, Whole, completed_years, day
from pictures_spark.synthetic.lives import NEVER, YEAR, Events, Lives, People, nation

_SITE = "synthetic"


@dataclass(frozen=True)
class Home:
    """One stretch of residence of each of ``who`` (places in a batch); ``to`` is ``NEVER`` while it lasts."""

    who: Whole
    start: Whole
    to: Whole
    board: Whole
    quintile: Whole


def first_day() -> int:
    """First day of any extract."""
    return min(day(cover["from"]) for cover in nation()["cover"].values())


def last_day() -> int:
    """Last day of any extract."""
    return max(day(cover["to"]) for cover in nation()["cover"].values())


def people(draws: Draws, index: Whole) -> People:
    """People as they are born and move; nobody has died yet (`pictures_spark.synthetic.lives.lead` lets them)."""
    last = last_day()
    # Ages on the last day are spread as in a population that neither grows nor shrinks; the oldest are long dead.
    birth = last - (draws.uniform("birth", index) * 105 * YEAR).astype(np.int64)
    return moved(draws, index, birth, draws.happens("male", index, 0.49), first_day(), last)


def moved(draws: Draws, index: Whole, birth: Whole, male: Flags, first: int, last: int) -> People:
    """People with given births, who come, go and come back between two days as the nation's data says."""
    moves = nation()["moves"]
    never = np.full(len(index), NEVER, np.int64)
    arrives = draws.happens("arrives", index, moves["arrive"])
    from_day = np.maximum(birth, first)
    start = np.where(arrives, draws.whole("arrives/day", index, from_day, last - 400), birth)
    waits = -np.log1p(-draws.uniform("leaves", index)) / moves["away"] * YEAR
    leaves = np.where(waits < last - np.maximum(start, first), np.maximum(start, first) + waits.astype(np.int64) + 30, NEVER)
    returns = draws.happens("returns", index, moves["back"]) & (leaves < last - 400)
    back = leaves + draws.whole("returns/days", index, 90, 1500)
    gap_end = np.where(returns, back - 1, never)
    return People(
        index=index,
        birth=birth,
        death=never,
        male=male,
        start=start,
        end=np.where(returns | (leaves >= NEVER), never, leaves - 1),
        gap_start=np.where(returns, leaves, never),
        gap_end=gap_end,
    )


def homes(draws: Draws, group: People, last: int) -> Home:
    """Stretches of residence: before and after an absence, and before and after one move inside the area."""
    index, data = group.index, nation()
    returned = np.flatnonzero(group.gap_start < NEVER)
    stops = np.minimum(np.where(group.gap_start < NEVER, group.gap_start - 1, group.end), group.death)
    room = np.minimum(stops, last) - group.start
    moves = draws.happens("moves", index, np.minimum(data["moves"]["within"] * room / YEAR, 0.6)) & (room > 400)
    split = np.flatnonzero(moves)
    middle = group.start[split] + draws.whole("moves/day", index[split], 30, room[split] - 30)
    first_to = stops.copy()
    first_to[split] = middle - 1
    everyone = np.arange(len(group))
    who = np.concatenate([everyone, split, returned])
    start = np.concatenate([group.start, middle, group.gap_end[returned] + 1])
    to = np.concatenate([first_to, stops[split], np.minimum(group.end, group.death)[returned]])
    number = np.concatenate([np.zeros(len(everyone), np.int64), np.ones(len(split), np.int64), np.full(len(returned), 2)])
    board = draws.choice("board", index[who], data["board_weights"], number)
    # Most who move stay in the board they live in.
    stays = (number > 0) & draws.happens("board/same", index[who], 0.8, number)
    board = np.where(stays, draws.choice("board", index[who], data["board_weights"], 0), board)
    quintile = np.clip(
        draws.whole("simd", index[who], 1, 5) + np.where(number > 0, draws.whole("simd/step", index[who], -1, 1, number), 0), 1, 5
    )
    keep = start <= np.minimum(to, last)
    order = np.lexsort((start[keep], who[keep]))
    parts = [part[keep][order] for part in (who, start, to, board, quintile)]
    return Home(*parts)


def dates(days: Whole) -> pa.Array:
    """Days as Arrow dates; ``NEVER`` is null."""
    return pa.array(np.where(days >= NEVER, 0, days).astype(np.int32), pa.int32(), mask=days >= NEVER).cast(pa.date32())


def patient_table(group: People, ids: pa.Array) -> pa.Table:
    """Rows of ``patient``, whose ids are given."""
    months = np.datetime_as_string(group.birth.astype("datetime64[D]").astype("datetime64[M]"))
    dead = group.death < NEVER
    return pa.table(
        {
            "patient_id": ids,
            "birth_month": pa.array(months),
            "sex": pa.array(np.where(group.male, "M", "F")),
            "death_date": dates(group.death),
            "death_source": pc.if_else(pa.array(dead), "deaths", pa.scalar(None, pa.string())),
        }
    )


def residence_table(draws: Draws, group: People, ids: pa.Array, last: int) -> pa.Table:
    """Rows of ``residence``; a stretch that starts at birth is given from the first of that month, as publish does."""
    found = homes(draws, group, last)
    month = group.birth.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    start = np.where(found.start == group.birth[found.who], month[found.who], found.start)
    editions = sorted((int(year), edition) for year, edition in nation()["simd_editions"].items())
    years = found.start.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    edition = np.maximum(np.searchsorted([year for year, _ in editions], years, side="right") - 1, 0)
    return pa.table(
        {
            "patient_id": ids.take(pa.array(found.who)),
            "from_date": dates(start),
            "to_date": dates(np.where(found.to > last, NEVER, found.to)),
            "health_board": pa.array(np.array(nation()["health_boards"])[found.board]),
            "simd_quintile": pa.array(found.quintile),
            "simd_edition": pa.array(np.array([edition for _, edition in editions])[edition]),
        }
    )


def source_cover_table(first: str | None = None, last: str | None = None) -> pa.Table:
    """Rows of ``source_cover``, for the given days instead of the nation's where there are some."""
    data = nation()
    rows = [
        {
            "source": name,
            "site": _SITE,
            "from_date": first or cover["from"],
            "to_date": last or cover["to"],
            "lag_days": cover["lag_days"],
            "kinds": data["kinds"][name],
        }
        for name, cover in data["cover"].items()
    ]
    found = pa.Table.from_pylist(rows)
    for column in ("from_date", "to_date"):
        at = found.column_names.index(column)
        found = found.set_column(at, column, found.column(column).cast(pa.date32()))
    return found


@cache
def _root(system: str | None) -> int | None:
    return load_schema("codes.yaml")[system].get("root") if system else None


# Minutes of the day in which what has a time of day happens, by record source and kind.
_OPEN = {("ae2", "attendance"): (0, 24 * 60 - 1), ("labs", "lab"): (7 * 60, 19 * 60 - 1)}
_UNTIMED = 0.02  # share of them whose time was not recorded


def event_tables(draws: Draws, lives: Lives, ids: pa.Array, timed: bool = False) -> tuple[pa.Table, pa.Table]:
    """Rows of ``event`` and of ``stay``, each person's in the order of time; with ``timed`` times of day, too."""
    group = lives.people
    parts = [_event_part(group, ids, event) for event in lives.events]
    found = pa.concat_tables(parts)
    who, on, stay = (found.column(name).to_numpy() for name in ("who", "on", "stay"))
    order = np.lexsort((on, who))
    who, on, stay = who[order], on[order], stay[order]
    firsts = np.searchsorted(who, who, side="left")
    number = np.arange(len(who)) - firsts
    index = group.index[who]
    found = found.take(pa.array(order)).drop_columns(["who", "on", "stay"])
    event_id = draws.names("event", index, number)
    stay_id = pc.if_else(pa.array(stay >= 0), draws.names("stay", index, stay), pa.scalar(None, pa.string()))
    age = completed_years(group.birth[who], on)
    _, oldest = table("deidentified", "event").by_name["age_years"].range or (0, np.inf)
    events = found.append_column("event_id", event_id).append_column("stay_id", stay_id)
    events = events.append_column("date", dates(on)).append_column("age_years", pa.array(age, mask=(age < 0) | (age > oldest)))
    if timed:
        events = events.append_column("time", _times(draws, events, index, number))
    return events, _stays(events)


def _times(draws: Draws, events: pa.Table, index: Whole, number: Whole) -> pa.Array:
    """A time of day of each event that has one, HH:MM:SS."""
    minute = np.full(len(index), -1, np.int64)
    for (source, kind), (first, last) in _OPEN.items():
        holds = pc.and_(pc.equal(events["source"], source), pc.equal(events["kind"], kind)).to_numpy()
        at = np.flatnonzero(holds)
        at = at[~draws.happens("event/untimed", index[at], _UNTIMED, number[at])]
        minute[at] = draws.whole("event/time", index[at], first, last, number[at])
    names = pa.array([f"{clock // 60:02d}:{clock % 60:02d}:00" for clock in range(24 * 60)], pa.string())
    return names.take(pa.array(minute, mask=minute < 0))


def _event_part(group: People, ids: pa.Array, event: Events) -> pa.Table:
    count = len(event.who)
    code = _taken(event.codes, event.code)
    length = _root(event.system)
    unit = _taken(event.units, np.zeros(count, np.int64)) if event.units else _constant(event.unit, count)
    value = pa.nulls(count, pa.float64()) if event.value is None else pa.array(event.value)
    return pa.table(
        {
            "who": event.who,
            "on": event.on,
            "stay": event.stay,
            "patient_id": ids.take(pa.array(event.who)),
            "source": _constant(event.source, count),
            "kind": _constant(event.kind, count),
            "system": _constant(event.system if event.codes else None, count),
            "code": code,
            "code_root": pc.utf8_slice_codeunits(code, 0, length) if length else pa.nulls(count, pa.string()),
            "end_date": dates(event.end),
            "value": value,
            "value_std": value,
            "unit_raw": unit,
            "unit_std": unit,
            "position": pa.nulls(count, pa.int64()) if event.position is None else pa.array(np.full(count, event.position)),
        }
    )


def _constant(value: str | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if value is None else pa.repeat(pa.scalar(value), count)


def _taken(values: tuple[str, ...], at: Whole) -> pa.Array:
    if not values:
        return pa.nulls(len(at), pa.string())
    return pa.array(values, pa.string()).take(pa.array(at, mask=at < 0))


def _stays(events: pa.Table) -> pa.Table:
    """As publish makes them: from the admission and the discharge that name a stay; here each has one of both at most."""
    tied = events.filter(pc.is_valid(events.column("stay_id")))
    none, kind = pa.scalar(None, pa.date32()), tied.column("kind")
    admitted = pc.equal(kind, "admission")
    made = (
        pa.table(
            {
                "stay_id": tied.column("stay_id"),
                "patient_id": tied.column("patient_id"),
                "source": tied.column("source"),
                "date": pc.if_else(admitted, tied.column("date"), none),
                "end": pc.if_else(admitted, tied.column("end_date"), none),
                "left": pc.if_else(pc.equal(kind, "discharge"), tied.column("date"), none),
                "event_id": pc.if_else(admitted, tied.column("event_id"), pa.scalar(None, pa.string())),
                "first": tied.column("date"),
            }
        )
        .group_by("stay_id")
        .aggregate(
            [
                (name, "max" if name in ("end", "left") else "min")
                for name in ("patient_id", "source", "date", "end", "left", "event_id", "first")
            ]
        )
        .sort_by("stay_id")
    )
    named = made.column("event_id_min").combine_chunks()
    offsets = np.concatenate([[0], np.cumsum(named.is_valid().to_numpy(zero_copy_only=False))]).astype(np.int32)
    return pa.table(
        {
            "stay_id": made.column("stay_id"),
            "patient_id": made.column("patient_id_min"),
            "start_date": pc.coalesce(made.column("date_min"), made.column("first_min")),
            "end_date": pc.coalesce(made.column("left_max"), made.column("end_max")),
            "type": made.column("source_min"),
            "episode_ids": pa.ListArray.from_arrays(pa.array(offsets), named.drop_null()),
        }
    )
