"""The disclosure gate: the only way in which a count reaches somebody who may not see exact ones.

Engines count exactly. What enters here is a `Cell`: who is counted, under keyed names, and how many units each person adds. What leaves is
a number that may be shown, or None where none may. Three rules make it (values in schemas/disclosure.yaml, reasons in docs/governance.md):

1. *Like an earlier one.* A cell that few persons tell apart from one that was asked about before, by anybody, is answered as that one was.
   The first that was ever asked about is the empty cell, which shows nothing; so this rule is the minimum cell size, too. Fewer persons
   than the minimum never count; whether slightly more do is drawn, so that no single person decides it.
2. *What follows from earlier ones.* A cell that is, but for few persons, a sum or difference of cells already told is answered by the
   same sum of the numbers that were told. So whoever splits, complements and adds up learns nothing that was not shown.
3. *Anything else* is moved by a draw and rounded. The draw is keyed by the persons and what they add: the same for every user, on every
   way to that cell, on every day.

Cells are kept as sketches: each person adds to one of some thousand sums. Sketches of sums of cells are sums of sketches, which is what
rule 2 needs, and two cells differ in no more places than in persons, which is what rule 1 needs. Runs on the driver.
"""

import base64
import hashlib
import hmac
import os
import secrets
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from pictures_spark import audit
from pictures_spark.errors import NotPermittedError
from pictures_spark.resources import load_schema
from pictures_spark.zones import Zones

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Sketch = npt.NDArray[np.int32]
Reals = npt.NDArray[np.float64]

PLACES = 2048
_FIRST = 256  # places that are compared first: where these differ in many, no more need be
_HISTORY = "answers.jsonl"
_KEY = "gate.key"
_NORMAL = NormalDist()
_WHOLE = 0.1  # a coefficient this near to a whole number is one


@dataclass(frozen=True)
class Policy:
    """schemas/disclosure.yaml."""

    name: str
    minimum: int
    hidden: str
    margin: float
    echo: float
    deviation: float
    at_most: float
    rounding: int
    heaviest: float
    of_project: int
    of_everyone: int
    combination_limit: float
    most_new: int
    exact: tuple[str, ...]

    @property
    def never_told_from(self) -> float:
        """Persons from which on a difference is always told."""
        return self.minimum + self.margin + self.at_most


@cache
def policy() -> Policy:
    """The policy in force."""
    declared = load_schema("disclosure.yaml")
    return Policy(
        name=f"{declared['policy']}-{declared['version']}",
        minimum=declared["minimum"],
        hidden=declared["hidden"],
        margin=declared["margin"],
        echo=declared["echo"],
        deviation=declared["perturbation"]["standard_deviation"],
        at_most=declared["perturbation"]["at_most"],
        rounding=declared["rounding"],
        heaviest=declared["heaviest"],
        of_project=declared["combined"]["project"],
        of_everyone=declared["combined"]["everyone"],
        combination_limit=declared["combination_limit"],
        most_new=declared["most_new"],
        exact=tuple(declared["exact"]),
    )


@dataclass(frozen=True)
class Cell:
    """Who is counted: keyed names, sorted and distinct, and how many units each person adds, at least 1."""

    persons: Keys
    adds: Numbers

    @cached_property
    def who(self) -> bytes:
        """Digest of the set of persons."""
        return hashlib.sha256(self.persons.tobytes()).digest()

    @cached_property
    def digest(self) -> bytes:
        """Digest of the persons and of what they add."""
        return hashlib.sha256(self.persons.tobytes() + self.adds.tobytes()).digest()

    @property
    def total(self) -> int:
        """What is counted."""
        return int(self.adds.sum())

    @cached_property
    def sketch(self) -> Sketch:
        """Each person adds what it adds, or takes it away, in one of `PLACES` places; both are told by the keyed name."""
        signs = np.where(self.persons & np.uint64(PLACES), 1.0, -1.0)
        sums = np.bincount((self.persons % np.uint64(PLACES)).astype(np.intp), weights=signs * self.adds, minlength=PLACES)
        return sums.astype(np.int32)

    def capped(self, most: int) -> "Cell":
        """The same persons, none of whom adds more than so many."""
        return Cell(self.persons, np.minimum(self.adds, most))

    def people(self) -> "Cell":
        """The same persons, each of whom adds one."""
        return self.capped(1)


