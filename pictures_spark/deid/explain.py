"""``pictures deid``: a policy as people read it - one attribute explained, the whole plan as a table, a script of CTP brought over.

What enters: a compiled policy, a tag or path, a script. What leaves: text. No data of anybody; driver.
"""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import tag_for_keyword

from pictures_spark.deid.plan import Action, Decision, Plan, load_plan
from pictures_spark.errors import ConfigError

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s?([0-9A-Fa-f]{4})\)?")
_PRIVATE = re.compile(r"\(?([0-9A-Fa-f]{4}),?\s?(?:xx)?([0-9A-Fa-f]{2}),?\s?\"?([^\")]+)\"?\)?")
# Elements of overlays, in the first of their groups.
_OVERLAYS = {row[4]: int(mask.replace("xx", "00"), 16) for mask, row in RepeatersDictionary.items() if mask.startswith("60xx")}
# CTP's element functions and what they are here; anything else is reported.
_FUNCTIONS = {
    "keep": "",
    "remove": "remove",
    "empty": "empty",
    "require": "empty",
    "hashuid": "uid",
    "hashdate": "shift",
    "incrementdate": "shift",
    "modifydate": "shift",
    "hash": "remove",
    "hashname": "remove",
    "hashptid": "patient",
    "ptid": "patient",
    "lookup": "remove",
}


def explain(plan: Plan, name: str) -> str:
    """What happens to an attribute: action, reason and source, for each step of a path.

    ``name`` is a keyword, a tag (``0010,0010``), a private attribute (``0019,xx0C,SIEMENS MR HEADER``), or a path of them with dots,
    such as ``SharedFunctionalGroupsSequence.FrameComments``.

    Raises
    ------
    ConfigError
        A step is no attribute.

    Examples
    --------
    >>> print(explain(load_plan("default"), "PatientBirthDate"))
    (0010,0030) PatientBirthDate: empty - identifying [PS3.15 Table E.1-1, Z]
    """
    steps = [name] if _PRIVATE.fullmatch(name) and not _TAG.fullmatch(name) else name.split(".")
    lines = []
    for place, step in enumerate(steps):
        label, decision = _decision(plan, step)
        lines.append(f"{label}: {decision.action} - {decision.reason} [{decision.source}]")
        if place < len(steps) - 1 and decision.action is not Action.RECURSE:
            lines.append(f"what is inside goes with it: {decision.action}")
            break
    return "\n".join(lines)


def _decision(plan: Plan, step: str) -> tuple[str, Decision]:
    match = _TAG.fullmatch(step)
    if match is None and (private := _PRIVATE.fullmatch(step)) is not None and int(private[1], 16) & 1:
        tag = int(private[1], 16) << 16 | 0x1000 | int(private[2], 16)
        return f'({private[1].upper()},xx{private[2].upper()},"{private[3]}")', plan.decide_private(private[3], tag)
    tag = int(match[1] + match[2], 16) if match is not None else int(tag_for_keyword(step) or _OVERLAYS.get(step, 0))
    if not tag:
        raise ConfigError(f"{step!r} is neither a DICOM keyword nor a tag such as 0010,0010")
    if tag >> 24 == 0x60:
        keyword = next((name for name, known in _OVERLAYS.items() if known & 0xFFFF == tag & 0xFFFF), "unknown")
        return f"(60xx,{tag & 0xFFFF:04X}) {keyword}", plan.decide_overlay(tag)
    keyword = DicomDictionary[tag][4] if tag in DicomDictionary else "private" if tag >> 16 & 1 else "unknown"
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword}", plan.decide(tag)


class Row(NamedTuple):
    """One attribute of a compiled plan."""

    tag: str
    keyword: str
    vr: str
    action: str
    reason: str
    source: str


def rows(plan: Plan) -> Iterator[Row]:
    """Every attribute of the standard's dictionary and of the private list, by tag."""
    for tag, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
        decision = plan.decide(tag)
        yield Row(f"({tag >> 16:04X},{tag & 0xFFFF:04X})", keyword, vr, str(decision.action), decision.reason, decision.source)
    for keyword, tag in _OVERLAYS.items():
        decision = plan.decide_overlay(tag)
        vr = RepeatersDictionary[f"60xx{tag & 0xFFFF:04X}"][0]
        yield Row(f"(60xx,{tag & 0xFFFF:04X})", keyword, vr, str(decision.action), decision.reason, decision.source)
    for creator, group, element in sorted(plan.private):
        decision = plan.decide_private(creator, group << 16 | element)
        vr = plan.private[creator, group, element][0]
        yield Row(f"({group:04X},xx{element:02X})", creator, vr, str(decision.action), decision.reason, decision.source)


