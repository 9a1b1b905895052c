"""Every rule of the language has a question that breaks it, and a sentence that says what to do. All faults are told at once."""

import pytest

from pictures_spark.cohort import check, yaml_face
from pictures_spark.cohort.commands import load
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.errors import ConfigError

STROKE = "codelists: {stroke: {system: icd10, codes: [I63]}}"
HAS = "event: diagnosis, codes: stroke, window: [-9d, 0d]"


def question(steps="{id: ct, where: {modality: CT}}", unit="series", more="", **given):
    head = {"cohort": "1", "id": "x", "unit": unit} | given
    return "{" + ", ".join([*(f"{k}: {v}" for k, v in head.items() if v is not None), f"steps: [{steps}]", *([more] if more else [])]) + "}"


def where(condition, **given):
    return question(f"{{id: s, where: {{{condition}}}}}", **given)


def related(condition, **given):
    return question(f"{{id: s, related: {{{condition}}}}}", **given)


def event(condition, word="has", codelists=STROKE, **given):
    return question(f"{{id: s, {word}: {{{condition}}}}}", more=codelists or None, **given)


def output(text, **given):
    return question(more=f"output: [{{id: o, {text}}}]", **given)


def step(text, **given):
    return question(f"{{id: s, {text}}}", **given)


def pick(text, **given):
    return question("{id: s, where: {sex: F}}", more=f"pick: {{{text}}}, index: 2016-01-01", **given)


