"""The disclosure gate: what is told, what is not, and what an attacker makes of it.

The attacks run against the gate itself, 10,000 times each. In every second trial the target is in the cohort. The attacker sees what was
told and guesses; the best guess for each thing that may be seen is learnt on one half of the trials and counted on the other. Where it is
said that the attacker knows others, these are known one by one with certainty.
"""

import hashlib
import inspect
import zlib
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from pictures_spark.cohort import gate
from pictures_spark.cohort.gate import Gate, History, cell, heaviest, policy, protected, total
from pictures_spark.errors import NotPermittedError, ZoneViolationError
from pictures_spark.zones import Zones

TRIALS = 10_000
LIMIT = 0.55


class Crowd:
    """A trial: fresh people, a gate with a fresh key, and a target who is in the cohort or not."""

    def __init__(self, rng, member):
        self.rng = rng
        self.gate = Gate(rng.bytes(32), History(), "one")
        self.anybody = self.people(1)
        self.target = self.anybody if member else self.people(0)

    def people(self, n):
        return self.rng.integers(0, 2**63, size=n, dtype=np.uint64)

    def some(self, low, high):
        return self.people(int(self.rng.integers(low, high)))

    def ask(self, *parts, project="one"):
        """People of the cohort among these."""
        self.gate.project = project
        return self.gate.people(cell(np.concatenate(parts)))

    def differ(self, *asked):
        """Whether numbers are all the same."""
        return len(set(asked)) > 1


def toggling_a_step(crowd):
    others = crowd.some(15, 150)
    return crowd.differ(crowd.ask(others, crowd.target), crowd.ask(others))


def toggling_it_first_without(crowd):
    others = crowd.some(15, 150)
    return crowd.differ(crowd.ask(others), crowd.ask(others, crowd.target))


def splitting_ranges(crowd):
    low, high = crowd.some(30, 120), crowd.some(30, 120)
    return (crowd.ask(low, high, crowd.target) or 0) - (crowd.ask(low) or 0) - (crowd.ask(high) or 0)


def splitting_into_many_ranges(crowd):
    parts = [crowd.people(45) for _ in range(4)]
    apart = sum(crowd.ask(part) or 0 for part in parts)
    return (crowd.ask(*parts, crowd.target) or 0) - apart


def complement(crowd):
    yes, no = crowd.some(30, 120), crowd.some(30, 120)
    everybody = crowd.ask(yes, no, crowd.anybody)
    return everybody - (crowd.ask(yes, crowd.target) or 0) - (crowd.ask(no, crowd.people(0) if len(crowd.target) else crowd.anybody) or 0)


def adding_a_stranger(crowd):
    others, stranger = crowd.some(15, 80), crowd.people(1)
    return crowd.differ(
        *(crowd.ask(*sets) for sets in ([others, crowd.target], [others, crowd.target, stranger], [others, stranger], [others]))
    )


def padding_to_the_minimum(crowd):
    """Knows nine members, and asks for them and the target."""
    return crowd.ask(crowd.people(policy().minimum - 1), crowd.target)


def padding_to_where_half_is_told(crowd):
    """Knows as many members as make it most uncertain whether a number is told."""
    return crowd.ask(crowd.people(policy().minimum + int(policy().margin)), crowd.target)


def padding_to_a_rounding_boundary(crowd):
    """Knows as many members as lie just below the next number that can be shown."""
    known = int(crowd.rng.integers(8, 40)) * policy().rounding + policy().rounding // 2
    return (crowd.ask(crowd.people(known), crowd.target) or 0) - known


def padding_a_difference(crowd):
    """Knows 24 of the members of an earlier answer, and asks for it without them and the target."""
    others, known = crowd.people(150), crowd.people(24)
    whole = crowd.ask(others, known, crowd.target)
    return whole, crowd.ask(others)


def known_members_beside_a_shown_number(crowd):
    """Knows nine members, and five more: where those 14 and the target are told, asks for the nine and the target."""
    nine, five = crowd.people(9), crowd.people(5)
    return crowd.ask(nine, five, crowd.target), crowd.ask(nine, crowd.target)


def asking_for_the_same_again(crowd):
    """Knows everybody but the target; asks ten times, in new orders, and takes the mean."""
    others = crowd.people(70)
    asked = []
    for _ in range(10):
        crowd.rng.shuffle(others)
        asked.append(crowd.ask(others, crowd.target) or 0)
    return sum(asked)


