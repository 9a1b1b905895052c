"""What happens to people: illnesses, and the drugs, tests, stays and deaths that follow from them, as typed events.

Enters: people as arrays (one batch of any size) and the nation's data (schemas/synthetic/nation.yaml). Leaves: events and wanted scans as
arrays. Pure; numpy only. Everything is drawn by `Draws` from the person's own index, so batches may be cut anywhere and made anywhere.
Days are counted from 1970-01-01.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from pictures_spark.resources import load_schema
from pictures_spark.synthetic.draws import Draws, Flags, Real, Whole, day

YEAR = 365.25
# Later than everything: what has not happened.
NEVER = 1 << 30


@dataclass(frozen=True)
class People:
    """A batch of people, one entry each.

    Attributes
    ----------
    index : who they are, for drawing.
    birth, death : days; ``NEVER`` for the living.
    start, end : first and last day lived in the area (``gap_start`` to ``gap_end`` away in between, or ``NEVER``).
    male : sex.
    """

    index: Whole
    birth: Whole
    death: Whole
    male: Flags
    start: Whole
    end: Whole
    gap_start: Whole
    gap_end: Whole

    def __len__(self) -> int:
        return len(self.index)

    def here(self, who: Whole, on: Whole) -> Flags:
        """Whether each of ``who`` (places in the batch) was alive and lived in the area on a day."""
        inside = (on >= self.start[who]) & (on <= self.end[who]) & (on <= self.death[who]) & (on >= self.birth[who])
        return inside & ~((on >= self.gap_start[who]) & (on <= self.gap_end[who]))


@dataclass(frozen=True)
class Events:
    """Typed events of one source, kind and system. ``who`` is a place in the batch; ``code`` a place in ``codes``, -1 for none.

    ``stay`` is the number of the person's stay, -1 for none; ``end`` a day or ``NEVER``; ``value`` NaN where there is none.
    """

    source: str
    kind: str
    system: str | None
    codes: tuple[str, ...]
    who: Whole
    on: Whole
    code: Whole
    end: Whole
    stay: Whole
    position: int | None = None
    value: Real | None = None
    unit: str | None = None
    units: tuple[str, ...] = ()

    def where(self, keep: Flags) -> "Events":
        """Those events for which ``keep`` is true."""
        value = None if self.value is None else self.value[keep]
        return replace(
            self, who=self.who[keep], on=self.on[keep], code=self.code[keep], end=self.end[keep], stay=self.stay[keep], value=value
        )


@dataclass(frozen=True)
class Wanted:
    """Scans that an illness led to: place in the batch, day, and a number that tells them from the person's others."""

    protocol: str
    who: Whole
    on: Whole
    number: int


@dataclass(frozen=True)
class Lives:
    """Everything that happened to a batch."""

    people: People
    events: tuple[Events, ...]
    scans: tuple[Wanted, ...]
    cause: tuple[str, ...]
    cause_of: Whole


@cache
def nation() -> dict[str, Any]:
    """The nation's data."""
    found: dict[str, Any] = load_schema("synthetic/nation.yaml")
    return found


def onset_day(draws: Draws, name: str, people: People, rates: Mapping[str, Sequence[float]], factor: Real) -> Whole:
    """Day on which something with a yearly rate per 1,000 by age band and sex first happens to each person; `NEVER` where it does not.

    The waiting time of a process whose rate is constant within a band: an exponential draw, spent band by band.
    """
    bands = [*nation()["bands"], 120]
    left = -np.log1p(-draws.uniform(f"onset/{name}", people.index))
    age = np.full(len(people), np.inf)
    yearly = np.where(people.male[:, None], np.asarray(rates["M"], float)[None], np.asarray(rates["F"], float)[None]) / 1000
    for number, (low, high) in enumerate(pairwise(bands)):
        rate = yearly[:, number] * factor
        spent = rate * (high - low)
        now = np.isinf(age) & (spent > left)
        age[now] = low + left[now] / rate[now]
        left = np.where(np.isinf(age), left - spent, left)
    on = np.full(len(people), NEVER, np.int64)
    some = np.isfinite(age)
    on[some] = people.birth[some] + (age[some] * YEAR).astype(np.int64)
    return on


