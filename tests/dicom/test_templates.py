"""Template and differences: the rebuilt header is the header, text for text, and the common part is stored once."""

from pathlib import Path

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.dicom.scan import ScanError, pack, scan
from pictures_spark.dicom.templates import as_json, as_lines, rebuild, split, template_id

SAMPLES = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))
VALUES = st.one_of(st.none(), st.integers(-5, 5), st.floats(-5, 5), st.text(max_size=3), st.booleans())
TAGS = st.sampled_from(["00080005", "00080060", "00100010", "00200013", "7FE00001"])
ELEMENTS = st.dictionaries(TAGS, st.fixed_dictionaries({"vr": st.sampled_from(["LO", "DS"]), "Value": st.lists(VALUES, max_size=2)}))


def split_whole(texts):
    """Headers that are their own bases."""
    bases = {str(number): "\n".join(as_lines(text)) for number, text in enumerate(texts)}
    return split([(key, "") for key in bases], bases)


def test_every_sample_header_is_rebuilt_exactly():
    headers = []
    for path in SAMPLES:
        try:
            headers.append(pack(scan(path.read_bytes()).elements))
        except ScanError:
            continue
    assert len(headers) > 80
    for group in (headers[:5], headers[5:6], headers[6:]):
        common, differences = split_whole(group)
        assert [pack(rebuild(common, difference)) for difference in differences] == group


@settings(max_examples=100)
@given(st.lists(ELEMENTS, min_size=1, max_size=5))
def test_any_headers_are_rebuilt_exactly_and_share_no_element(headers):
    texts = [pack(header) for header in headers]
    common, differences = split_whole(texts)
    assert [pack(rebuild(common, difference)) for difference in differences] == texts
    shared = set(rebuild(common, "{}"))
    assert all(shared.isdisjoint(rebuild("{}", difference)) for difference in differences)


def test_equal_numbers_of_other_text_are_not_common():
    assert split_whole(['{"00200013":{"Value":[1]}}', '{"00200013":{"Value":[1.0]}}'])[0] == "{}"


@settings(max_examples=100)
@given(st.lists(ELEMENTS, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_what_was_base_and_what_own(headers, chance):
    texts = [pack(header) for header in headers]
    rows, bases = [], {}
    for text in texts:
        lines = as_lines(text)
        own = [line for line in lines if chance.random() < 0.5]
        base = "\n".join(line for line in lines if line not in own)
        bases[base] = base
        rows.append((base, "\n".join(own)))
        assert as_json(base, rows[-1][1]) == text
    assert split(rows, bases) == split_whole(texts)


def test_the_key_depends_on_the_series_and_the_elements():
    assert len({template_id("1", "{}"), template_id("2", "{}"), template_id("1", '{"a":1}')}) == 3