def samples_with_and_without(crowd):
    """Random samples of the members with the target and without, without knowing who else is in them."""
    seen = False
    for _ in range(3):
        sample = crowd.some(12, 70)
        pair = [crowd.target, crowd.people(0)]
        crowd.rng.shuffle(pair)
        seen |= crowd.differ(*(crowd.ask(sample, part) for part in pair))
    return seen


def walking_to_the_edge_of_likeness(crowd):
    """Takes members from an answer one after the other until the number changes; then the target."""
    others = crowd.people(90)
    said = [crowd.ask(others, crowd.target)]
    for n in (9, 15, 21):
        said.append(crowd.ask(others[n:], crowd.target))
        said.append(crowd.ask(others[n:]))
    return tuple(one == other for one, other in zip(said[1::2], said[2::2], strict=True))


def two_colluding_users(crowd):
    """One asks for the cohort, the other for the cohort without the target; then parts of it, crosswise."""
    low, high = crowd.some(40, 90), crowd.some(40, 90)
    one = crowd.ask(low, high, crowd.target, project="one"), crowd.ask(low, project="one")
    other = crowd.ask(low, high, project="other"), crowd.ask(high, crowd.target, project="other")
    return crowd.differ(one[0], other[0]), (one[0] or 0) - (one[1] or 0) - (other[1] or 0)


ATTACKS = [
    found for found in list(globals().values()) if inspect.isfunction(found) and list(inspect.signature(found).parameters) == ["crowd"]
]


