"""From a policy and the standard's table to one action per DICOM attribute.

What enters: conf/deid/<policy>.yaml and schemas/deid/. What leaves: a :class:`Plan`, which says of any tag what happens to it and why.
Pure; made once per process, on the driver and on executors alike.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from pictures_spark.deid.dicom_overlays import GROUPS, STAYING
from pictures_spark.errors import ConfigError
from pictures_spark.resources import conf_dir, load_schema, load_yaml


class Action(StrEnum):
    """What happens to an attribute."""

    KEEP = "keep"  # if its value has the form of its value representation and holds no identifier
    REMOVE = "remove"
    EMPTY = "empty"  # type 2: present without a value
    DUMMY = "dummy"  # type 1: the policy's fixed text
    UID = "uid"  # mapped, unless it names a registered class or scheme
    SHIFT = "shift"  # date moved by the patient's offset
    RECURSE = "recurse"  # a sequence whose items are treated in turn
    PATIENT = "patient"  # the project's pseudonym of the person
    ACCESSION = "accession"  # the project's pseudonym of the request
    CLEAN = "clean"  # text without identifiers, as the policy's rule for text says
    AGE = "age"  # ages above the policy's limit become the limit


@dataclass(frozen=True)
class Decision:
    """What happens to one attribute, why, and who says so."""

    action: Action
    reason: str
    source: str


_REMOVE_UNKNOWN = Decision(Action.REMOVE, "not a standard attribute", "policy default")
_KEEP_PRIVATE = Decision(Action.KEEP, "on the list of safe private attributes of its creator", "policy private; PS3.15 E.3.10")
_REMOVE_PRIVATE = Decision(Action.REMOVE, "private", "PS3.15 Table E.1-1, X")
_KEEP_OVERLAY = Decision(Action.KEEP, "where the image's overlays were read and hold no text", "PS3.15 Table E.1-1, X, graphics C")
_REMOVE_OVERLAY = Decision(Action.REMOVE, "overlay", "PS3.15 Table E.1-1, X")
_TIME_VRS = ("DA", "DT", "TM")
_TEXT_VRS = ("LO", "SH", "ST", "LT", "UT", "UC", "PN")
# What text can be cleaned: a person's name cannot, it would be gone as a whole.
_CLEANABLE_VRS = ("LO", "SH", "ST", "LT", "UT", "UC")
# Private data that may stay: numbers and codes, never bytes or sequences, and no text without a pattern.
_PRIVATE_VRS = ("CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "SH", "LO")
TEXT_RULES = ("vocabulary", "scrub")
_OBJECT_RULES = {"structured_reports": ("withhold", "clean"), "encapsulated": ("withhold",)}
_SECTIONS = {
    "policy": str,
    "version": str,
    "standard": str,
    "options": list,
    "by_vr": dict,
    "bulk": list,
    "overrides": dict,
    "required": dict,
    "dummy": str,
    "text": str,
    "objects": dict,
    "pixels": dict,
    "private": dict,
    "accept": dict,
    "classes": list,
    "private_classes": list,
    "instances": list,
    "identifiers": list,
    "limits": dict,
    "written": dict,
}


@dataclass(frozen=True)
class Plan:
    """A compiled policy: ``decide(tag)`` for every tag, and the lists that treating values needs.

    Examples
    --------
    >>> load_plan("default").decide(0x00100030).action
    <Action.EMPTY: 'empty'>
    >>> load_plan("default").decide(0x00091010).reason
    'not a standard attribute'
    """

    policy: dict[str, Any]
    table: dict[int, tuple[str, dict[str, str]]]
    bulk: frozenset[int]
    overrides: dict[int, tuple[Action, str, frozenset[str]]]
    required: dict[int, Action]
    accept: dict[int, re.Pattern[str]]
    classes: frozenset[int]
    instances: frozenset[int]
    identifiers: frozenset[int]
    private_classes: frozenset[str]
    image_classes: frozenset[str]
    private: dict[tuple[str, int, int], tuple[str, re.Pattern[str] | None]]
    fingerprint: str
    sop_class: str = ""
    _decided: dict[int, Decision] = field(default_factory=dict, repr=False, compare=False)
    _by_class: dict[str, "Plan"] = field(default_factory=dict, repr=False, compare=False)
    # What those who act by the plan make of a tag; a plan made from another has its own.
    remembered: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name and version of the policy, as written into every file."""
        return f"{self.policy['policy']} {self.policy['version']}"

    def for_class(self, sop_class: str) -> "Plan":
        """The plan for objects of a SOP class: overrides that are for some classes only hold in these."""
        plan = self._by_class.get(sop_class)
        if plan is None:
            plan = self._by_class[sop_class] = replace(self, sop_class=sop_class, _decided={}, _by_class=self._by_class)
        return plan

    @cached_property
    def variant(self) -> tuple[bool, frozenset[int]]:
        """What tells the plans of two SOP classes apart: whether it is a report, and the overrides that are for some classes only."""
        only = frozenset(tag for tag, (_, _, classes) in self.overrides.items() if self.sop_class in classes)
        return self.sop_class.startswith("1.2.840.10008.5.1.4.1.1.88."), only

    def decide_private(self, creator: str, tag: int) -> Decision:
        """What happens to a private element, by the creator of its block."""
        if "safe_private" in self.policy["options"] and (creator, tag >> 16, tag & 0xFF) in self.private:
            return _KEEP_PRIVATE
        return _REMOVE_PRIVATE

    def decide_overlay(self, tag: int) -> Decision:
        """What happens to an element of an overlay (group 60xx) with data of its own; `pictures_spark.deid.dicom_overlays` does it."""
        kept = "graphics" in self.policy["options"] and tag >> 16 in GROUPS and tag & 0xFFFF in STAYING
        return _KEEP_OVERLAY if kept else _REMOVE_OVERLAY

    def decide(self, tag: int) -> Decision:
        """What happens to an attribute, by its tag alone; its value may still be refused (`pictures_spark.deid.act`)."""
        decision = self._decided.get(tag)
        if decision is None:
            decision = self._decided[tag] = self._decide(tag)
        return decision

    def _decide(self, tag: int) -> Decision:
        # Repeating groups (curves, overlays) and group lengths are not in the plain dictionary, nor is anything private.
        known = DicomDictionary.get(tag)
        if known is None or tag >> 16 < 0x0008 or (tag >> 16) & 1:
            return _REMOVE_UNKNOWN
        vr = known[0].split(" or ")[0]
        if tag in self.overrides:
            action, why, only = self.overrides[tag]
            if not only or self.sop_class in only:
                return Decision(action, why, "policy override")
        if tag in self.bulk:
            return Decision(Action.KEEP, "pixels, or a table that makes them visible", "policy bulk")
        if tag in self.table:
            return self._by_table(tag, vr, *self.table[tag])
        action = Action(self.policy["by_vr"].get(vr, "remove"))
        if action is Action.REMOVE:
            return self._unless_required(tag, "its value representation can hold text", "policy by_vr")
        return Decision(action, f"value representation {vr}", "policy by_vr")

    def _by_table(self, tag: int, vr: str, basic: str, options: dict[str, str]) -> Decision:
        source = f"PS3.15 Table E.1-1, {basic}"
        for option in self.policy["options"]:
            chosen = options.get(option)
            if option == "modified_dates" and chosen == "C" and vr in _TIME_VRS:
                # Offsets are whole days, so a time of day stays what it was.
                return Decision(Action.KEEP if vr == "TM" else Action.SHIFT, "intervals between dates are kept", f"{source}, {option} C")
            if chosen is not None and option != "modified_dates":
                action = self._of_option(option, chosen, vr)
                if action is not None:
                    return Decision(action, f"option {option}", f"{source}, {option} {chosen}")
        if basic == "X/Z/U*":
            return Decision(Action.RECURSE, "references to other images, with their UIDs mapped", source)
        if basic == "U":
            return Decision(Action.UID, "names an instance", source)
        if basic == "Z":
            return Decision(Action.EMPTY, "identifying", source)
        if basic == "D" and vr in _TEXT_VRS:
            return Decision(Action.DUMMY, "identifying, and required", source)
        return self._unless_required(tag, "identifying", source)

    def _of_option(self, option: str, chosen: str, vr: str) -> Action | None:
        """What an option that replaces the basic action means for a VR; None where it cannot be had."""
        if option in ("uids", "full_dates") and chosen == "K":
            return Action.KEEP
        if vr == "AS":
            return Action.AGE
        if vr in _CLEANABLE_VRS:
            # Text that may be retained may still hold what may not.
            return Action.CLEAN
        return Action(self.policy["by_vr"][vr]) if vr in self.policy["by_vr"] else None

    def _unless_required(self, tag: int, reason: str, source: str) -> Decision:
        if tag in self.required:
            return Decision(self.required[tag], f"{reason}; image objects must have it", source)
        return Decision(Action.REMOVE, reason, source)


