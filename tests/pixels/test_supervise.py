"""The supervised child: whatever an image does to it, one reason comes back and the next image is done."""

import hashlib
import random
import subprocess
import sys
import time
from dataclasses import replace

import broken
import faulty_child
import numpy as np
import psutil
import pytest
import s3
from houses import only_chaos
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import dicom_bytes, instance, pydicom_files
from planted import anatomy, burn

from pictures_spark.pixels import supervise, wire
from pictures_spark.pixels.examine import Examiner, Locator
from pictures_spark.pixels.faults import PixelFault
from pictures_spark.pixels.features import applicable
from pictures_spark.pixels.heat import suspects
from pictures_spark.pixels.supervise import ChildCannotStartError, Limits, Supervised
from pictures_spark.pixels.text import find_text
from pictures_spark.pixels.window import to_8bit

FAULTY = (faulty_child.__file__,)
LIMITS = Limits(seconds=60, memory_bytes=1 << 30, max_samples=10_000_000)
NAMES = applicable("CT")


def put(folder, name, data):
    (folder / name).write_bytes(data)
    return Locator(name, None, None, None, hashlib.sha256(data).hexdigest())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def child(archive):
    with Supervised(str(archive), LIMITS, FAULTY) as child:
        yield child


@pytest.fixture(scope="module")
def good(archive):
    return put(archive, "good.dcm", dicom_bytes(instance(burn(anatomy(4), "MACDONALD", (50, 20)))))


def test_the_child_finds_what_this_process_finds(child, archive, good):
    here = Examiner(lambda at: (archive / at.path).read_bytes(), LIMITS.max_samples)
    for text in ("read", "whole", "sketch", "nothing"):
        ours, theirs = here.examine(good, NAMES, text), child.examine(good, NAMES, text)
        assert (ours.features, ours.boxes, ours.frame_count) == (theirs.features, theirs.boxes, theirs.frame_count)
        assert (ours.sketch is None) == (theirs.sketch is None)
        if ours.sketch is not None:
            assert np.array_equal(ours.sketch.low, theirs.sketch.low)
            assert np.array_equal(ours.sketch.high, theirs.sketch.high)
            assert ours.sketch.places == theirs.sketch.places != ((),)
    picture = to_8bit(burn(anatomy(4), "MACDONALD", (50, 20)))
    places = {0: suspects(picture)}
    assert child.read_frames(good, places) == here.read_frames(good, places) == {0: here.examine(good, [], "read").boxes[0]}
    assert child.read_picture(picture) == find_text(picture, whole=True) != []


def test_the_archive_may_be_a_store(child, archive, good, tmp_path):
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    with s3.running() as server:
        server.put("raw/good.dcm", (archive / "good.dcm").read_bytes())
        server.put("raw/failing.dcm", b"")
        server.faults["raw/failing.dcm"] = s3.unavailable
        with Supervised(server.root("raw", credentials_file=str(keys)), LIMITS) as remote:
            assert remote.examine(good, NAMES, "nothing").features == child.examine(good, NAMES, "nothing").features
            for name, reason in (("gone.dcm", "unreadable"), ("failing.dcm", "unreadable")):
                with pytest.raises(PixelFault) as caught:
                    remote.examine(Locator(name, None, None, None, "0" * 64), NAMES, "nothing")
                assert caught.value.reason == reason


FAULTS = [("crash", "crashed"), ("leave", "crashed"), ("bomb", "out_of_memory")]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_a_fault_is_one_reason_and_the_next_image_is_done(child, archive, good, fault, reason):
    with pytest.raises(PixelFault) as caught:
        child.examine(put(archive, f"{fault}.dcm", b""), NAMES, "nothing")
    assert caught.value.reason == reason
    assert len(child.examine(good, NAMES, "nothing").features) == len(NAMES)


def test_an_image_that_never_ends_ends_at_its_limit(archive, good):
    with Supervised(str(archive), replace(LIMITS, seconds=1), FAULTY) as child:
        with pytest.raises(PixelFault) as caught:
            child.examine(put(archive, "hang.dcm", b""), NAMES, "nothing")
        assert caught.value.reason == "timeout"
        assert child.examine(good, NAMES, "nothing").frame_count == 1


def test_an_image_of_many_frames_may_take_longer_than_one_but_not_for_ever(archive, good, monkeypatch):
    monkeypatch.setattr(supervise, "_LONGEST", 2)
    with Supervised(str(archive), replace(LIMITS, seconds=0.5), FAULTY, text=False) as child:
        start = time.monotonic()
        with pytest.raises(PixelFault) as caught:
            child.examine(put(archive, "drip.dcm", b""), NAMES, "nothing")
        assert caught.value.reason == "timeout"
        # Alive beyond the limit of a frame, because frames were done with; not beyond that of the whole.
        assert time.monotonic() - start >= 2 * 0.5
        assert child.examine(good, NAMES, "nothing").frame_count == 1


@pytest.fixture(scope="module")
def small_child(archive):
    with Supervised(str(archive), Limits(seconds=60, memory_bytes=1 << 28, max_samples=10**9), text=False) as child:
        yield child