def right(outcomes, members):
    """Share of right guesses, each by the more frequent truth of the same outcome in the other half of the trials."""
    seen = [defaultdict(lambda: [0, 0]), defaultdict(lambda: [0, 0])]
    # Halves that are the same in number of members, whatever the order of the trials.
    half = [(i // 2) % 2 for i in range(len(members))]
    for outcome, member, side in zip(outcomes, members, half, strict=True):
        seen[side][outcome][member] += 1
    guesses = [seen[1 - side][outcome] for outcome, side in zip(outcomes, half, strict=True)]
    return sum((yes > no) == member if yes != no else 0.5 for (no, yes), member in zip(guesses, members, strict=True)) / len(members)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attacker_guesses_no_better_than_by_chance(attack):
    rng = np.random.default_rng(zlib.crc32(attack.__name__.encode()))
    members = [trial % 2 == 1 for trial in range(TRIALS)]
    outcomes = [attack(Crowd(rng, member)) for member in members]
    assert right(outcomes, members) <= LIMIT


def test_the_judge_of_the_attacks_sees_a_leak():
    members = [trial % 2 == 1 for trial in range(TRIALS)]
    assert right(members, members) == 1.0
    rng = np.random.default_rng(1)
    leaky = [member and rng.random() < 0.3 for member in members]
    assert 0.6 < right(leaky, members) < 0.7
    assert abs(right(rng.integers(0, 9, TRIALS), members) - 0.5) < 0.02


def test_without_the_history_the_same_attacks_succeed():
    """What the first rule is for: noise and rounding alone are undone by asking for neighbours."""
    rng = np.random.default_rng(1)
    members = [trial % 2 == 1 for trial in range(1000)]

    def forgetful(crowd):
        seen = False
        for _ in range(5):
            others = crowd.people(60)
            with_target = crowd.ask(others, crowd.target)
            crowd.gate.history = History()
            seen |= with_target != crowd.ask(others)
            crowd.gate.history = History()
        return seen

    assert right([forgetful(Crowd(rng, member)) for member in members], members) > 0.9


# What is told


def people(n, start=0):
    """Names of n people; any two calls agree."""
    return np.arange(start, start + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@pytest.fixture
def fresh():
    return Gate(b"k" * 32, History())


@pytest.mark.parametrize("n", range(policy().minimum))
def test_fewer_than_the_minimum_are_never_told(fresh, n):
    for key in range(200):
        assert Gate(bytes([key]) * 32, History()).people(cell(people(n))) is None


def test_every_number_is_rounded_and_at_least_the_minimum():
    told = [Gate(bytes([key]) * 32, History()).people(cell(people(n))) for key in range(40) for n in (10, 14, 20, 31, 55, 400)]
    shown = [value for value in told if value is not None]
    assert len(shown) > 80
    assert all(value % policy().rounding == 0 and value >= policy().minimum for value in shown)


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_numbers_are_near_the_truth(n):
    rest = [Gate(bytes([key]) * 32, History()).people(cell(people(n))) - n for key in range(200)]
    assert abs(np.mean(rest)) < 2
    assert np.std(rest) < 1.2 * policy().deviation
    assert max(map(abs, rest)) <= policy().at_most + policy().rounding


def test_a_number_is_the_same_for_every_user_on_every_way_and_with_any_history(fresh):
    asked = cell(people(80))
    said = fresh.people(asked)
    other = Gate(b"k" * 32, History(), "other project")
    for start in range(100, 800, 100):
        other.people(cell(people(60, start)))
    assert other.people(cell(people(80)[::-1])) == said == fresh.people(asked)
    assert len({Gate(bytes([key]) * 32, History()).people(asked) for key in range(20)}) > 1


def test_what_a_few_tell_apart_is_answered_alike_and_a_far_cell_is_not(fresh):
    said = fresh.people(cell(people(200)))
    assert {fresh.people(cell(people(n))) for n in range(194, 207)} == {said}
    far = [fresh.people(cell(people(n))) for n in (150, 300, 400)]
    assert all(abs(value - n) <= policy().at_most + policy().rounding for value, n in zip(far, (150, 300, 400), strict=True))


def test_many_small_changes_add_up(fresh):
    """A slider moved on by a dozen people at a time does not stay where it was."""
    said = [fresh.people(cell(people(n))) for n in range(200, 600, 15)]
    assert len(set(said)) > 8
    assert abs(said[-1] - 590) < 75


def test_a_sum_of_what_was_told_is_answered_by_the_sum(fresh):
    parts = [cell(people(60 + 7 * i, 1000 * i)) for i in range(6)]
    said = [fresh.people(part) for part in parts]
    every = np.concatenate([part.persons for part in parts])
    assert fresh.people(cell(every)) == sum(said)
    assert fresh.people(cell(np.concatenate([every, people(3, 90_000)]))) == sum(said)
    rest = np.concatenate([part.persons for part in parts[2:]])
    assert fresh.people(cell(rest)) == sum(said[2:])


def test_one_person_with_many_units_does_not_show(fresh):
    crowd = people(300)
    few, many = np.full(300, 2), np.where(np.arange(300) == 7, 5000, 2)
    most = heaviest(few)
    assert most == 2
    assert fresh.units("series", cell(crowd, few), most) == fresh.units("series", cell(crowd, many), most)
    assert abs(fresh.units("series", cell(crowd, many), most) - 600) <= 2 * (policy().at_most + policy().rounding)


def test_units_are_told_apart_though_their_people_are_the_same(fresh):
    crowd = people(300)
    told = [fresh.units("series", cell(crowd, np.full(300, n)), 4) for n in (4, 2, 1)]
    assert [abs(value - 300 * n) <= 4 * 25 for value, n in zip(told, (4, 2, 1), strict=True)] == [True, True, True]


def test_units_of_too_few_people_are_not_told(fresh):
    assert fresh.units("series", cell(people(5), np.full(5, 1000)), 1000) is None


def test_secondary_suppression_leaves_nothing_alone_in_its_line():
    assert protected([[50], [None], [30], [90]]) == [[50], [None], [None], [90]]
    assert protected([[50, 20, None], [60, 30, 70], [80, 40, 90]]) == [[50, None, None], [60, None, None], [80, 40, 90]]
    assert protected([[10, 20], [30, 40]]) == [[10, 20], [30, 40]]
    assert protected([[None]]) == [[None]]
    assert protected([]) == []
    rng = np.random.default_rng(4)
    for _ in range(200):
        rows, columns = rng.integers(1, 7, size=2)
        table = [[None if rng.random() < 0.2 else int(rng.integers(10, 99)) for _ in range(columns)] for _ in range(rows)]
        safe = protected(table)
        lines = [line for line in [*safe, *map(list, zip(*safe, strict=True))] if len(line) > 1]
        assert all(line.count(None) != 1 for line in lines)
        assert all(value in (None, before) for new, old in zip(safe, table, strict=True) for value, before in zip(new, old, strict=True))


def test_a_total_is_of_what_is_shown():
    assert total([20, None, None, 15]) == 35
    assert total([None, None]) is None


def test_the_policy_says_where_it_is_from():
    from pictures_spark.resources import load_schema

    declared = load_schema("disclosure.yaml")
    assert declared["cites"]
    assert policy().name == f"{declared['policy']}-{declared['version']}"
    assert (declared["minimum"], declared["rounding"]) == (10, 5)
    assert replace(policy(), minimum=5).never_told_from < policy().never_told_from


# What is kept


def test_the_history_is_there_for_the_next_process_and_for_other_projects(config):
    zones = Zones(config, "counter")
    with gate.Ledger(zones, "one") as told:
        said = [told.people(cell(people(n))) for n in (100, 5, 101)]
    with gate.Ledger(zones, "other") as told:
        assert [told.people(cell(people(n))) for n in (102, 6, 100)] == [said[0], None, said[0]]
        assert len(told.history.told["patient"]) == 5
    with gate.Ledger(zones, None) as told:
        assert Counter(entry.project for entry in told.history.told["patient"]) == {"one": 3, "other": 2}
        assert [entry.new for entry in told.history.told["patient"]] == [True, False, False, False, False]


def test_an_answer_is_kept_even_where_the_asker_fails_after_it(config):
    def asks_and_fails():
        with gate.Ledger(Zones(config, "counter"), None) as told:
            told.people(cell(people(100)))
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        asks_and_fails()
    with gate.Ledger(Zones(config, "counter"), None) as told:
        assert len(told.history.told["patient"]) == 1


def test_a_project_is_told_so_many_numbers_of_its_own_and_then_refused(config, monkeypatch):
    limited = replace(policy(), most_new=3)
    monkeypatch.setattr(gate, "policy", lambda: limited)
    zones = Zones(config, "counter")
    for start in (0, 1000, 2000):
        with gate.Ledger(zones, "one") as told:
            told.people(cell(people(90, start)))
            # What is like an earlier one, or as good as nobody, is no number of its own.
            told.people(cell(people(91, start)))
            told.people(cell(people(4, start)))
    with pytest.raises(NotPermittedError, match="project one had 3 numbers of its own"), gate.Ledger(zones, "one"):
        pass
    for other in ("two", None):
        with gate.Ledger(zones, other) as told:
            assert told.people(cell(people(90))) is not None


def test_only_those_who_may_use_the_gate_get_at_its_key(config):
    with gate.Ledger(Zones(config, "counter"), None) as told:
        told.people(cell(people(100)))
    for role in ("project", "extractor", "auditor", "identifiable"):
        with pytest.raises(ZoneViolationError):
            gate.Ledger(Zones(config, role, "demo"), None)
    key = config.home / "governance" / "gate.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(NotPermittedError, match="can be read by others"), gate.Ledger(Zones(config, "counter"), None):
        pass
    key.unlink()
    with pytest.raises(NotPermittedError, match="restore the key"), gate.Ledger(Zones(config, "counter"), None):
        pass


def test_what_is_kept_names_nobody(config):
    names = [hashlib.md5(bytes([i])).hexdigest() for i in range(60)]
    with gate.Ledger(Zones(config, "counter"), None) as told:
        keyed = gate.keyed_names(told.key, names)
        assert len(set(keyed)) == 60
        assert (keyed == gate.keyed_names(told.key, names)).all()
        assert not (keyed == gate.keyed_names(b"other", names)).any()
        told.people(cell(keyed))
    content = (config.home / "governance" / "answers.jsonl").read_text()
    assert not any(name in content for name in names)


def test_quite_different_cells_are_told_anew_and_near_the_truth_however_many_were_told(fresh):
    rng = np.random.default_rng(7)
    everybody = people(3000)
    asked = [cell(rng.choice(everybody, size=int(rng.integers(45, 500)), replace=False)) for _ in range(320)]
    said = [fresh.people(one) for one in asked]
    assert all(entry.new for entry in fresh.history.told["patient"])
    assert max(abs(value - len(one.persons)) for value, one in zip(said, asked, strict=True)) <= policy().at_most + policy().rounding


@pytest.mark.parametrize(("groups", "least", "most"), [(1, 0.50, 0.55), (9, 0.515, 0.63)])
def test_what_it_does_not_stop(groups, least, most):
    """Somebody who knows everybody else in many large groups asks for each of them with the target; docs/governance.md says so."""
    rng = np.random.default_rng(groups)
    members = [trial % 2 == 1 for trial in range(TRIALS // 10)]
    said = []
    for member in members:
        crowd = Crowd(rng, member)
        said.append(round(sum(crowd.ask(crowd.people(60), crowd.target) - 60 for _ in range(groups)) / 15))
    share = right(said, members)
    print(f"with {groups} groups right in {share:.1%}")
    assert least < share < most
