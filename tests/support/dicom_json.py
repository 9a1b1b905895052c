"""pydicom's reading of a file, and where ours differs from it."""

import base64
import io
import warnings

import pydicom


def reference(data):
    """pydicom's own JSON model of everything before the pixel data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
        return data_set.file_meta.to_json_dict() | data_set.to_json_dict(suppress_invalid_tags=True)


WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def little(element):
    """A binary value of a big-endian file as the JSON model wants it, little-endian (PS3.18 F.2.7); pydicom leaves it as it is."""
    width, data = WORDS.get(element["vr"], 1), base64.b64decode(element.get("InlineBinary", ""))
    swapped = b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
    return {**element, "InlineBinary": base64.b64encode(swapped).decode()} if data else element


def differences(ours, theirs, where="", big=False):
    """Places where two JSON models differ in meaning. What is made alike first: an empty value is one that is not there, DS and IS are
    compared as numbers, since PS3.18 F.2.3 allows both forms, and a value that is only hashed is not compared.
    """
    found = [f"{where}{tag}" for tag in theirs.keys() - ours.keys()]
    for tag in ours.keys() & theirs.keys():
        one, two = ours[tag], little(theirs[tag]) if big else theirs[tag]
        values, expected = one.get("Value", []), two.get("Value", [])
        if "BulkDataURI" in one:
            continue
        if one["vr"] == "SQ":
            found += [f"{where}{tag}"] if len(values) != len(expected) else []
            for item, other in zip(values, expected, strict=False):
                found += differences(item, other, f"{where}{tag}/", big)
        elif one["vr"] in ("DS", "IS"):
            numbers = [None if value is None else float(value) for value in values]
            found += [f"{where}{tag}"] if numbers != [None if value in (None, "") else float(value) for value in expected] else []
        elif values != [None if value == "" else value for value in expected] or {**one, "Value": 0} != {**two, "Value": 0}:
            found += [f"{where}{tag}"]
    return found