CASES = "cases: a, level: patient, ratio: 4, seed: a"
REFUSED = {
    # the whole
    "not a mapping": ("[1, 2]", "must be a mapping that starts with cohort: 1"),
    "not YAML": ("{cohort: 1", "not valid YAML \\(line 1\\)"),
    "a key twice": ("cohort: 1\nid: a\nid: b\n", "not valid YAML \\(line 3\\): id is given twice"),
    "control character": ("cohort: \x07", "a character that YAML does not allow"),
    "another version": (question(cohort="2"), "cohort: '2' is no version of the language; this one reads cohort: 1"),
    "no version": (question(cohort=None), "needs cohort"),
    "no unit": (question(unit=None), "needs unit"),
    "unknown unit": (question(unit="serie"), "unit: unknown value 'serie', did you mean series\\?"),
    "bad id": (question(id="CT_Head"), "id: 'CT_Head' must be lower-case"),
    "id that leaves its folder": (question(id="../x"), "id: '../x' must be lower-case"),
    "unknown key": (question(more="populaton: all"), "unknown key 'populaton', did you mean population\\?"),
    "unknown population": (question(more="population: everyone"), "population: unknown value 'everyone'"),
    "index is no date": (question(more="index: modality"), "index: 'modality' is not a date column of series"),
    "index is no day": (question(more="index: 2016-02-30"), "index: '2016-02-30' is not a date"),
    # steps
    "no steps": ("{cohort: 1, id: x, unit: series, steps: []}", "steps: there must be at least one step"),
    "steps missing": ("{cohort: 1, id: x, unit: series}", "needs steps"),
    "steps is no list": ("{cohort: 1, id: x, unit: series, steps: {id: x}}", "steps: must be a list"),
    "too many steps": (question(", ".join(f"{{id: s{i}, where: {{modality: CT}}}}" for i in range(61))), "61 steps are more than the 60"),
    "step id twice": (question("{id: a, where: {modality: CT}}, {id: a, where: {modality: MR}}"), "step a: the id is used twice"),
    "step id taken": (question("{id: pick, where: {modality: CT}}"), "step pick: the attrition has a line of that name already"),
    "step id shape": (question("{id: A step, where: {modality: CT}}"), "step A step: the id must be lower-case"),
    "unknown step": (question("{id: s, wher: {modality: CT}}"), "step s: unknown key 'wher', did you mean where\\?"),
    "two predicates": (
        question("{id: s, where: {modality: CT}, has: {event: death, ever: true}}"),
        "step s: has where and has, and needs exactly one: make each a step of its own",
    ),
    # as somebody writes who has seen one example
    "tabs": ("cohort: 1\nid: x\nunit: series\nsteps:\n\t- {id: a}\n", "\\(line 5\\): .*; indent with spaces, not with tabs"),
    "two questions": (f"{question()}\n---\n{question()}", "a file holds one question, without ---"),
    "no-break spaces": ("cohort:\u00a01\nid: x\n", "there are no-break spaces in it"),
    "a colon without quotes": (
        question("{id: s, where: {modality: {matches: CT: MR}}}"),
        "a text that holds a colon or comma is not in quotes",
    ),
    "a bracket too few": ("{cohort: 1, steps: [{id: s, where: {modality: CT}]}", "a bracket is not closed"),
    "nothing after steps": ("cohort: 1\nid: x\nunit: series\nsteps:\n", "steps: must be a list, each step beginning with -, not nothing"),
    "a sign for an operator": (where("slice_thickness_max: '<= 1.5'"), "'<= 1.5' is not a number such as 1.5; write \\{le: 1.5\\}"),
    "a decimal comma": (where("slice_thickness_max: {le: '1,5'}"), "'1,5' is not a number such as 1.5; write 1.5"),
    "an age from to": (where("age_at: 65-80"), "'65-80' is not a whole number such as 65; write \\{between: \\[65, 80\\]\\}"),
    "a date the wrong way round": (question(more="index: 01/02/2016"), "index: .*; a date is written year first, such as 2016-01-31"),
    "a date that is none of patients": (
        question("{id: s, where: {sex: F}}", unit="patient", index="2015-02-30"),
        "index: '2015-02-30' is not a date such as 2016-01-31",
    ),
    "codes in a step": (step("has: {event: diagnosis, codes: I63, ever: true}"), "no code list 'I63'; declare it under codelists, such as"),
    "not": (step("not: {where: {modality: CT}}"), "unknown key 'not', did you mean none\\?"),
    "and": (step("and: [{where: {modality: CT}}]"), "unknown key 'and', did you mean all\\?"),
    "an age of patients": (
        question("{id: s, where: {age_at: {ge: 16}}}", unit="patient"),
        "age_at: a patient has an age at a scan or an event: ask with unit: study",
    ),
    "a change of a number": (
        step("change: {event: lab, ever: true, then: 26}"),
        "then: must be conditions such as \\{change: \\{ge: 1\\}\\}",
    ),
    "a weekend": (where("scan_date.weekday: weekend"), "'weekend' is no day of the week; there is MON, TUE"),
    "a month by name": (where("scan_date.month: January"), "a month of any year is scan_date.month_of_year, 1 to 12"),
    "a time of day": (where("scan_time: {ge: '17:00:00'}"), "scan_time: ge does not go with a text; use .*, or ask of scan_time.hour"),
    "unknown policy": (
        question("{id: s, where: {modality: CT}, unknown: keep}"),
        "unknown value 'keep'; there is exclude, include, report",
    ),
    # where
    "unknown column": (where("modalty: CT"), "step s: unknown column 'modalty', did you mean modality\\?"),
    "provenance column": (where("run_id: x"), "step s: unknown column 'run_id'"),
    "unknown value": (where("orientation: AXAIL"), "step s: orientation: unknown value 'AXAIL', did you mean AXIAL\\?"),
    "small letters": (where("modality: ct"), "step s: modality: unknown value 'ct', did you mean CT\\?"),
    "unknown as a value": (where("contrast: unknown"), "contrast: unknown is no value but a missing one; ask {is_missing: true}"),
    "text for a number": (where("slice_thickness_max: thin"), "slice_thickness_max: 'thin' is not a number"),
    "unit in a number": (where("slice_thickness_max: {le: 1.5mm}"), "'1.5mm' is not a number"),
    "infinite number": (where("slice_thickness_max: {le: 1e999}"), "'1e999' is not a number"),
    "part of a whole": (where("image_count: {ge: 1.5}"), "image_count: '1.5' is not a whole number"),
    "word for a flag": (where("after_death: maybe"), "after_death: 'maybe' is not true or false"),
    "no day": (where("scan_date: {ge: 2015-13-01}"), "scan_date: '2015-13-01' is not a date"),
    "order of text": (where("modality: {lt: CT}"), "modality: lt does not go with a choice; use eq, ne, in, is_missing"),
    "order of a flag": (where("after_death: {in: [true]}"), "after_death: in does not go with a flag"),
    "a pseudonym": (where("patient_id: abc"), "patient_id: eq does not go with an id: it can only be asked whether it is there"),
    "list of numbers": (where("position: {eq: 1}", unit="image"), "position: eq does not go with a list of numbers"),
    "contradictory range": (where("age_at: {between: [80, 65]}"), "age_at: nothing lies between 80 and 65; the smaller end comes first"),
    "contradictory bounds": (where("image_count: {gt: 5, le: 5}"), "image_count: nothing lies between 5 and 5"),
    "empty range": (where("slice_thickness_max: {ge: 3, lt: 1}"), "nothing lies between 3.0 and 1.0"),
    "missing and not": (where("image_count: {is_missing: true, ge: 5}"), "it cannot be missing and have a value"),
    "values that exclude one another": (
        where("modality: {in: [CT, MR], ne: [CT, MR]}"),
        "modality: no value is one of these and none of those",
    ),
    "gauss": (where("field_tesla: {ge: 30000}"), "field_tesla: ge 30000.0 is met by nothing: it lies between 0 and 30 T"),
    "an age that nobody has": (where("age_at: 131"), "age_at: eq 131 is met by nothing: it lies between 0 and 130 year"),
    "too many outputs": (
        question(more="output: [" + ", ".join(f"{{id: o{n}, column: kvp}}" for n in range(61)) + "]"),
        "output: 61 are more than the 60 a question may have",
    ),
    "after the first death": (
        event("event: lab, window: [1d, 30d]", codelists="", unit="patient", index="{first: {event: death}}"),
        "step s: the window begins after the person's death",
    ),
    "aliases of aliases": (
        "x0: &x0 [a, a, a, a, a, a, a, a]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 8)}]\n" for n in range(1, 9)),
        "its anchors \\(&\\) and aliases \\(\\*\\) stand for too much",
    ),
    "one series per series": (
        question(more="pick: {one_per: series, order: [scan_date]}"),
        "pick: one_per: unknown value 'series'; there is patient, study",
    ),
    "an event on no day": (event("event: lab, ever: true, where: {date: {ge: 2015-02-30}}", codelists=""), "'2015-02-30' is not a date"),
    "apart of one": (event("event: lab, window: [0d, 90d], apart: 30d", codelists=""), "apart needs at_least: 2 or more"),
    "apart in no room": (
        event("event: lab, window: [0d, 29d], at_least: 2, apart: 30d", codelists=""),
        "days that lie 30 days apart do not fit in a window of 30",
    ),
    "apart of a chain": (
        event("event: lab, window: [0d, 90d], at_least: 2, gap: [1d, 9d], apart: 30d", word="chain", codelists=""),
        "apart goes with has and lacks alone",
    ),
    "apart in weeks": (event("event: lab, ever: true, at_least: 2, apart: 4w", codelists=""), "apart '4w' must be a whole number of days"),
    "a stay of less than a day": (step("stay: {has: [{event: diagnosis}], ever: true, days: [-1d, 5d]}"), "days is how long it lasts"),
    "no stay": (step("stay: {has: [{event: diagnosis}], ever: true, at_least: 0}"), "stay: at_least must be 1 or more"),
    "same and another": (
        related("unit: series, of: study, same: [modality], differ: [modality]"),
        "modality cannot be the same and differ",
    ),
    "differ names a set": (related("unit: series, of: study, differ: [body_region]"), "differ: body_region has several values"),
    "differ names none": (related("unit: series, of: study, differ: [modalty]"), "differ: unknown column 'modalty'"),
    "ratio of words": (related("unit: series, of: study, ratio: {modality: {ge: 2}}"), "ratio: modality is no number"),
    "ratio of nothing": (related("unit: series, of: study, ratio: {}"), "ratio: where must be a mapping"),
    "ratio of none": (related("unit: series, of: study, ratio: {kpv: {ge: 2}}"), "ratio: unknown column 'kpv', did you mean kvp"),
    "ratio that is none": (related("unit: series, of: study, ratio: {kvp: {ge: twice}}"), "ratio: kvp: 'twice' is not a number"),
    "counted by a number": (
        question(more="output: [{id: o, nearest: {unit: series, of: study}}], count: [{by: o_gap}]"),
        "count: o_gap makes no groups; it has too many values",
    ),
    "month of a number": (question(more="count: [{by: image_count.month}]"), "image_count.month: month is of a date, which image_count"),
    "one end": (where("age_at: {between: [65]}"), "age_at: between takes two values, the smaller first, not 1"),
    "several for one": (where("image_count: {ge: [1, 2]}"), "image_count: ge takes one value, not 2"),
    "value twice": (where("modality: [CT, CT]"), "modality: in names a value twice"),
    "empty condition": (where("modality: {}"), "modality: says nothing about the column"),
    "no value": (where("modality: []"), "modality: must be a list of values"),
    "empty where": (question("{id: s, where: {}}"), "step s: where must be a mapping"),
    "unknown operator": (where("image_count: {gte: 5}"), "image_count: unknown key 'gte', did you mean"),
    "going up": (
        where("modality: CT", unit="patient"),
        "modality is a column of series, of which a patient may have several: ask related: \\{unit: series, of: patient",
    ),
    "age of a patient": (where("age_at: {ge: 65}", unit="patient"), "step s: "),
    "age on another day": (where("age_at: {ge: 65}", index="study_date"), "ages were computed on scan_date, so it needs index: scan_date"),
    # events
    "no window": (event("event: diagnosis, codes: stroke"), "step s: has: needs a window such as \\[-90d, -1d\\], or ever: true"),
    "window and ever": (event(f"{HAS}, ever: true"), "step s: has: has both a window and ever"),
    "ever is false": (event("event: diagnosis, codes: stroke, ever: no"), "ever can only be true"),
    "reversed window": (event("event: diagnosis, codes: stroke, window: [-1d, -90d]"), "window \\[-1d, -90d\\] is reversed"),
    "months": (event("event: diagnosis, codes: stroke, window: [-3m, 0d]"), "must be two whole numbers of days"),
    "days to hours": (event("event: attendance, window: [-1d, 4h]", codelists=""), "both ends are in days, or both in hours"),
    "hours reversed": (event("event: attendance, window: [4h, 0h]", codelists=""), "window \\[4h, 0h\\] is reversed; the earlier hour"),
    "hours of what has none": (
        event("event: diagnosis, codes: stroke, window: [-4h, 0h]"),
        "no record source says at what time of day diagnosis events happen, only attendance or lab; give days",
    ),
    "hours from a stay": (event("event: lab, window: [0h, 4h], from: end_of_stay", codelists=""), "which has no time of day"),
    "hours of the first ever": (
        event("event: lab, window: [0h, 4h], ever: true", word="first", codelists=""),
        "hours go with has, lacks, change, nearest, related and gap alone; give whole days",
    ),
    "hours of a chain": (
        event("event: lab, window: [-9d, 0d], at_least: 2, gap: [1h, 4h]", word="chain", codelists=""),
        "hours go with has, lacks",
    ),
    "a change of what has no number": (
        step("change: {event: attendance, ever: true, then: {change: {ge: 1}}}"),
        "change: no record source gives attendance events a number, only lab",
    ),
    "a change backwards": (
        step("change: {event: lab, ever: true, gap: [-2d, 2d], then: {change: {ge: 1}}}"),
        "change: gap is from the earlier to the later, so 1d at least",
    ),
    "a change of the ends in hours": (
        step("change: {event: lab, ever: true, take: ends, gap: [0h, 48h], then: {change: {ge: 1}}}"),
        "the first and the last of a window go by days",
    ),
    "a change of nothing": (step("change: {event: lab, ever: true}"), "change: needs then"),
    "a change of another name": (
        step("change: {event: lab, ever: true, then: {rise: {ge: 1}}}"),
        "change: then: unknown column 'rise'",
    ),
    "a change that is none": (step("change: {event: lab, ever: true, then: {change: {gt: 1, lt: 0}}}"), "change: nothing lies between"),
    "a change of one take": (
        step("change: {event: lab, ever: true, take: first, then: {change: {ge: 1}}}"),
        "change: take: unknown value 'first'",
    ),
    "no such day of the week": (
        step("where: {scan_date.weekday: Sunday}"),
        "scan_date.weekday: 'Sunday' is no day of the week; there is MON",
    ),
    "no such hour": (step("where: {scan_time.hour: {ge: 24}}"), "scan_time.hour: ge 24 is met by nothing: it lies between 0 and 23"),
    "an hour of a date": (step("where: {scan_date.hour: 9}"), "scan_date.hour: hour is of a time of day, which scan_date is not"),
    "a part that is none": (step("where: {scan_date.week: 9}"), "unknown column 'scan_date.week'"),
    "a day of the week shown": (
        output("column: scan_date.weekday"),
        "scan_date.weekday: a part of a column is not shown; show scan_date, or",
    ),
    "how far the nearest is": (
        step("nearest: {unit: series, of: patient, then: {gap: {le: 9}}}"),
        "nearest: then: gap is not a condition of then: say how far it may be by window",
    ),
    "hours of a stay": (step("stay: {has: [{event: diagnosis}], begins: [-4h, 0h]}"), "stay: hours go with has"),
    "hours of a report": (step("report: {finding: mass, window: [0h, 4h]}"), "report: hours go with has"),
    "hours of a follow-up": (output("follow_up: {event: death, window: [1h, 4h]}"), "follow_up: hours go with has"),
    "hours from a date without": (
        event("event: lab, window: [-4h, 0h]", codelists="", unit="study"),
        "scan_date of a study has no time of day; use index: scan_date of series or images, index: study_date of studies",
    ),
    "hours from a day": (event("event: lab, window: [-4h, 0h]", codelists="", index="2016-01-01"), "2016-01-01 of a series has no time"),
    "hours from a diagnosis": (
        event("event: lab, window: [-4h, 0h]", codelists="", index="{first: {event: diagnosis}}"),
        "diagnosis events have no time of day",
    ),
    "hours to a study": (related("unit: study, of: patient, window: [0h, 4h]"), "the scan date of a study has no time of day"),
    "hours to a death": (step("gap: {from: index, to: death_date, days: [0h, 9h]}"), "death_date of a series has no time of day"),
    "days that do not fit in hours": (
        event("event: lab, window: [0h, 4h], at_least: 3", codelists=""),
        "at_least 3 different days do not fit in a window of 2",
    ),
    "ever to ever": (event("event: diagnosis, codes: stroke, window: [ever, ever]"), "is written ever: true"),
    "unknown kind": (
        event("event: diagnoses, codes: stroke, window: [-9d, 0d]"),
        "event: unknown value 'diagnoses', did you mean diagnosis",
    ),
    "no kind": (event("codes: stroke, window: [-9d, 0d]"), "step s: has: needs event"),
    "unknown code list": (
        event("event: diagnosis, codes: strok, window: [-9d, 0d]"),
        "there is no code list 'strok', did you mean stroke\\?",
    ),
    "system of another kind": (
        event("event: dispensing, codes: stroke, window: [-9d, 0d]"),
        "dispensing events are never coded in ICD-10, which code list stroke is in",
    ),
    "at least none": (event(f"{HAS}, at_least: 0"), "at_least must be 1 or more"),
    "at least some": (event(f"{HAS}, at_least: some"), "'some' is not a whole number"),
    "more days than there are": (event("event: diagnosis, codes: stroke, window: [0d, 1d], at_least: 3"), "3 different days do not fit"),
    "first without a window": (event("event: diagnosis, codes: stroke, ever: true", word="first"), "first: needs ever: true and a window"),
    "first without ever": (event(HAS, word="first"), "first: needs ever: true and a window"),
    "first of several": (event(f"{HAS}, ever: true, at_least: 2", word="first"), "at_least does not go with first"),
    "patients without a day": (event(HAS, unit="patient"), "a cohort of patients has no date of its own, which step s, population"),
    # pick
    "pick of patients": (pick("one_per: patient, order: [sex]", unit="patient"), "pick: a cohort of patients has one of each already"),
    "pick below the unit": (pick("one_per: study, order: [scan_date]", unit="study"), "one_per: unknown value 'study'; there is patient"),
    "pick without order": (pick("one_per: patient"), "pick: needs order"),
    "pick of nothing": (pick("one_per: patient, order: []"), "pick: order: must be a list"),
    "unknown order": (pick("one_per: patient, order: [-scan_dat]"), "pick: unknown column 'scan_dat', did you mean scan_date\\?"),
    "order of a set": (pick("one_per: patient, order: [body_region]"), "pick: body_region has no order"),
    "order by a person": (pick("one_per: study, order: [patient_id]"), "pick: patient_id has no order; only the unit's own id, series_id"),
    "order twice": (pick("one_per: patient, order: [scan_date, -scan_date]"), "pick: order names scan_date twice"),
    # patterns, tags and features
    "pattern that looks ahead": (
        where("scan_time: {matches: '1(?=2)'}"),
        "scan_time: the pattern '1\\(\\?=2\\)' has \\(\\?, for look-around",
    ),
    "pattern of words": (where("scan_time: {matches: '\\b1'}"), "which engines read differently: write"),
    "pattern of a number": (where("kvp: {matches: '1'}"), "kvp: matches does not go with a number"),
    "unknown tag": (where("tag.SliceThicknes: 1"), "unknown column 'tag.SliceThicknes', did you mean tag.SliceThickness\\?"),
    "word of a tag": (where("tag.ScanningSequence: XX"), "tag.ScanningSequence: unknown value 'XX'"),
    "tag among numbers": (where("tag.SliceThickness: {in: [1, 2]}"), "in does not go with numbers that may vary inside a series"),
    "version of a feature": (where("feature.intensity_mean@9.min: 1"), "unknown column 'feature.intensity_mean@9.min', did you mean"),
    # other scans
    "related of studies in a study": (related("unit: study, of: study"), "a study has no other studies in it; ask with of: patient"),
    "related above": (related("unit: series, of: study", unit="patient"), "a patient is not part of one study; ask with of: patient"),
    "related images": (related("unit: image, of: study"), "related: unit: unknown value 'image'; there is study, series"),
    "related sets": (related("unit: series, of: study, same: [body_region]"), "same: body_region has several values"),
    "one within": (related("unit: series, of: patient, within: 9d"), "within needs at_least: 2 or more"),
    "series of studies": (related("unit: study, of: patient, count: series"), "count: series goes with unit: series only"),
    "related window": (related("unit: series, of: patient, window: [5d, 1d]"), "related: window \\[5d, 1d\\] is reversed"),
    # chains, cover, nesting
    "chain of one": (event("event: death, ever: true, gap: [1d, 9d]", "chain", ""), "a chain is of two events or more"),
    "chain without gaps": (
        event("event: death, ever: true, at_least: 2", "chain", ""),
        "chain needs gap, such as \\[1d, 90d\\], or within",
    ),
    "chain of no days": (event("event: death, ever: true, at_least: 2, gap: [0d, 9d]", "chain", ""), "which is 1d at least"),
    "chain too long": (event("event: death, ever: true, at_least: 4, within: 2d", "chain", ""), "4 days do not fit within 2 days"),
    "gap of no chain": (event("event: death, ever: true, gap: [1d, 9d]", "has", ""), "gap goes with chain only"),
    "cover of codes": (event(HAS, "cover"), "codes does not go with cover"),
    "position": (event(f"{HAS}, position: first"), "position: 'first' is not main"),
    "source": (event(f"{HAS}, source: 'a b'"), "'a b' is no name of a record source"),
    "nothing nested": (question("{id: s, any: []}"), "step s: any: must be a list of conditions"),
    "nested twice": (question("{id: s, any: [{where: {modality: CT}}, {where: {modality: CT}}]}"), "step s: names a condition twice"),
    "nested too deeply": (question("{id: s, " + "all: [{" * 6 + "where: {modality: CT}" + "}]" * 6 + "}"), "nested more than 5 deep"),
    "nested fault": (question("{id: s, none: [{where: {modalty: CT}}]}"), "unknown column 'modalty', did you mean modality\\?"),
    # sample
    "sample of none": (question(more="sample: {size: 0, seed: a}"), "sample: size must be 1 or more"),
    "sample without seed": (question(more="sample: {size: 5}"), "sample: needs seed"),
    "strata of sets": (question(more="sample: {size: 5, seed: a, strata: [body_region]}"), "body_region makes no strata"),
    # split
    "split at random and at a date": (question(more="split: {parts: {a: 50, b: 50}, seed: x, at: 2015-01-01}"), "either seed, .* or at"),
    "split of some": (
        question(more="split: {parts: {a: 50, b: 40}, seed: x}"),
        "split: parts must be two or more, each with its percentage",
    ),
    "split in three at a date": (question(more="split: {parts: [a, b, c], at: 2015-01-01}"), "at a date there are two parts"),
    "part of no name": (question(more="split: {parts: [A part, b], at: 2015-01-01}"), "split: part 'A part' must be lower-case"),
    "among no cohort": (related("unit: series, of: patient, among: everybody"), "among: must be a mapping with cohort, level"),
    "among below": (
        related("unit: study, of: patient, among: {cohort: a, level: series}"),
        "among: level: unknown value 'series'; there is study, patient",
    ),
    # match
    "match of no cases": (question(more="match: {level: patient, ratio: 1, seed: a}"), "match: needs cases"),
    "more controls than may be": (question(more=f"match: {{{CASES}, at_least: 5}}"), "at_least 5 is more than the 4 controls"),
    "match of no ratio": (question(more="match: {cases: a, level: patient, ratio: 0, seed: a}"), "ratio and at_least must be 1 or more"),
    "match by a set": (question(more=f"match: {{{CASES}, exact: [body_region]}}"), "exact: body_region has several values"),
    "match by no column": (question(more=f"match: {{{CASES}, exact: [modalty]}}"), "unknown column 'modalty', did you mean modality\\?"),
    "near a word": (question(more=f"match: {{{CASES}, caliper: {{modality: 2}}}}"), "caliper: modality is no number or date"),
    "near nothing": (question(more=f"match: {{{CASES}, caliper: {{kvp: near}}}}"), "match: caliper: kvp: 'near' is not a number"),
    "match twice": (question(more=f"match: {{{CASES}, exact: [kvp], caliper: {{kvp: 2}}}}"), "match: names kvp twice"),
    "match again": (question(more=f"match: {{{CASES}, replacement: perhaps}}"), "replacement: 'perhaps' is not true or false"),
    "risk set in a window": (
        question(more=f"match: {{{CASES}, risk_set: {{event: death, window: [0d, 9d]}}}}"),
        "match: risk_set: window does not go with it",
    ),
    # index of an event
    "index of two events": (
        question(more="index: {first: {event: death}, last: {event: death}}"),
        "index: must be a date column, a date, or",
    ),
    "index in a window": (
        question(more="index: {first: {event: death, window: [0d, 9d]}}"),
        "window does not go with it; leave out all but",
    ),
    "index of no kind": (
        question(more="index: {first: {event: deaths}}"),
        "index: first: event: unknown value 'deaths', did you mean death\\?",
    ),
    # conditions and anchors of events
    "column of no event": (event(f"{HAS}, where: {{value_st: 1}}"), "unknown column 'value_st', did you mean value_std\\?"),
    "condition of a chain": (
        event("event: lab, ever: true, at_least: 2, within: 9d, where: {value: 1}", "chain", ""),
        "where does not go with chain",
    ),
    "window from nowhere": (
        event(f"{HAS}, from: admission"),
        "from: unknown value 'admission'; there is index, start_of_stay, end_of_stay",
    ),
    "window from the index": (event(f"{HAS}, from: index"), "the index date is what a window counts from anyway"),
    "from without a window": (event("event: death, ever: true, from: end_of_stay", codelists=""), "from goes with a window"),
    "after death": (
        event("event: diagnosis, codes: stroke, window: [1d, 9d]", index="death_date"),
        "the window begins after the person's death",
    ),
    # stays
    "stay of nothing": (step("stay: {has: [], ever: true}"), "stay: has must be a list of events"),
    "stay without a window": (step("stay: {has: [{event: procedure}]}"), "stay: needs begins or ends, such as"),
    "window inside a stay": (
        step("stay: {has: [{event: procedure, window: [0d, 9d]}], ever: true}"),
        "window does not go with it; leave out all but event",
    ),
    "stay backwards": (step("stay: {has: [{event: procedure}], begins: [1d, 0d]}"), "stay: begins \\[1d, 0d\\] is reversed"),
    # the nearest
    "nearest of nothing": (step("nearest: {window: [0d, 9d]}"), "nearest: needs either event, or unit and of for another scan"),
    "nearest without a window": (step("nearest: {event: lab}"), "nearest: needs a window such as"),
    "nearest of several": (step("nearest: {event: lab, window: [0d, 9d], at_least: 2}"), "nearest: unknown key 'at_least'"),
    "how near": (
        step("nearest: {event: lab, window: [0d, 9d], take: closest}"),
        "take: unknown value 'closest', did you mean latest",
    ),
    "then of an event": (
        step("nearest: {event: lab, window: [0d, 9d], then: {modality: CT}}"),
        "then: unknown column 'modality'",
    ),
    "then of a scan": (
        step("nearest: {unit: series, of: patient, window: [0d, 9d], then: {value_std: 1}}"),
        "then: unknown column 'value_std'",
    ),
    "nearest of patients": (
        step("nearest: {event: lab, ever: true}", unit="patient", population="all"),
        "which step s needs; give one date",
    ),
    # gaps, reports, cohorts
    "gap of no date": (step("gap: {from: modality, to: scan_date, days: [0d, 1d]}"), "gap: 'modality' is neither index nor a date column"),
    "gap of one date": (step("gap: {from: scan_date, to: scan_date, days: [0d, 1d]}"), "gap: from and to are the same date"),
    "gap without days": (step("gap: {from: study_date, to: scan_date}"), "gap needs days, such as"),
    "gap backwards": (step("gap: {from: study_date, to: scan_date, days: [1d, 0d]}"), "days \\[1d, 0d\\] is reversed"),
    "unknown finding": (step("report: {finding: infarkt}"), "finding: unknown value 'infarkt', did you mean infarct\\?"),
    "report of a series": (step("report: {finding: mass, of: series}"), "of: unknown value 'series'; there is study, patient"),
    "report of a study of a patient": (
        step("report: {finding: mass, of: study}", unit="patient", index="2016-01-01"),
        "a patient is not part of one study; ask with of: patient",
    ),
    "level below": (step("in: {cohort: a, level: series}", unit="study"), "in: level: unknown value 'series'; there is study, patient"),
    "name of no cohort": (step("in: {cohort: A b, level: patient}"), "in: 'A b' is no name of a cohort"),
    "apart and within": (
        related("unit: series, of: patient, at_least: 2, within: 9d, apart: 5d"),
        "has both within and apart; use one of them",
    ),
    "one apart": (related("unit: series, of: patient, apart: 9d"), "apart needs at_least: 2 or more"),
    "related thrice": (
        related("unit: series, of: study, related: {unit: series, of: study, related: {unit: series, of: study}}"),
        "related may be nested once only",
    ),
    "where one lives, sometime": (
        where("simd_quintile: 1", unit="patient", population="all"),
        "which step s needs; give one date",
    ),
    # outputs and counts
    "output of nothing": (output("give: gap"), "output o: needs exactly one of column, gap, nearest, follow_up"),
    "output of a set": (output("column: body_region"), "output o: body_region has several values, which are never shown as one"),
    "output of no column": (output("column: modalty"), "output o: unknown column 'modalty', did you mean modality\\?"),
    "output twice": (question(more="output: [{id: o, column: modality}, {id: o, column: kvp}]"), "output o: the id is used twice"),
    "output of a taken name": (question(more="output: [{id: part, column: modality}]"), "there is another column part; choose another id"),
    "give of a column": (output("column: modality, give: [gap]"), "give goes with nearest only"),
    "give of no column": (
        output("nearest: {event: lab, window: [0d, 9d]}, give: [value_sdt]", population="all"),
        "give: unknown column 'value_sdt', did you mean value_std\\?",
    ),
    "then of an output": (
        output("nearest: {event: lab, window: [0d, 9d], then: {value_std: 1}}"),
        "then is a condition; what is shown is named by give",
    ),
    "days of an output": (output("gap: {from: study_date, to: scan_date, days: [0d, 1d]}"), "days is a condition; leave it out"),
    "follow-up from before": (output("follow_up: {event: death, window: [-1d, ever]}"), "the window begins on the index date or later"),
    "follow-up that is over": (
        output("follow_up: {event: death, window: [1d, ever], until: 2015-12-31}", index="2016-01-01"),
        "follow_up ends before the index date",
    ),
    "count of nothing": (question(more="count: []"), "count: must be a list such as"),
    "count by a number": (question(more="count: [{by: kvp}]"), "count: kvp makes no groups; use a column of single words"),
    "count by no column": (question(more="count: [{by: modalty}]"), "count: unknown column 'modalty', did you mean modality\\?"),
    "year of a word": (question(more="count: [{by: modality.year}]"), "modality.year: year is of a date, which modality is not"),
    "counted twice": (question(more="count: [{by: modality}, {by: modality}]"), "count: names a breakdown twice"),
    # code lists
    "list of no system": (event(HAS, codelists="codelists: {stroke: {codes: [I63]}}"), "code list stroke: needs system"),
    "list without codes": (event(HAS, codelists="codelists: {stroke: {system: icd10}}"), "code list stroke: needs either codes or file"),
    "both codes and file": (
        event(HAS, codelists="codelists: {stroke: {system: icd10, codes: [I63], file: a.csv}}"),
        "needs either codes or",
    ),
    "empty list": (event(HAS, codelists="codelists: {stroke: {system: icd10, codes: []}}"), "code list stroke: is empty"),
    "unused list": (question(more=STROKE), "code list stroke: nothing uses it"),
    "name of a list": (
        event(HAS, codelists="codelists: {Stroke: {system: icd10, codes: [I63]}}"),
        "code list Stroke: the name must be lower",
    ),
    "unknown expansion": (
        event(HAS, codelists="codelists: {stroke: {system: icd10, codes: [I63], expand: all}}"),
        "expand: unknown value 'all'",
    ),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_a_question_that_breaks_a_rule_is_refused(rule):
    text, sentence = REFUSED[rule]
    with pytest.raises(QuestionError, match=sentence) as caught:
        yaml_face.from_yaml(text)
    assert str(caught.value).startswith("question file: ")
    assert "\n" not in str(caught.value)


