"""``pictures cohort list | manifest | replay | compare | why``: what was frozen, once more and in detail, by the embedded reader.

Everything comes from what a freeze left behind, and nothing is written. All but ``list`` name single units or exact counts, so they are for
readers who may see those, and are events of the audit chain.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pictures_spark import audit
from pictures_spark.cohort import duck, yaml_face
from pictures_spark.cohort.codelists import Codes
from pictures_spark.cohort.compile import DIALECTS, Saved, compiled
from pictures_spark.cohort.duck import Release
from pictures_spark.config import Config
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError, NotPermittedError
from pictures_spark.readers import Reader
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    import duckdb

_RUN_ID = "cohort_run_id"
_FEW = 8  # hex digits of a freeze that are enough to name it


@dataclass(frozen=True)
class Freeze:
    """One row of `cohort_run`, with the steps of its attrition in order."""

    run_id: str
    cohort_id: str
    unit: str
    release: str
    content_sha256: str
    spec: str
    manifest: dict[str, Any]
    steps: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        return f"{self.cohort_id} ({self.run_id[:_FEW]}, release {self.release})"


def run(action: str, names: list[str], config: Config, reader: Reader | None = None) -> None:
    """Do what ``pictures cohort <action>`` says and print the result.

    Raises
    ------
    NotPermittedError
        The reader may not see exact counts.
    ConfigError
        There is no such freeze, or no such unit in it.
    ChecksFailedError
        A replay does not find what was frozen.
    """
    zones = Zones(config, "counter")
    if action == "list":
        print("\n".join(listed(zones)))
        return
    if reader is None or not reader.exact:
        raise NotPermittedError(f"{action} shows single units or exact counts: add --as with a role that may see them, and --purpose TEXT")
    match action:
        case "manifest":
            freeze = find(zones, names[0])
            said, about = [json.dumps(freeze.manifest, indent=1, sort_keys=True, ensure_ascii=False)], [freeze.run_id]
        case "replay":
            manifest = manifest_of(zones, names[0])
            said, about = [replay(zones, manifest)], [str(manifest[_RUN_ID])]
        case "compare":
            one, other = (find(zones, name) for name in names)
            said, about = list(compare(zones, one, other)), [one.run_id, other.run_id]
        case _:
            freeze = find(zones, names[0])
            said, about = why(zones, freeze, names[1]), [freeze.run_id]
    audit.record(zones, action, reader=reader.role, purpose=reader.purpose, project=reader.project, shown="exact", cohort_run_ids=about)
    print("\n".join(said))


def listed(zones: Zones) -> list[str]:
    """Every freeze, newest first; no counts."""
    if not duck.is_written(zones, "cohort_run"):
        return ["no cohort is frozen yet"]
    with duck.reader(zones) as connection:
        rows = duck.latest(connection, zones, "cohort_run").order("frozen DESC, cohort_run_id")
        found = rows.project("cohort_run_id, cohort_id, unit, release, frozen").fetchall()
    return [f"  {run_id[:_FEW]}  {at:%Y-%m-%d %H:%M}  {unit:<7}  {release:<20}  {name}" for run_id, name, unit, release, at in found]


def find(zones: Zones, name: str) -> Freeze:
    """A freeze by the id of its cohort (the newest of it), or by the first digits of its own, as `listed` shows them.

    Raises
    ------
    ConfigError
        There is none, or several begin so.
    """
    if not duck.is_written(zones, "cohort_run"):
        raise ConfigError("no cohort is frozen yet: run `pictures cohort freeze FILE` first")
    columns = "cohort_run_id, cohort_id, unit, release, content_sha256, spec, manifest"
    with duck.reader(zones) as connection:
        runs = duck.latest(connection, zones, "cohort_run").order("frozen DESC, cohort_run_id DESC").project(columns).fetchall()
        found = [row for row in runs if row[1] == name][:1]
        if not found and len(name) >= _FEW:
            found = [row for row in runs if row[0].startswith(name)]
        if len(found) != 1:
            raise ConfigError(f"{len(found) or 'no'} freezes are called {name!r}: `pictures cohort list` shows what there is")
        run_id, cohort_id, unit, release, content, spec, manifest = found[0]
        attrition = duck.latest(connection, zones, "cohort_attrition").filter(f"cohort_run_id = '{run_id}'").order("step_index")
        steps = tuple(attrition.project("step_id, sentence").fetchall())
    return Freeze(run_id, cohort_id, unit, release, content, spec, json.loads(manifest), steps)


def manifest_of(zones: Zones, name: str) -> dict[str, Any]:
    """A manifest from a file, or of a freeze.

    Raises
    ------
    ConfigError
        The file is no manifest that can be replayed.
    """
    path = Path(name)
    if not path.is_file():
        freeze = find(zones, name)
        return {"spec": freeze.spec} | freeze.manifest
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        needed = {_RUN_ID, "spec", "spec_sha256", "codelists", "release", "table_versions", "sql", "content_sha256"}
        missing = needed - set(manifest)
    except (ValueError, TypeError, OSError):
        raise ConfigError(f"{path} is not a manifest: give a file that `pictures cohort manifest` printed") from None
    if missing:
        raise ConfigError(f"manifest {path} lacks {', '.join(sorted(missing))}: it cannot be replayed")
    return dict(manifest)


def replay(zones: Zones, manifest: Mapping[str, Any]) -> str:
    """Ask a frozen question again of the table versions it was asked of.

    Raises
    ------
    InputError
        Versions of tables are gone; it says which.
    ChecksFailedError
        Other members are found than were frozen.
    """
    question, faults = yaml_face.read(manifest["spec"])
    if question is None or faults:
        raise ChecksFailedError("this version cannot read the question of the manifest: " + "; ".join(faults))
    codes = {
        name: Codes(name, said["system"], said["expand"], tuple(said["codes"]), said.get("version"))
        for name, said in manifest["codelists"].items()
    }
    changed = sorted(name for name, found in codes.items() if found.sha256 != manifest["codelists"][name]["sha256"])
    if changed:
        raise ChecksFailedError(f"the manifest was changed: the codes of {', '.join(changed)} do not have the hash that it says")
    plan = compiled(question, codes, {name: Saved(**one) for name, one in manifest.get("saved", {}).items()})
    release = Release(manifest["release"], {name: int(version) for name, version in manifest["table_versions"].items()})
    with duck.reader(zones) as connection:
        gone = list(_gone(connection, zones, release, plan.tables))
        if gone:
            raise InputError(f"the cohort cannot be replayed: {'; '.join(gone)}")
        found = duck.answer(connection, plan)
    if found.content_sha256 != manifest["content_sha256"]:
        other = "" if plan.sql(DIALECTS[0]) == manifest["sql"][DIALECTS[0]] else ", and this version asks it in other words"
        raise ChecksFailedError(
            f"the replay finds {found.members} members and not those that were frozen{other}: content {found.content_sha256[:_FEW]}, "
            f"frozen {manifest['content_sha256'][:_FEW]}"
        )
    return f"the same {found.members} members of {found.patients} patients, content {found.content_sha256}"


def _gone(connection: "duckdb.DuckDBPyConnection", zones: Zones, release: Release, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            duck.pin(connection, zones, release, (name,))
        except InputError as error:
            yield str(error)


def compare(zones: Zones, one: Freeze, other: Freeze) -> Iterator[str]:
    """What differs between two freezes of the same unit, and every unit that entered or left, with the step that decided.

    A unit entered because of the step that it did not survive in the first freeze, and left because of that in the second; or because it
    is not there at all.

    Raises
    ------
    ConfigError
        They are of different units.
    """
    if one.unit != other.unit:
        raise ConfigError(f"{one.name} is of {one.unit} and {other.name} of {other.unit}: only cohorts of one unit can be compared")
    with duck.reader(zones) as connection:
        for name, freeze in (("one", one), ("other", other)):
            mine = _flags(connection, zones, freeze)
            connection.execute(f"CREATE TEMP TABLE {name} AS {mine.sql_query()}")
        entered = _lost(connection, "one", "other", one, other)
        left = _lost(connection, "other", "one", other, one)
        both = connection.execute(
            f"SELECT COUNT(*) FROM one JOIN other USING (unit_id) WHERE one.passed = {_last(one)} AND other.passed = {_last(other)}"
        ).fetchone()
    yield from (f"from {one.name}", f"to   {other.name}")
    yield from (f"  {line}" for line in _changed(one, other))
    yield f"  {both[0] if both else 0} stayed, {len(entered)} entered, {len(left)} left"
    for word, rows in (("entered", entered), ("left", left)):
        reasons: dict[str, int] = {}
        for _, reason in rows:
            reasons[reason] = reasons.get(reason, 0) + 1
        yield from (f"  {word}: {n:,} {reason}" for reason, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    for word, rows in (("entered", entered), ("left", left)):
        yield from (f"{word:<7}  {unit_id}  {reason}" for unit_id, reason in rows)


def _flags(connection: "duckdb.DuckDBPyConnection", zones: Zones, freeze: Freeze) -> "duckdb.DuckDBPyRelation":
    """The answers that a freeze kept.

    Raises
    ------
    ConfigError
        It was made before answers were kept.
    """
    if "levels" not in freeze.manifest:
        raise ConfigError(f"{freeze.name} was frozen by an earlier version, which kept no answers: freeze the question again")
    return duck.latest(connection, zones, "cohort_flag").filter(f"cohort_run_id = '{freeze.run_id}'")


def _last(freeze: Freeze) -> int:
    return len(freeze.steps) - 1


def _lost(connection: "duckdb.DuckDBPyConnection", lost: str, kept: str, of: Freeze, by: Freeze) -> list[tuple[str, str]]:
    """Members of one freeze that are none of the other, with why they are not."""
    rows = connection.execute(
        f"SELECT {kept}.unit_id, {lost}.passed, {lost}.unknowns FROM {kept} LEFT JOIN {lost} USING (unit_id) "
        f"WHERE {kept}.passed = {_last(by)} AND ({lost}.passed IS NULL OR {lost}.passed < {_last(of)}) ORDER BY 1"
    ).fetchall()
    return [(unit_id, _reason(of, passed, unknowns)) for unit_id, passed, unknowns in rows]


def _reason(freeze: Freeze, passed: int | None, unknowns: int) -> str:
    where = f"in {freeze.run_id[:_FEW]}"
    if passed is None:
        return f"not there {where}"
    answer = "unknown" if unknowns & (1 << (passed + 1)) else "no"
    return f"{answer} at step {freeze.steps[passed + 1][0]} {where}"


def _changed(one: Freeze, other: Freeze) -> list[str]:
    """What the two freezes were made of that differs."""
    a, b = one.manifest, other.manifest
    found = []
    if a["spec_sha256"] != b["spec_sha256"]:
        before, after = dict(one.steps), dict(other.steps)
        found += [f"step {name} is new: {after[name]}" for name in after if name not in before]
        found += [f"step {name} is gone: {before[name]}" for name in before if name not in after]
        found += [f"step {name} was: {before[name]} Now: {after[name]}" for name in before if name in after and before[name] != after[name]]
        found = found or ["the specification differs in what changes no step's sentence"]
    codes = {name: said["sha256"] for name, said in a["codelists"].items()}, {name: said["sha256"] for name, said in b["codelists"].items()}
    found += [f"code list {name} differs" for name in sorted(codes[0].keys() & codes[1].keys()) if codes[0][name] != codes[1][name]]
    then, now = a["table_versions"], b["table_versions"]
    moved = [
        f"{name} {then.get(name, '-')} to {now.get(name, '-')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if moved:
        found.append("table versions: " + ", ".join(moved))
    if a["versions"].get("code") != b["versions"].get("code"):
        found.append("another version of the code")
    return found or ["the same question of the same tables"]


def why(zones: Zones, freeze: Freeze, unit_id: str) -> list[str]:
    """What each step says of one unit, from the answers that were kept; a step behind the one that it was lost at is answered, too.

    Raises
    ------
    ConfigError
        The question was not asked of that unit.
    """
    with duck.reader(zones) as connection:
        found = _flags(connection, zones, freeze).filter(f"unit_id = {duck.quoted(unit_id)}").project("holds, unknowns, passed").fetchone()
    if found is None:
        raise ConfigError(f"the question of {freeze.name} was not asked of that {freeze.unit}: its release does not have it")
    holds, unknowns, passed = found
    last = _last(freeze)
    width = max(len(step_id) for step_id, _ in freeze.steps)
    verdict = "is in the cohort" if passed == last else f"was lost at step {freeze.steps[passed + 1][0]} of"
    said = [f"{freeze.unit} {unit_id} {verdict} {freeze.name}"]
    acts = {"pick", "sample", "split", "match"}
    for index, (step_id, sentence) in enumerate(freeze.steps):
        answer = "yes" if holds & (1 << index) else "unknown" if unknowns & (1 << index) else "no"
        if answer == "no" and step_id in acts and passed < index - 1:
            answer = "-"  # it acts on the survivors of all steps before it
        said.append(f"  {step_id:<{width}}  {answer:<7}  {sentence}")
    return said