def _pixel_rules(pixels: dict[str, Any]) -> list[str]:
    """What the policy blanks whatever text recognition says."""
    rules = [f"- `{rule['box']}` where {', '.join(f'{k} is `{v}`' for k, v in rule['match'].items())}" for rule in pixels["rectangles"]]
    around = {"keep": "kept", "blank": "blanked"}[pixels["outside_ultrasound_regions"]]
    said = "Rectangles that are always blanked:" if rules else "No rectangle is always blanked (`rectangles`)."
    return [said, *rules, "", f"What lies around the regions of ultrasound images is {around} (`outside_ultrasound_regions`)."]


def _overlays_said(plan: Plan) -> str:
    return "kept where they were read and hold no text" if "graphics" in plan.policy["options"] else "removed"


def page(plan: Plan) -> str:
    """The plan as a page of docs/: every attribute that somebody decided upon, and what its value representation decides for the rest."""
    everything = list(rows(plan))
    by_vr = Counter((row.vr, row.action) for row in everything if row.source == "policy by_vr")
    lines = [
        f"# De-identification plan: {plan.name}",
        "",
        "Generated from `conf/deid/` and `schemas/deid/` by `make docs`; change it there. `pictures deid explain <keyword>` tells of one",
        "attribute, `pictures deid plan` of all. An attribute that the standard's dictionary does not have is removed, and so is every",
        "private attribute that is not listed here.",
        "",
        f"Options of PS3.15 Table E.1-1: {', '.join(plan.policy['options'])}. Text is cleaned by rule `{plan.policy['text']}`.",
        "",
        "## Pixels",
        "",
        "| pixels | without boxes | with boxes |",
        "|---|---|---|",
        "| native | copied, little endian, cut to the length that the header implies | blanked in place |",
        "| RLE; JPEG-LS and JPEG 2000 lossless, grey | copied, without comments | frames with boxes encoded anew, without loss |",
        "| any other compression | copied, without comments | decoded once, to the pixels' own size; what was lost stays declared |",
        f"| overlays | {_overlays_said(plan)} | {_overlays_said(plan)} |",
        "| curves, icons | removed | removed |",
        "",
        *_pixel_rules(plan.policy["pixels"]),
        "",
        "## By value representation, where neither the standard's table nor the policy names the attribute",
        "",
        "| VR | action | attributes |",
        "|---|---|---|",
        *(f"| {vr} | {action} | {count:,} |" for (vr, action), count in sorted(by_vr.items())),
        "",
        "## By attribute",
        "",
        "| tag | keyword or private creator | VR | action | reason | says |",
        "|---|---|---|---|---|---|",
    ]
    named = (row for row in everything if row.source not in ("policy by_vr", "policy default"))
    lines += [f"| {row.tag} | {row.keyword} | {row.vr} | {row.action} | {row.reason} | {row.source} |" for row in named]
    return "\n".join(lines) + "\n"


class Imported(NamedTuple):
    """A policy file made of a script, and what of it could not be carried, one line each."""

    policy: dict[str, Any]
    left: list[str]