@cache
def load_plan(policy: str) -> Plan:
    """Compile conf/deid/<policy>.yaml.

    Raises
    ------
    ConfigError
        The policy is missing or faulty; all faults in one message.
    """
    path = conf_dir() / "deid" / f"{policy}.yaml"
    if not path.is_file():
        raise ConfigError(f"de-identification policy {policy!r} does not exist: add conf/deid/{policy}.yaml")
    return compile_plan(_extended(load_yaml(path)))


def _extended(values: dict[str, Any]) -> dict[str, Any]:
    """A policy with the sections it takes from the one that it ``extends``: maps are laid over its maps, anything else replaces."""
    if "extends" not in values:
        return values
    path = conf_dir() / "deid" / f"{values['extends']}.yaml"
    if not path.is_file():
        raise ConfigError(f"de-identification policy: extends: conf/deid/{values['extends']}.yaml does not exist")
    below = dict(_extended(load_yaml(path)))
    for name, value in values.items():
        if name != "extends":
            below[name] = {**below[name], **value} if isinstance(value, dict) and isinstance(below.get(name), dict) else value
    return below


def compile_plan(values: dict[str, Any]) -> Plan:
    """Compile the content of a policy file.

    Raises
    ------
    ConfigError
        A section is missing or of the wrong kind, a keyword is not DICOM's, or an action is not known; all faults in one message.
    """
    faults = [f"{name}: needs to be a {kind.__name__}" for name, kind in _SECTIONS.items() if not isinstance(values.get(name), kind)]
    faults += [f"{name}: not a section of a policy" for name in values if name not in _SECTIONS]
    if faults:
        raise ConfigError("de-identification policy: " + "; ".join(faults))

    def tags(section: str) -> dict[int, Any]:
        entries = values[section]
        found = {}
        for keyword in entries:
            tag = tag_for_keyword(keyword)
            if tag is None:
                faults.append(f"{section}: {keyword} is not a DICOM keyword")
            else:
                found[int(tag)] = entries[keyword] if isinstance(entries, dict) else None
        return found

    def action(section: str, value: str) -> Action:
        try:
            return Action(value)
        except ValueError:
            faults.append(f"{section}: {value!r} is not one of {', '.join(Action)}")
            return Action.REMOVE

    standard = load_schema(f"deid/{values['standard']}.yaml")
    table = {
        int(tag, 16): (row[1], row[2] if len(row) > 2 else {})
        for tag, row in standard["attributes"].items()
        if tag != "private" and "x" not in tag
    }
    offered = {option for row in standard["attributes"].values() for option in (row[2] if len(row) > 2 else ())}
    faults += [f"options: {o!r} is not one of {', '.join(sorted(offered))}" for o in values["options"] if o not in offered]
    if {"full_dates", "modified_dates"} <= set(values["options"]):
        faults.append("options: full_dates and modified_dates contradict each other")
    if values["text"] not in TEXT_RULES:
        faults.append(f"text: {values['text']!r} is not one of {', '.join(TEXT_RULES)}")
    for kind, rules in _OBJECT_RULES.items():
        if values["objects"].get(kind) not in rules:
            faults.append(f"objects: {kind} is not one of {', '.join(rules)}")
    overrides = {
        tag: (action("overrides", entry["action"]), entry["why"], frozenset(entry.get("only", ())))
        for tag, entry in tags("overrides").items()
    }
    faults += _pixel_faults(values["pixels"])
    private = _private(values["private"], faults)
    required = {tag: action("required", entry) for tag, entry in tags("required").items()}
    for vr, entry in values["by_vr"].items():
        action(f"by_vr: {vr}", entry)
    plan = Plan(
        policy=values,
        table=table,
        bulk=frozenset(tags("bulk")),
        overrides=overrides,
        required=required,
        accept={tag: re.compile(pattern) for tag, pattern in tags("accept").items()},
        classes=frozenset(tags("classes")),
        instances=frozenset(tags("instances")),
        identifiers=frozenset(tags("identifiers")),
        private_classes=frozenset(values["private_classes"]),
        image_classes=frozenset(load_schema("deid/image_sop_classes.yaml")),
        private=private,
        fingerprint=hashlib.sha256(json.dumps([values, standard], sort_keys=True).encode()).hexdigest(),
    )
    if faults:
        raise ConfigError("de-identification policy: " + "; ".join(faults))
    return plan