def lead(
    draws: Draws, people: People, alive_on: Whole | None = None, first: int = 0, last: int = 0, busy: float = 1, pace: float = 1
) -> Lives:
    """Lead the lives of a batch.

    Parameters
    ----------
    alive_on : day on which each is known to be alive, where something is known: nobody dies before.
    first, last : days outside which nothing is kept; all days where both are 0.
    busy, pace : factors of the rates of everyday events, and of the days between repeated ones.
    """
    data = nation()
    onsets: dict[str, Whole] = {}
    oldest = people.birth + (draws.uniform("oldest", people.index) * 15 * YEAR + 100 * YEAR).astype(np.int64)
    deaths = [np.minimum(onset_day(draws, "death", people, data["deaths"], np.ones(len(people))), oldest)]
    causes = tuple(data["deaths"]["causes"])
    cause = draws.choice("cause", people.index, list(data["deaths"]["causes"].values()))
    codes = list(causes)
    cause_of = [cause]
    for name, condition in data["conditions"].items():
        factor = np.ones(len(people))
        for other, times in condition.get("raised_by", {}).items():
            # Only what came in order: a factor by an illness that is drawn later in the file would be a circle.
            if other in onsets:
                factor = np.where(onsets[other] < NEVER, factor * times, factor)
        onsets[name] = onset_day(draws, name, people, condition["incidence"], factor)
        if "dies" in condition:
            dies = condition["dies"]
            kills = draws.happens(f"dies/{name}", people.index, dies["share"]) & (onsets[name] < NEVER)
            when = onsets[name] + draws.whole(f"dies/{name}/days", people.index, *dies["days"])
            deaths.append(np.where(kills, when, NEVER))
            codes.append(dies["code"])
            cause_of.append(np.full(len(people), len(codes) - 1))
    when = np.stack(deaths)
    if alive_on is not None:
        # A death before the last scan did not happen; the person dies of another thing, later or not at all.
        when = np.where(when <= alive_on[None], NEVER, when)
    at = np.argmin(when, axis=0)
    died = when[at, np.arange(len(people))]
    # The future is not known: who dies after the last day lives.
    died = np.where(died > (last or _last_day()), NEVER, died)
    people = replace(people, death=np.minimum(people.death, died))
    which = np.stack(cause_of)[at, np.arange(len(people))]
    events: list[Events] = []
    scans: list[Wanted] = []
    for number, (name, condition) in enumerate(data["conditions"].items()):
        # What would have come after death does not.
        who = np.flatnonzero((onsets[name] < NEVER) & (onsets[name] <= people.death))
        events += _follows(draws, name, number, condition, people, who, onsets[name][who], pace)
        for place, scan in enumerate(condition.get("scans", ())):
            had = who[draws.happens(f"scan/{name}/{scan['protocol']}", people.index[who], scan["share"])]
            on = onsets[name][had] + draws.whole(f"scan/{name}/{scan['protocol']}/day", people.index[had], *scan["days"])
            keep = people.here(had, on)
            scans.append(Wanted(scan["protocol"], had[keep], on[keep], number * 10 + place))
    events += _everyday(draws, people, data["everyday"], first, last, busy)
    events += _deaths(people, which, tuple(codes))
    kept = [event.where(_kept(people, event, first, last)) for event in events]
    return Lives(people, tuple(event for event in kept if len(event.who)), tuple(scans), tuple(codes), which)


def _kept(people: People, event: Events, first: int, last: int) -> Flags:
    keep = people.here(event.who, event.on)
    return keep & (event.on >= first) & (event.on <= last) if first or last else keep