def from_ctp(script: str) -> Imported:
    """A policy, over the default one, of a script of CTP's DICOM anonymizer (XML, or lines ``set.[gggg,eeee]Name=@function()``).

    Only what a script says of single attributes is carried, and never more laxly than the default policy has it: ``@keep`` of text means
    that it is cleaned, of dates that they are moved, of UIDs that they are mapped. Whole groups, conditions and constants are reported.

    Raises
    ------
    ConfigError
        The text is no such script.
    """
    entries, left = _entries(script)
    if not entries and not left:
        raise ConfigError("the file is no script of CTP's DICOM anonymizer: it has no element with an action")
    default = load_plan("default")
    overrides: dict[str, dict[str, str]] = {}
    private: dict[str, dict[str, str]] = {}
    for place, name, text in entries:
        where = f"{place} {name}".strip()
        match = _TAG.fullmatch(place)
        function = re.fullmatch(r"\s*@?([a-zA-Z]*)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
        action = _FUNCTIONS.get(function[1].lower()) if function is not None and function[1] else ("empty" if not text.strip() else None)
        if match is None:
            left.append(f"{where}: no single standard attribute; {_quoted(text)}")
            continue
        tag = int(match[1] + match[2], 16)
        if action is None:
            left.append(f"{where}: {_quoted(text)} has no counterpart; the default policy's {default.decide(tag).action} holds")
            continue
        if tag >> 16 & 1:
            if action != "remove":
                left.append(f"{where}: private attributes are kept by creator only; list it under `private`")
            continue
        if tag not in DicomDictionary:
            left.append(f"{where}: not in the standard's dictionary; removed")
            continue
        keyword, vr = DicomDictionary[tag][4], DicomDictionary[tag][0].split(" or ")[0]
        made = _no_laxer(default, tag, vr, action)
        if action == "" and made is None:
            left.append(f"{where}: @keep() is not carried, the default policy has it {default.decide(tag).action}")
        elif made is not None and made != str(default.decide(tag).action):
            overrides[keyword] = {"action": made, "why": "script of CTP"}
            if action == "" and made not in ("keep", "recurse"):
                left.append(f"{where}: @keep() is carried as {made}")
    policy: dict[str, Any] = {"extends": "default", "policy": "imported", "version": "1", "overrides": overrides}
    if private:
        policy["private"] = private
    return Imported(policy, left)


def _no_laxer(default: Plan, tag: int, vr: str, action: str) -> str | None:
    """The action that carries a script's; None where the default policy's own must hold."""
    if default.decide(tag).action in (Action.PATIENT, Action.ACCESSION) or tag in default.instances:
        return None
    if action != "":
        if action == "shift" and vr not in ("DA", "DT"):
            return "remove"
        return "remove" if action == "uid" and vr != "UI" else action
    if vr in ("LO", "SH", "ST", "LT", "UT", "UC"):
        return "clean"
    kept = default.policy["by_vr"].get(vr)
    return str(kept) if kept is not None else None


def _entries(script: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(tag, name, function) of every element that has one, and what else the script says."""
    left = []
    try:
        root = ET.fromstring(script)
    except ET.ParseError:
        found = re.findall(r"(?m)^\s*set\.(\[[0-9A-Fa-f]{4},?[0-9A-Fa-f]{4}\])(\w*)\s*=(.*)$", script)
        lines = re.findall(r"(?m)^\s*(keep\.\S+|remove\.\S+|param\.\S+)", script)
        return [(place.strip("[]"), name, text) for place, name, text in found], [f"{line}: not of a single attribute" for line in lines]
    entries = []
    for element in root:
        enabled = element.get("en", "T") == "T"
        if element.tag == "e" and enabled:
            entries.append((element.get("t", ""), element.get("n", ""), element.text or ""))
        elif element.tag in ("k", "r") and enabled:
            verb = {"k": "keep", "r": "remove"}[element.tag]
            left.append(f"{verb} {element.get('t', '')}: whole groups are not carried; unlisted attributes are as in the default policy")
        elif element.tag == "p":
            left.append(f"parameter {element.get('t', '')}: not carried; keys and offsets are the project's")
    return entries, left


def _quoted(text: str) -> str:
    """The function's name, without its arguments: constants of a script may hold anything."""
    name = re.match(r"\s*@[a-zA-Z]+", text)
    return f"{name[0].strip()}()" if name else "a constant"


def print_explanation(policy: str, name: str) -> None:
    """``pictures deid explain``."""
    print(explain(load_plan(policy), name))


def print_plan(policy: str) -> None:
    """``pictures deid plan``: tab-separated, for grep and spreadsheets."""
    print("\t".join(Row._fields))
    for row in rows(load_plan(policy)):
        print("\t".join(row))


def print_import(path: str) -> None:
    """``pictures deid import-ctp``: the policy, and as comments what was not carried."""
    try:
        script = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError("the script cannot be read: name a text file of CTP's DICOM anonymizer") from None
    imported = from_ctp(script)
    print("# Save as conf/deid/<policy>.yaml and change `policy`.")
    for line in imported.left:
        print(f"# not carried: {line}")
    print(yaml.safe_dump(imported.policy, sort_keys=False), end="")
