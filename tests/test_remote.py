"""Stores against a real S3 server: what is listed, how often it is asked, and what is said where it fails."""

import hashlib
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow.fs
import pytest
import s3
from fsspec.implementations.arrow import ArrowFSWrapper

from pictures_spark import remote
from pictures_spark.errors import ConfigError, InputError
from pictures_spark.remote import ChangedError, HdfsStore, RemoteFile, opened, store
from pictures_spark.roots import Listed, root_at

KB = 1024
NAME = "2015/06/ACC123 é#?%41+.dcm"


def listed(root):
    return sorted(store(root).listing())


def opening(server, key, first=64 * KB, largest=256 * KB, pool=None, **settings):
    root = server.root(**settings)
    (one,) = [one for one in listed(root) if one.path == key]
    server.forget()
    return RemoteFile(store(root), key, one, first, largest, pool)


def test_a_listing_has_every_page_and_only_what_is_below_the_prefix(server, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    for number in range(25):
        server.put(f"raw/{number:04}", b"x")
    for key in ("raw/folder/", "raw/full/", "raw2", f"raw/{NAME}", "raw//a/../b"):
        server.put(key, b"" if key == "raw/folder/" else b"12")
    server.forget()
    found = listed(server.root("raw"))
    assert [one.path for one in found] == sorted([*(f"{n:04}" for n in range(25)), "full/", NAME, "/a/../b"])
    assert server.asked == {("GET", ""): 3}
    one = next(one for one in found if one.path == NAME)
    assert (one.file_size, one.file_etag) == (2, f'"{hashlib.md5(b"12", usedforsecurity=False).hexdigest()}"')
    assert abs(one.file_mtime_ns - time.time_ns()) < 10**12


def test_an_empty_prefix_is_an_empty_archive(server):
    store(server.root("nothing")).check()
    assert listed(server.root("nothing")) == []


@pytest.mark.parametrize("size", [0, 1, 64 * KB, 64 * KB + 1, 3_000_000])
def test_a_file_read_forward_is_the_object(server, size):
    data = random.Random(size).randbytes(size)
    server.put(NAME, data)
    with ThreadPoolExecutor(4) as pool, opening(server, NAME, pool=pool) as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == data
        assert file.read(1) == b""
        assert (file.tell(), file.size) == (size, size)
        assert file.round_trips == server.asked["GET", NAME]


def test_round_trips_of_a_large_file_read_forward(server):
    server.put("large", bytes(3_000_000))
    with opening(server, "large", first=256 * KB) as file:
        while file.read(100_000):
            pass
    assert server.asked["GET", "large"] == -(-3_000_000 // (256 * KB))
    assert server.asked["HEAD", "large"] == 0


def test_any_order_of_reading_gives_the_same_bytes_and_keeps_little(server):
    data = random.Random(3).randbytes(4_000_000)
    server.put("o", data)
    chance = random.Random(4)
    with ThreadPoolExecutor(4) as pool, opening(server, "o", pool=pool) as file:
        for _ in range(150):
            at, length = chance.randrange(len(data) + 10), chance.choice([1, 100, 70_000, 600_000])
            if chance.random() < 0.5:
                at = file.tell()
            file.seek(at)
            assert file.read(length) == data[at : at + length]
            kept = {id(block[1]): len(block[1]) for block in (file._head, file._current, file._last, file._tail)}
            assert sum(kept.values()) <= 3 * 256 * KB + (1 << 20)
            assert len(file._coming) <= 3
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read() == data[-5:]


def test_the_end_of_a_file_is_fetched_once(server):
    server.put("z", bytes(5_000_000))
    with opening(server, "z", first=256 * KB) as file:
        for back in (22, 42, 1000, 900_000):
            file.seek(-back, 2)
            assert len(file.read()) == back
        file.seek(0)
        while file.read(100_000):
            pass
        # The head, the end, and the rest up to the end in ranges of 256 KB.
        assert file.round_trips == 2 + -(-(5_000_000 - (1 << 20) - 256 * KB) // (256 * KB))
    assert server.asked["GET", "z"] == file.round_trips


def test_files_are_fetched_at_the_same_time_and_come_in_order(server):
    for number in range(40):
        server.put(f"{number:02}", str(number).encode())
    root = server.root(threads=8)
    files = listed(root)
    together = threading.Barrier(8, timeout=60)

    def waits(environ, start_response):
        together.wait()  # answered only once eight are asked for

    server.faults.update({one.path: waits for one in files})
    assert [(one.path, result().read()) for one, result in opened(root, files, KB)] == [(f"{n:02}", str(n).encode()) for n in range(40)]
    assert server.together <= 8
    assert sum(n for (method, key), n in server.asked.items() if method == "GET" and key) == 40


def test_what_is_fetched_ahead_and_not_read_is_given_up(server):
    for number in range(30):
        server.put(f"{number:02}", b"x")
    root = server.root(threads=4)
    files = opened(root, listed(root), KB)
    assert next(files)[1]().read() == b"x"
    files.close()
    assert sum(n for (method, key), n in server.asked.items() if method == "GET" and key) <= 5


def test_an_object_that_changes_is_never_mixed(server):
    server.put("o", bytes(1_000_000))
    file = opening(server, "o")
    server.put("o", b"1" * 1_000_000)
    with pytest.raises(ChangedError):
        file.read()
    with pytest.raises(ChangedError):
        RemoteFile(store(server.root()), "o", Listed("o", 1_000_000, 0, '"other"'), KB, KB)
    # Read without a listing, it is still of one version.
    file = RemoteFile(store(server.root()), "o", None, 64 * KB, 64 * KB)
    server.put("o", bytes(1_000_000))
    with pytest.raises(ChangedError):
        file.read()


def dripping(environ, start_response):
    """An answer that stops in its middle and stays open."""
    start_response("206 Partial Content", [("Content-Length", "100"), ("Content-Range", "bytes 0-99/100")])

    def body():
        yield b"x"
        time.sleep(3)

    return body()


def broken(environ, start_response):
    """An answer that ends in its middle."""
    start_response("206 Partial Content", [("Content-Length", "100"), ("Content-Range", "bytes 0-99/100")])
    return [b"x"]


def answers(status):
    def answer(environ, start_response):
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>Fault</Code><Message>about {NAME}</Message><Key>{NAME}</Key></Error>".encode()]

    return answer


# what the server does, class of the error, how often it is asked
FAULTS = {
    "throttled": (s3.unavailable, OSError, 2),
    "failing": (answers("500 Internal Server Error"), OSError, 2),
    "refusing": (answers("403 Forbidden"), PermissionError, 1),
    "silent": (lambda environ, start_response: time.sleep(3), TimeoutError, 2),
    "dripping": (dripping, TimeoutError, 2),
    "broken off": (broken, OSError, 2),
    "gone": (answers("404 Not Found"), FileNotFoundError, 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_that_fails_is_asked_for_a_few_times_and_never_named(server, fault, caplog):
    does, kind, attempts = FAULTS[fault]
    server.put(NAME, bytes(100))
    root = server.root(timeout_seconds=0.5)
    (one,) = listed(root)
    server.faults[NAME] = does
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the class is what is compared
        RemoteFile(store(root), NAME, one, KB, KB)
    assert type(caught.value) is kind
    assert server.asked["GET", NAME] == attempts
    told = "".join(map(str, (caught.value, caught.value.__cause__, caught.value.strerror, caplog.text)))
    assert "ACC123" not in told
    assert server.bucket not in told
    assert caught.value.strerror


def test_a_key_that_fails_once_is_read(server):
    server.put(NAME, b"data")
    left = [1]

    def once(environ, start_response):
        return s3.unavailable(environ, start_response) if left and left.pop() else None

    server.faults[NAME] = once
    assert store(server.root()).get(NAME, 1, 2).data == b"at"
    assert server.asked["GET", NAME] == 2


def test_a_store_that_cannot_be_used_is_one_sentence(server, monkeypatch, tmp_path):
    def says(kind, text, root):
        with pytest.raises(kind, match=text) as caught:
            store(root).check()
        assert server.bucket not in str(caught.value)

    says(InputError, "bucket does not exist", root_at("s3://no-such-bucket-of-ours/raw", {"endpoint": server.endpoint, "attempts": 1}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    says(InputError, "cannot be reached", server.root(endpoint=f"http://127.0.0.1:{port}", attempts=1))
    says(ConfigError, "no such file on this machine", server.root(credentials_file=str(tmp_path / "none")))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    says(ConfigError, "does not let us in: give keys", server.root(attempts=3))
    says(ConfigError, "does not let us in: give keys", server.root(profile="none"))
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    says(ConfigError, r"pip install 'pictures-spark\[remote\]'", server.root(threads=5))


def test_keys_come_from_a_file(server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    file.write_text(f"[default]\n{keys}[other]\n{keys}")
    server.put("o", b"x")
    for profile in (None, "other"):
        assert [one.path for one in listed(server.root(credentials_file=str(file), profile=profile))] == ["o"]


@pytest.fixture
def hdfs(tmp_path):
    """The store of HDFS over Arrow's local file system: the same wrapper, without a cluster."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    for name in ("z", "a/b/1", "a/2"):
        (root / name).write_bytes(name.encode() * 1000)
    return root, HdfsStore(ArrowFSWrapper(pyarrow.fs.LocalFileSystem()), str(root))


def test_a_file_system_of_arrow_is_listed_and_read_by_ranges(hdfs):
    root, files = hdfs
    files.check()
    found = sorted(files.listing())
    assert [one.path for one in found] == ["a/2", "a/b/1", "z"]
    for one in found:
        state = (root / one.path).stat()
        assert (one.file_size, one.file_etag) == (state.st_size, None)
        assert abs(one.file_mtime_ns - state.st_mtime_ns) < 2000  # Arrow's Python has microseconds
        with RemoteFile(files, one.path, one, 100, 500) as file:
            assert file.read() == (root / one.path).read_bytes()
    assert files.get("z", 3, 4).data == b"zzzz"
    (root / "z").write_bytes(b"other")
    with pytest.raises(ChangedError):
        files.get("z", 0, 10, found[-1])
    for path, kind in (("gone", FileNotFoundError), ("../x", PermissionError), ("a", OSError)):
        with pytest.raises(kind) as caught:
            files.get(path, 0, 1)
        assert str(root) not in str(caught.value)
    with pytest.raises(InputError, match="folder does not exist"):
        HdfsStore(files._files, f"{root}/none").check()


def test_a_folder_of_a_file_system_that_cannot_be_listed_is_reported(hdfs, monkeypatch):
    files = hdfs[1]
    ls = ArrowFSWrapper.ls

    def guarded(self, path, **options):
        if path.endswith("/b"):
            raise PermissionError
        return ls(self, path, **options)

    monkeypatch.setattr(ArrowFSWrapper, "ls", guarded)
    assert Listed("a/b", 0, 0) in list(files.listing())


def test_a_machine_without_hadoop_is_one_sentence():
    with pytest.raises(InputError, match="HDFS cannot be reached"):
        store(root_at("hdfs://127.0.0.1:1/archive"))


def test_the_store_is_made_once_in_a_process(server):
    assert store(server.root()) is store(server.root())
    assert remote._store.cache_info().maxsize == 8