def _follows(
    draws: Draws, name: str, number: int, condition: Mapping[str, Any], people: People, who: Whole, onset: Whole, pace: float
) -> Iterator[Events]:
    """What an illness that starts on ``onset`` leads to."""
    index = people.index[who]
    if "stay" in condition:
        yield from _stay(draws, name, number, condition["stay"], people, who, onset)
    if "visit" in condition:
        visit = condition["visit"]
        came = draws.happens(f"visit/{name}", index, visit["share"])
        yield _coded(draws, f"visit/{name}", visit["source"], "attendance", None, {}, people, who[came], onset[came])
        yield _coded(draws, f"visit/{name}", visit["source"], "diagnosis", "icd10", visit["codes"], people, who[came], onset[came], 0)
    if "other" in condition:
        # Noted as a further condition on some later admission for something else.
        other = condition["other"]
        noted = draws.happens(f"other/{name}", index, other["share"])
        on = onset[noted] + draws.whole(f"other/{name}/days", index[noted], 30, 1500)
        yield _coded(draws, f"other/{name}", other["source"], "diagnosis", "icd10", {other["code"]: 1}, people, who[noted], on, 1)
    if "tumour" in condition:
        tumour = condition["tumour"]
        on = onset + draws.whole(f"tumour/{name}", index, *tumour["days"])
        yield _coded(draws, f"tumour/{name}", "smr06", "tumour", "icd10", tumour["codes"], people, who, on)
    for place, drug in enumerate(condition.get("drugs", ())):
        yield _again(draws, f"drug/{name}/{place}", "pis", "dispensing", "bnf", drug, drug["items"], people, who, onset, pace)
    for place, test in enumerate(condition.get("tests", ())):
        entry = {"share": 1, "days": [0, 90], **test}
        stream = f"test/{name}/{place}"
        found = _again(draws, stream, "labs", "lab", "read2", entry, {test["code"]: 1}, people, who, onset, pace)
        yield replace(found, value=_measured(draws, stream, people, found, test["mean"], test["spread"]), unit=test["unit"] or None)


def _stay(draws: Draws, name: str, number: int, stay: Mapping[str, Any], people: People, who: Whole, onset: Whole) -> Iterator[Events]:
    stream = f"stay/{name}"
    came = draws.happens(stream, people.index[who], stay["share"])
    who, on = who[came], onset[came]
    index = people.index[who]
    end = np.minimum(on + draws.whole(f"{stream}/nights", index, *stay["nights"]), people.death[who])
    tied = {"end": end, "stay": np.full(len(who), number, np.int64)}
    source = stay["source"]
    yield replace(_coded(draws, stream, source, "admission", None, {}, people, who, on), **tied)
    main = _coded(draws, stream, source, "diagnosis", "icd10", stay["codes"], people, who, on, 0)
    yield replace(main, **tied)
    yield replace(_coded(draws, stream, source, "discharge", None, {}, people, who, end), stay=tied["stay"])
    if "second" in stay:
        more = draws.happens(f"{stream}/second", index, 0.5)
        codes = dict.fromkeys(stay["second"], 1)
        found = _coded(draws, f"{stream}/second", source, "diagnosis", "icd10", codes, people, who[more], on[more], 1)
        yield replace(found, end=end[more], stay=tied["stay"][more])
    if "operation" in stay:
        later = np.minimum(on + draws.whole(f"{stream}/operation", index, 0, 2), end)
        found = _coded(draws, f"{stream}/operation", source, "procedure", "opcs4", stay["operation"], people, who, later, 0)
        yield replace(found, stay=tied["stay"])
    if stay.get("delivery"):
        yield replace(_coded(draws, stream, source, "delivery", "icd10", stay["codes"], people, who, on), stay=tied["stay"])


def _coded(
    draws: Draws,
    stream: str,
    source: str,
    kind: str,
    system: str | None,
    codes: Mapping[str, float],
    people: People,
    who: Whole,
    on: Whole,
    position: int | None = None,
) -> Events:
    """One event each, with a code of weighted ones."""
    code = draws.choice(f"{stream}/code", people.index[who], list(codes.values())) if codes else np.full(len(who), -1, np.int64)
    never = np.full(len(who), NEVER, np.int64)
    return Events(source, kind, system, tuple(codes), who, on, code, never, np.full(len(who), -1, np.int64), position)