def cell(persons: Keys, adds: npt.NDArray[Any] | None = None) -> Cell:
    """A cell of keyed names in any order, each once; who adds nothing is not in it."""
    order = np.argsort(persons, kind="stable")
    kept = persons[order]
    if adds is None:
        return Cell(kept, np.ones(len(kept), np.int64))
    sorted_adds = adds[order].astype(np.int64)
    some = sorted_adds > 0
    return Cell(kept[some], sorted_adds[some])


_NOBODY = cell(np.array([], np.uint64))


@dataclass(frozen=True)
class Told:
    """What a cell was answered, and whether by rule 3: only such answers say something new."""

    level: str
    project: str
    who: bytes
    digest: bytes
    value: int | None
    new: bool


@dataclass
class History:
    """Everything that was ever asked, in order. ``places[level][i]`` is the sketch of ``told[level][i]``."""

    told: dict[str, list[Told]] = field(default_factory=dict)
    places: dict[str, Sketch] = field(default_factory=dict)
    by_digest: dict[tuple[str, bytes], Told] = field(default_factory=dict)
    fresh: list[tuple[Told, Sketch]] = field(default_factory=list)

    def add(self, told: Told, sketch: Sketch) -> None:
        """Remember an answer."""
        entries = self.told.setdefault(told.level, [])
        room = self.places.get(told.level)
        if room is None or len(room) == len(entries):
            grown = np.zeros((max(4, 2 * len(entries)), PLACES), np.int32)
            if room is not None:
                grown[: len(entries)] = room
            self.places[told.level] = room = grown
        room[len(entries)] = sketch
        entries.append(told)
        self.by_digest.setdefault((told.level, told.digest), told)

    def keep(self, told: Told, sketch: Sketch) -> None:
        """Remember an answer that is not stored yet."""
        self.add(told, sketch)
        self.fresh.append((told, sketch))