def _pixel_faults(declared: dict[str, Any]) -> list[str]:
    """What is wrong with section ``pixels``."""
    faults = [f"pixels: {name} is not one of its settings" for name in declared if name not in ("rectangles", "outside_ultrasound_regions")]
    if declared.get("outside_ultrasound_regions") not in ("keep", "blank"):
        faults.append("pixels: outside_ultrasound_regions is not one of keep, blank")
    rules = declared.get("rectangles")
    for rule in rules if isinstance(rules, list) else [{}]:
        match, box = rule.get("match"), rule.get("box")
        named = isinstance(match, dict) and match and all(tag_for_keyword(keyword) is not None for keyword in match)
        sized = (
            isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int) for edge in box) and box[0] < box[2] and box[1] < box[3]
        )
        if not named or not sized:
            faults.append("pixels: a rectangle needs match (DICOM keywords to patterns) and box [x0, y0, x1, y1]")
    return faults


def _private(declared: dict[str, Any], faults: list[str]) -> dict[tuple[str, int, int], tuple[str, re.Pattern[str] | None]]:
    """(creator, group, element within the block) -> (VR, pattern that a text must have)."""
    found = {}
    for creator, elements in declared.items():
        for place, entry in elements.items():
            match = re.fullmatch(r"([0-9A-F]{3}[13579BDF]),xx([0-9A-F]{2})", place)
            vr, _, pattern = entry.partition(" ")
            if match is None:
                faults.append(f"private: {creator}: {place!r} is not of the form gggg,xxee with an odd group")
            elif vr not in _PRIVATE_VRS or (vr in _CLEANABLE_VRS) != bool(pattern):
                faults.append(f"private: {creator}: {place}: needs a VR among {', '.join(_PRIVATE_VRS)}, and a pattern where it is text")
            else:
                found[creator, int(match[1], 16), int(match[2], 16)] = (vr, re.compile(pattern) if pattern else None)
    return found