def _again(
    draws: Draws,
    stream: str,
    source: str,
    kind: str,
    system: str,
    entry: Mapping[str, Any],
    codes: Mapping[str, float],
    people: People,
    who: Whole,
    onset: Whole,
    pace: float,
) -> Events:
    """Events that come again and again until death, departure or the end of all extracts; each person keeps one code and one interval."""
    index = people.index[who]
    takes = draws.happens(stream, index, entry["share"])
    who, index = who[takes], index[takes]
    begins = onset[takes] + draws.whole(f"{stream}/days", index, *entry["days"])
    every = (draws.whole(f"{stream}/every", index, *entry["every"]) * pace).astype(np.int64)
    stops = np.minimum(np.minimum(people.death[who], people.end[who]), _last_day())
    count = np.clip((stops - begins) // every + 1, 0, entry.get("times", NEVER))
    code = draws.choice(f"{stream}/code", index, list(codes.values()))
    who, which, on = _repeated(who, count, begins, every)
    number = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
    on = on + draws.whole(f"{stream}/jitter", people.index[who], -2, 2, number) * (number > 0)
    never = np.full(len(who), NEVER, np.int64)
    return Events(source, kind, system, tuple(codes), who, on, code[which], never, np.full(len(who), -1, np.int64))


def _repeated(who: Whole, count: Whole, begins: Whole, every: Whole) -> tuple[Whole, Whole, Whole]:
    """Each of ``who`` ``count`` times: (who, place in ``count``, day)."""
    which = np.repeat(np.arange(len(who)), count)
    number = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return who[which], which, begins[which] + number * every[which]


@cache
def _last_day() -> int:
    return max(day(cover["to"]) for cover in nation()["cover"].values())


def _measured(draws: Draws, stream: str, people: People, found: Events, mean: float, spread: float) -> Real:
    """Values around a mean; the sum of three even draws is near enough to a bell."""
    parts = np.sum([draws.uniform(f"{stream}/value/{n}", people.index[found.who], found.on) for n in range(3)], axis=0)
    return np.round(np.maximum(mean + (parts - 1.5) * 2 * spread, mean / 10), 1)


def _everyday(draws: Draws, people: People, entries: Sequence[Mapping[str, Any]], first: int, last: int, busy: float) -> Iterator[Events]:
    """Small events at a rate by age: as many as the rate, the rest of a whole one by chance, on days drawn in each band of age."""
    bands = [*nation()["bands"], 120]
    low = np.maximum(people.start, first) if first else people.start
    high = np.minimum(np.minimum(people.death, people.end), last if last else _last_day())
    for place, entry in enumerate(entries):
        for number, rate in enumerate(entry["per_year"]):
            stream = f"everyday/{place}/{number}"
            starts = np.maximum(low, people.birth + int(bands[number] * YEAR))
            ends = np.minimum(high, people.birth + int(bands[number + 1] * YEAR) - 1)
            room = np.maximum(ends - starts + 1, 0)
            wanted = room / YEAR * rate * busy
            count = (wanted + draws.uniform(stream, people.index)).astype(np.int64)
            who = np.repeat(np.arange(len(people)), count)
            nth = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
            on = starts[who] + (draws.uniform(f"{stream}/day", people.index[who], nth) * room[who]).astype(np.int64)
            codes = entry.get("codes", {})
            code = (
                draws.choice(f"{stream}/code", people.index[who], list(codes.values()), nth) if codes else np.full(len(who), -1, np.int64)
            )
            never, none = np.full(len(who), NEVER, np.int64), np.full(len(who), -1, np.int64)
            found = Events(entry["source"], entry["kind"], entry.get("system"), tuple(codes), who, on, code, never, none)
            if "values" not in entry:
                yield found
                continue
            for at, name in enumerate(codes):
                of = entry["values"][name]
                one = found.where(code == at)
                yield replace(one, value=_measured(draws, f"{stream}/{name}", people, one, of["mean"], of["spread"]), unit=of["unit"])


def _deaths(people: People, cause: Whole, codes: tuple[str, ...]) -> Iterator[Events]:
    who = np.flatnonzero(people.death < NEVER)
    on, never, none = people.death[who], np.full(len(who), NEVER, np.int64), np.full(len(who), -1, np.int64)
    yield Events("deaths", "death", None, (), who, on, none, never, none)
    yield Events("deaths", "death_cause", "icd10", codes, who, on, cause[who], never, none, 0)