class Gate:
    """Answers cells by the rules, and remembers what it answered.

    Parameters
    ----------
    key : of the governance zone.
    history : what was answered before, by anybody.
    project : whose answers are looked at first; empty where the asker has none.
    """

    def __init__(self, key: bytes, history: History, project: str = "") -> None:
        self.policy = policy()
        self.key = key
        self.history = history
        self.project = project
        self._last: dict[str, tuple[list[int], Reals, Reals]] = {}

    def people(self, asked: Cell) -> int | None:
        """The number of persons of a cell, as it may be shown."""
        return self._answer("patient", asked.people(), 1)

    def units(self, level: str, asked: Cell, most: int) -> int | None:
        """The number of units of a cell (``study``, ``series``, ``image``), none of whose persons adds more than ``most``.

        Not shown where the number of its persons is not.
        """
        if self.people(asked) is None:
            return None
        return self._answer(f"{level} {most}", asked.capped(most), most)

    def _answer(self, level: str, asked: Cell, scale: int) -> int | None:
        known = self.history.by_digest.get((level, asked.digest))
        if known is not None:
            return known.value
        told = self._like(level, asked)
        if told is None:
            told = self._following(level, asked, scale)
        if told is None:
            value = asked.total + scale * self._draw(b"value", level.encode(), asked.digest)
            told = Told(level, self.project, asked.who, asked.digest, self._rounded(value, scale), new=True)
        self.history.keep(told, asked.sketch)
        return told.value

    def _like(self, level: str, asked: Cell) -> Told | None:
        """Rule 1: what is nearly the same as anything comes first, so that nothing depends on a person more or less."""
        entries = self.history.told.get(level, [])
        places = self.history.places[level][: len(entries)] if entries else np.zeros((0, PLACES), np.int32)
        maybe = np.flatnonzero((places[:, :_FIRST] != asked.sketch[:_FIRST]).sum(axis=1) < self.policy.never_told_from)
        differ = {int(i): int((places[i] != asked.sketch).sum()) for i in maybe}
        for i, persons in differ.items():
            if self._alike(persons, asked.who, entries[i].who, self.policy.echo):
                return Told(level, self.project, asked.who, asked.digest, entries[i].value, new=False)
        if self._alike(len(asked.persons), asked.who, _NOBODY.who):
            return Told(level, self.project, asked.who, asked.digest, None, new=False)
        for i, persons in differ.items():
            if entries[i].new and self._alike(persons, asked.who, entries[i].who):
                return Told(level, self.project, asked.who, asked.digest, entries[i].value, new=False)
        return None

    def _following(self, level: str, asked: Cell, scale: int) -> Told | None:
        """Rule 2."""
        entries = self.history.told.get(level, [])
        new = [i for i, told in enumerate(entries) if told.new]
        mine = [i for i in new if entries[i].project == self.project]
        used = sorted({*new[-self.policy.of_everyone :], *mine[-self.policy.of_project :]})
        if len(used) < 2:
            return None
        basis, gram = self._basis(level, used)
        times = np.linalg.solve(gram, basis @ asked.sketch)
        whole = np.round(times)
        times = np.where(np.abs(times - whole) < _WHOLE, whole, times)
        if np.count_nonzero(times) < 2 or np.linalg.norm(times) > self.policy.combination_limit:
            return None
        rest = asked.sketch - times @ basis
        differ = int((np.abs(rest) > 0.5).sum())
        combined = hashlib.sha256(b"".join(entries[i].who for i, n in zip(used, times, strict=True) if n)).digest()
        if not self._alike(differ, asked.who, combined):
            return None
        value = sum(n * (entries[i].value or 0) for i, n in zip(used, times, strict=True))
        return Told(level, self.project, asked.who, asked.digest, self._rounded(value, scale), new=False)

    def _basis(self, level: str, used: list[int]) -> tuple[Reals, Reals]:
        """Sketches of some answers, oldest first, and their products with one another; what the last call made is used again."""
        before, basis, gram = self._last.get(level, ([], np.zeros((0, PLACES)), np.zeros((0, 0))))
        if used != before:
            still = set(used)
            kept = [place for place, i in enumerate(before) if i in still]
            if [before[place] for place in kept] != used[: len(kept)]:
                kept = []  # others than the newest are new: of another project
            added = self.history.places[level][used[len(kept) :]].astype(np.float64)
            old = basis[kept]
            across = old @ added.T
            own = added @ added.T
            own.flat[:: len(added) + 1] += 1e-3  # so that it can always be solved
            gram = np.block([[gram[np.ix_(kept, kept)], across], [across.T, own]])
            basis = np.concatenate([old, added])
            self._last[level] = used, basis, gram
        return basis, gram

    def _alike(self, differ: int, who: bytes, other: bytes, near: float = 1.0) -> bool:
        """Whether so few persons tell two cells apart that they are answered alike; ``near`` makes what is drawn smaller."""
        if near == 1.0 and differ < self.policy.minimum:
            return True
        if differ >= self.policy.never_told_from:
            return False
        return differ + near * self._draw(b"alike", who, other) < self.policy.minimum + near * self.policy.margin

    def _draw(self, *about: bytes) -> float:
        """A number of mean 0, the same whenever it is about the same."""
        bits = int.from_bytes(hmac.digest(self.key, b"\x1f".join(about), "sha256")[:8], "big")
        drawn = _NORMAL.inv_cdf((bits + 0.5) / 2**64) * self.policy.deviation
        return max(-self.policy.at_most, min(self.policy.at_most, drawn))

    def _rounded(self, value: float, scale: int) -> int:
        step = self.policy.rounding * scale
        least = -(-self.policy.minimum // step) * step
        return max(least, step * round(value / step))


# Tables of numbers that were let through


def told(value: int | None) -> str:
    """A number as it is printed."""
    return policy().hidden if value is None else f"{value:,}"


def protected(table: Sequence[Sequence[int | None]]) -> list[list[int | None]]:
    """Secondary suppression of a table of gated counts: in no row or column is one number alone missing.

    A line in which one is hidden loses its smallest shown number as well, again and again until none is left alone. A table of one row or
    one column has no lines across.
    """
    rows = [list(row) for row in table]
    lines = [[(i, j) for j in range(len(row))] for i, row in enumerate(rows)]
    lines += [[(i, j) for i in range(len(rows))] for j in range(len(rows[0]))] if rows else []
    lines = [line for line in lines if len(line) > 1]
    changed = True
    while changed:
        changed = False
        for line in lines:
            shown = [(value, place) for place in line if (value := rows[place[0]][place[1]]) is not None]
            if len(line) - len(shown) == 1 and shown:
                _, (i, j) = min(shown)
                rows[i][j] = None
                changed = True
    return rows


def total(values: Sequence[int | None]) -> int | None:
    """The total of a line after suppression: of what is shown; None where nothing is."""
    shown = [value for value in values if value is not None]
    return sum(shown) if shown else None


# Persons, and what is kept of answers


def keyed_names(key: bytes, persons: Sequence[str] | npt.NDArray[np.object_]) -> Keys:
    """Keyed 64-bit names of persons (SipHash), in the same order: what is kept of an answer names nobody, even by pseudonym."""
    import pandas as pd

    name = hmac.digest(key, b"persons", "sha256")[:8].hex()
    return pd.util.hash_array(np.asarray(persons, dtype=object), hash_key=name, categorize=False)


def heaviest(adds: Numbers) -> int:
    """The most that one person may add: what all but a small share of persons add at most, rounded up so that it seldom changes.

    Examples
    --------
    >>> heaviest(np.array([1] * 99 + [900])), heaviest(np.array([33] * 100))
    (1, 40)
    """
    most = int(np.ceil(np.quantile(adds, policy().heaviest, method="inverted_cdf"))) if len(adds) else 1
    step = 1 << max(0, most.bit_length() - 3)
    return -(-most // step) * step


class Ledger:
    """The gate's key and history in the governance zone. Held by one process at a time, from reading the history to its last answer.

    Raises
    ------
    NotPermittedError
        On entering: the key is missing or can be read by others, or the project was told as much as the policy lets be told.
    """

    def __init__(self, zones: Zones, project: str | None) -> None:
        self.folder = zones.path(audit.ZONE, mode="read")
        zones.root(audit.ZONE, "append")
        self.project = project or ""
        self._lock: AbstractContextManager[None] = nullcontext()

    def __enter__(self) -> Gate:
        self._lock = audit.locked(self.folder / _HISTORY)
        self._lock.__enter__()
        try:
            self.gate = Gate(_key(self.folder / _KEY), stored(self.folder / _HISTORY), self.project)
            self._refuse_more()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self.gate

    def _refuse_more(self) -> None:
        """Draws average out: a project is told so many numbers of its own, and then somebody has to look at what it asks."""
        told = sum(one.new and one.project == self.project for entries in self.gate.history.told.values() for one in entries)
        if told >= policy().most_new:
            who = f"project {self.project}" if self.project else "whoever names no project"
            raise NotPermittedError(
                f"{who} had {told:,} numbers of its own, as many as the disclosure policy lets be told before somebody looks at what was "
                "asked: ask a coordinator, who sees exact counts, or a data manager, who may raise most_new in the policy"
            )

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            # Whatever was worked out may have been seen: it is kept even where the caller failed after that.
            if self.gate.history.fresh:
                audit.append_locked(self.folder / _HISTORY, *(_entry(told, sketch) for told, sketch in self.gate.history.fresh))
        finally:
            self._lock.__exit__(kind, error, trace)


def stored(path: Path) -> History:
    """The history as it is on disk."""
    history = History()
    for entry in audit.read(path):
        sketch = np.frombuffer(zlib.decompress(base64.b64decode(entry["sketch"])), "<i4").astype(np.int32)
        who, digest = bytes.fromhex(entry["who"]), bytes.fromhex(entry["digest"])
        history.add(Told(entry["level"], entry["project"], who, digest, entry["value"], entry["new"]), sketch)
    return history


def _entry(told: Told, sketch: Sketch) -> dict[str, Any]:
    packed = base64.b64encode(zlib.compress(sketch.astype("<i4").tobytes(), 6)).decode()
    who, digest = told.who.hex(), told.digest.hex()
    said = {"level": told.level, "project": told.project, "who": who, "digest": digest, "value": told.value, "new": told.new}
    return said | {"sketch": packed}


def _key(path: Path) -> bytes:
    """The gate's key, made on first use; mode 0600, never replaced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        if (path.parent / _HISTORY).exists():
            raise NotPermittedError("the key of the disclosure gate is missing but its history is there: restore the key from its backup")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    if path.stat().st_mode & 0o077:
        raise NotPermittedError("the key of the disclosure gate can be read by others; set its mode to 0600")
    key = path.read_bytes()
    if len(key) != 32:
        raise NotPermittedError("the key of the disclosure gate is not 32 bytes long; restore it from its backup")
    return key