def test_the_table_breaks_one_rule_at_a_time():
    alone = [rule for rule, (text, _) in REFUSED.items() if len(yaml_face.read(text)[1]) == 1]
    # A name that is wrong in one place is wrong where it is used, too.
    assert set(REFUSED) - set(alone) == {"unknown code list", "name of a list"}


def test_all_faults_are_told_at_once():
    text = question(
        "{id: a, where: {modalty: CT, slice_thickness_max: thin}}, {id: a, has: {event: diagnoses, window: [5d, 1d]}}, {id: c, nearst: {}}",
        more="pick: {one_per: series, order: [scan_dat]}",
    )
    with pytest.raises(QuestionError) as caught:
        yaml_face.from_yaml(text)
    said = "\n".join(caught.value.faults)
    for part in ("modalty", "thin", "id is used twice", "diagnoses", "reversed", "did you mean nearest", "one_per", "scan_dat"):
        assert part in said
    assert len(caught.value.faults) == 8


def test_a_kind_that_no_source_holds_is_refused():
    asked = yaml_face.from_yaml(event("event: [diagnosis, tumour], codes: stroke, window: [-9d, 0d]"))
    assert check.not_held(asked, {"diagnosis", "tumour"}) == []
    (fault,) = check.not_held(asked, {"diagnosis", "dispensing"})
    said = "step s: no published record source can hold events of kind tumour, so nothing can be said about them"
    assert fault == f"{said}; smr06 would have to be loaded"