@pytest.mark.parametrize("fault", sorted(broken.FILES))
def test_a_file_made_to_break_decoders_is_one_reason_and_the_next_is_done(small_child, archive, good, fault):
    data, reasons = broken.FILES[fault]()
    with pytest.raises(PixelFault) as caught:
        small_child.examine(put(archive, f"{fault}.dcm", data), NAMES, "nothing")
    assert caught.value.reason in reasons
    assert len(small_child.examine(good, NAMES, "nothing").features) == len(NAMES)


def test_a_file_that_is_decoded_for_ever_ends_in_time(archive):
    # It takes 200 MB a second: with less memory it would end at that limit, as a crash where the decoder does not look.
    with Supervised(str(archive), Limits(seconds=1, memory_bytes=1 << 30, max_samples=10**9), text=False) as child:
        with pytest.raises(PixelFault) as caught:
            child.examine(put(archive, "endless.dcm", broken.endless()), NAMES, "nothing")
        assert caught.value.reason == "timeout"


@pytest.mark.chaos
@only_chaos
def test_no_damaged_file_does_more_than_fail_by_itself(archive, good):
    """Pixel data of pydicom's compressed files with bytes changed at random: features or a reason, and nothing else, whatever they do."""
    rng = random.Random(20261130)
    files = [path.read_bytes() for path in pydicom_files() if 500 < path.stat().st_size < 60_000]
    reasons = {}
    with Supervised(str(archive), Limits(seconds=3, memory_bytes=1 << 29, max_samples=10**8), text=False) as child:
        for number in range(600):
            data = bytearray(rng.choice(files))
            start = max(132, data.rfind(b"\xe0\x7f\x10\x00"))
            for _ in range(rng.choice([1, 2, 4, 16])):
                data[rng.randrange(start, min(len(data), start + rng.choice([120, 2000, len(data)])))] = rng.choice([0, 1, 127, 255])
            try:
                child.examine(put(archive, f"damaged{number}", bytes(data)), NAMES, "nothing")
            except PixelFault as fault:
                reasons[fault.reason] = reasons.get(fault.reason, 0) + 1
        assert len(child.examine(good, NAMES, "nothing").features) == len(NAMES)
    # Some of them did end the child, or this test would show nothing.
    assert reasons["crashed"] > 0


def test_what_libraries_print_goes_nowhere(child, archive, capfd):
    printing = put(archive, "print.dcm", (archive / "good.dcm").read_bytes())
    assert child.examine(printing, [], "nothing").frame_count == 1
    assert capfd.readouterr() == ("", "")


REFUSED = [
    ("changed", lambda root: Locator("good.dcm", None, None, None, "0" * 64)),
    ("changed", lambda root: Locator("good.dcm", 10, 10**8, "none", "0" * 64)),
    ("unreadable", lambda root: Locator("gone.dcm", None, None, None, "0" * 64)),
    ("too_large", lambda root: put(root, "claims.dcm", dicom_bytes(instance(Rows=60000, Columns=60000)))),
    ("undecodable", lambda root: put(root, "text.dcm", b"hello" * 100)),
]


@pytest.mark.parametrize(("reason", "locate"), REFUSED)
def test_what_the_child_refuses(child, archive, good, reason, locate):
    with pytest.raises(PixelFault) as caught:
        child.examine(locate(archive), NAMES, "read")
    assert caught.value.reason == reason


def test_a_child_that_cannot_start_is_no_image_s_fault(tmp_path):
    with pytest.raises(ChildCannotStartError), Supervised(str(tmp_path), LIMITS, (*FAULTY, "broken")) as child:
        child.read_picture(np.zeros((8, 8), np.uint8))


def test_the_child_dies_with_its_parent(tmp_path):
    script = (
        "import sys, numpy as np\n"
        "from pictures_spark.pixels.supervise import Limits, Supervised\n"
        f"child = Supervised({str(tmp_path)!r}, Limits(30, 1 << 30, 10**6))\n"
        "child.read_picture(np.zeros((8, 8), np.uint8))\n"
        "print(child._child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


@settings(max_examples=50)
@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.floats(allow_nan=False)),
    st.lists(st.tuples(st.sampled_from(["uint8", "float32"]), st.lists(st.integers(0, 3), min_size=1, max_size=3)), max_size=3),
)
def test_a_message_arrives_as_it_was_sent(message, described):
    arrays = {str(n): np.arange(int(np.prod(shape))).astype(kind).reshape(shape) for n, (kind, shape) in enumerate(described)}
    sent = wire.pack(message, arrays)
    assert wire.LENGTH.unpack(sent[:8])[0] == len(sent) - 8
    got, found = wire.unpack(sent[8:])
    assert got == message
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[n], arrays[n]) and found[n].dtype == arrays[n].dtype for n in arrays)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_anything_else_is_no_message(junk):
    with pytest.raises(ValueError, match="not a message"):
        wire.unpack(junk)


@pytest.mark.parametrize("kind", ["object", "int64", "float64"])
def test_only_plain_arrays_cross(kind):
    packed = bytearray(wire.pack({}, {"a": np.zeros(2, np.float32)})[8:])
    with pytest.raises(ValueError, match="not a message"):
        wire.unpack(bytes(packed).replace(b'"float32"', f'"{kind}"'.encode().ljust(9)))