def test_saved_cohorts_of_other_releases_and_levels_are_refused():
    asked = yaml_face.from_yaml(
        question("{id: a, in: {cohort: old, level: patient}}, {id: b, none: [{in: {cohort: people, level: study}}]}", unit="study")
    )
    units, releases = {"old": "series", "people": "patient"}, {"old": "r1", "people": "r1"}
    (fault,) = check.not_saved(asked, units, releases, "r1")
    assert fault == "step b: cohort people is of patient units, which have no study; ask with level: patient"
    fault, _, _ = check.not_saved(asked, units, releases, "r2")
    assert fault.startswith("cohort old was frozen on release r1, and this question is asked of r2: people and scans of two releases")
    fault, _ = check.not_saved(asked, {"older": "series"}, {"older": "r1"}, "r1")
    assert fault == "no cohort 'old' is frozen, did you mean older?; freeze it first"


def test_files_that_are_no_question(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: give the path of a cohort specification"):
        load(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"cohort: \xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(bad)
    bad.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="put long code lists into CSV files"):
        load(bad)
    bad.write_text("[" * 5_000)
    with pytest.raises(QuestionError, match=r"nested too deeply|not valid YAML"):
        load(bad)


def test_many_faults_are_counted_and_not_all_told():
    faults = [f"fault {number}" for number in range(100)]
    error = QuestionError("x", faults)
    assert "100 faults: fault 0; " in str(error)
    assert str(error).endswith("fault 39; and 60 more")
    assert list(error.faults) == faults
