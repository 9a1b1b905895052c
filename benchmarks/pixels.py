"""How fast pixels are decoded and measured on one core, against named peers, on the same images in the same process.

    python benchmarks/pixels.py [--n 32] [--costs] [--cost-table]

``features_per_core``: all features of native CT slices (512 x 512, 16 bit, anatomy-like shapes of the synthetic archive's generator, in
memory), from the object's bytes: hashing, parsing, decoding, measuring, as the supervised child does it. The peer decodes with pydicom and
computes one feature after the other with NumPy on the whole array; it has no body mask, no lung, no liver, no perceptual hash and no
evidence of contrast or faces, and so does less.

``decode_<syntax>``: samples per second of the pinned decoder against pydicom's default handler (``pixel_array``, which takes the first
plugin that works). Slices are encoded here where an encoder is installed (of HTJ2K: imagecodecs); else one of pydicom's own files is used
(``--n`` times), or the line is left out.

--costs prints milliseconds of each feature asked alone (``cost`` in schemas/features.yaml); --cost-table those of docs/operator.md.
"""

import os

# One core for everybody; before NumPy is there.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import hashlib
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from measure import line, medians
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless, RLELossless

from pictures_spark.pixels.decode import decode
from pictures_spark.pixels.examine import NOTHING, Examiner, Locator
from pictures_spark.pixels.features import applicable, computed, features
from pictures_spark.pixels.supervise import Limits, Supervised
from pictures_spark.synthetic.pictures import PICTURES

SIDE = 512
LIMIT = 10**9
# What a typical image of a modality is: frames, rows, columns, samples, and the transfer syntax it is often kept in.
TYPICAL = {
    "CT": (1, 512, 512, 1),
    "MR": (1, 320, 320, 1),
    "PT": (1, 168, 168, 1),
    "CR/DX": (1, 2500, 2000, 1),
    "MG": (1, 3328, 2560, 1),
    "US": (1, 768, 1024, 3),
    "US cine": (60, 768, 1024, 3),
    "XA": (40, 512, 512, 1),
}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=32, help="slices")
    parser.add_argument("--costs", action="store_true", help="milliseconds of each feature asked alone")
    parser.add_argument("--cost-table", action="store_true", help="core hours of a million images of each modality")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        # A decoder that starts threads of its own gets no second core either.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = [slice_file(number) for number in range(arguments.n)]
    if arguments.costs:
        print_costs(files[:8])
        return
    if arguments.cost_table:
        print_cost_table()
        return
    names = applicable("CT")
    examiner = Examiner(lambda at: files[int(at.path)], LIMIT)
    locators = [Locator(str(number), None, None, None, hashlib.sha256(data).hexdigest()) for number, data in enumerate(files)]

    def ours() -> None:
        for at in locators:
            examiner.examine(at, names, NOTHING)

    def peer() -> None:
        for data in files:
            hashlib.sha256(data).hexdigest()
            one_by_one(pydicom.dcmread(BytesIO(data)))

    seconds = medians([ours, peer])
    rates = [len(files) / taken for taken in seconds]
    print(line("features_per_core", *rates, "NumPy one by one, first-order and quality features only", "slices/s", len(files)))
    for name, data in encoded_files(files[0]).items():
        _decoding(name, data, arguments.n)
    print(f"peak memory of a child with the text detector: {child_peak_mb(files[0]):.0f} MB")


def _decoding(name: str, data: bytes, times: int) -> None:
    samples = decode(data, LIMIT)
    count = samples.rows * samples.columns * samples.samples * samples.frame_count

    def ours() -> None:
        for _ in range(times):
            for _ in decode(data, LIMIT).frames():
                pass

    def peer() -> None:
        for _ in range(times):
            _ = pydicom.dcmread(BytesIO(data), force=True).pixel_array

    rates = [times * count / taken / 1e6 for taken in medians([ours, peer])]
    print(line(f"decode_{name}", *rates, "pydicom pixel_array", "million samples/s", times))


def slice_file(number: int) -> bytes:
    """A CT slice as a file, each another."""
    part = 1000 * (number % 7) // 7
    hounsfield = PICTURES[("ct_head", "ct_chest")[number % 2]](f"benchmark {number}", (SIDE, SIDE), part)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"2.25.{number + 1}"
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.Modality, dataset.BodyPartExamined, dataset.ImageType = "CT", "ABDOMEN", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    dataset.PixelSpacing, dataset.SliceThickness = ["0.7", "0.7"], "1"
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelData = np.clip(hounsfield + 1024, 0, 4095).astype("<u2").tobytes()
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def encoded_files(native: bytes) -> dict[str, bytes]:
    """An image of each transfer syntax that can be had here."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    found = {"native": native}
    for name, syntax, plugin in (
        ("rle", RLELossless, "pylibjpeg"),
        ("jpeg_ls_lossless", JPEGLSLossless, "pyjpegls"),
        ("jpeg_2000_lossless", JPEG2000Lossless, "pylibjpeg"),
    ):
        dataset = pydicom.dcmread(BytesIO(native))
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, dataset)
        found[name] = buffer.getvalue()
    for name, process in (("jpeg_lossless", "JPEGLosslessProcess14"), ("jpeg_lossless_sv1", "JPEGLosslessProcess14_1")):
        found[name] = in_lossless_jpeg(native, process)
    try:
        from imagecodecs import htj2k_encode

        dataset = pydicom.dcmread(BytesIO(native))
        coded = htj2k_encode(np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns), reversible=True)
        dataset.PixelData = encapsulate([coded])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, dataset)
        found["htj2k_lossless"] = buffer.getvalue()
    except ImportError:
        print("  .. no imagecodecs: decode_htj2k_lossless left out", file=sys.stderr, flush=True)
    for name, file in (
        ("jpeg_baseline", "SC_rgb_jpeg.dcm"),
        ("jpeg_extended", "JPGExtended.dcm"),
        ("jpeg_ls_near_lossless", "SC_rgb_jls_lossy_line.dcm"),
        ("jpeg_2000", "693_J2KI.dcm"),
    ):
        if (folder / file).exists():
            found[name] = (folder / file).read_bytes()
    return found


def in_lossless_jpeg(native: bytes, process: str) -> bytes:
    """A file in lossless JPEG, which only gdcm writes, and only from file to file."""
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain, packed = f"{folder}/plain", f"{folder}/packed"
        Path(plain).write_bytes(native)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(plain)
        reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, process)))
        change.SetInput(reader.GetImage())
        change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(packed)
        writer.Write()
        return Path(packed).read_bytes()


def one_by_one(dataset: pydicom.Dataset) -> dict[str, float]:
    """What NumPy gives for an array, one feature after the other, each from the array itself."""
    array = dataset.pixel_array
    values = array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    inner = values[values > -300]
    laplace = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * values[1:-1, 1:-1]
    corners = values[:-2, :-2] + values[:-2, 2:] + values[2:, :-2] + values[2:, 2:]
    noise = corners + 4 * values[1:-1, 1:-1] - 2 * (laplace + 4 * values[1:-1, 1:-1])
    found: dict[str, float] = {
        "mean": values.mean(),
        "variance": values.var(),
        "skewness": ((values - values.mean()) ** 3).mean() / values.std() ** 3,
        "kurtosis": ((values - values.mean()) ** 4).mean() / values.var() ** 2 - 3,
        "min": values.min(),
        "max": values.max(),
        **{f"p{q}": np.percentile(values, q) for q in (5, 10, 50, 90, 95)},
        "iqr": np.percentile(values, 75) - np.percentile(values, 25),
        "entropy": _entropy(np.histogram(values, 64)[0]),
        "uniformity": float(((np.histogram(values, 64)[0] / values.size) ** 2).sum()),
        "unique": len(np.unique(array)),
        "noise": float(np.median(np.abs(noise))) / 6 / 0.6745,
        "sharpness": float((laplace**2).mean() / values.var()),
        "blank": float(values.min() == values.max()),
        "saturated": float((array >= 4095).mean()),
        "body_area": float((values > -300).sum()) * 0.49 / 100,
        "foreground": float((values > _otsu(array)).mean()),
    }
    for name, (low, high) in {
        "air": (-9e9, -950),
        "lung": (-950, -500),
        "fat": (-190, -30),
        "soft": (-30, 150),
        "bone": (226, 2500),
    }.items():
        found[name] = float(((inner >= low) & (inner < high)).mean())
    rows, columns = np.nonzero(values > -300)
    found |= {"left": columns.min(), "right": columns.max(), "top": rows.min(), "bottom": rows.max()}
    hashlib.sha256(array.tobytes()).hexdigest()
    return found


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _otsu(array: np.ndarray) -> float:
    counts, edges = np.histogram(array, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    total, whole = counts.sum(), (counts * middles).sum()
    return float(middles[np.argmax((whole * below / total - sums) ** 2 / (below * (total - below)))])


def print_costs(files: list[bytes]) -> None:
    """Milliseconds of each feature asked alone, and of all."""
    for name in (*computed(), None):
        wanted = applicable("CT") if name is None else [name]
        for _ in range(3):
            features(decode(files[0], LIMIT), names=wanted)
        taken = []
        for data in files * 5:
            start = time.perf_counter()
            features(decode(data, LIMIT), names=wanted)
            taken.append(time.perf_counter() - start)
        print(f"{name or 'all of them':28} {1000 * float(np.median(taken)):6.2f} ms", flush=True)


def print_cost_table() -> None:
    """Core hours of a million images of typical size, native, features only."""
    for modality, (frames, rows, columns, samples) in TYPICAL.items():
        grey = PICTURES["ct_head"]("cost", (min(rows, SIDE), min(columns, SIDE)), 500)
        tiled = np.tile(grey, (-(-rows // grey.shape[0]), -(-columns // grey.shape[1])))[:rows, :columns]
        dataset = pydicom.dcmread(BytesIO(slice_file(0)))
        dataset.Modality, dataset.Rows, dataset.Columns, dataset.NumberOfFrames = (
            modality.split("/")[0].split()[0],
            rows,
            columns,
            str(frames),
        )
        if samples == 3:
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit = 7
            one = np.repeat((np.clip(tiled, 0, 255)).astype(np.uint8)[:, :, None], 3, axis=2)
        else:
            one = np.clip(tiled + 1024, 0, 4095).astype("<u2")
        dataset.PixelData = one.tobytes() * frames
        buffer = BytesIO()
        pydicom.dcmwrite(buffer, dataset)
        data = buffer.getvalue()
        taken = min(_seconds(partial(_measure, data)) for _ in range(5))
        print(f"| {modality} | {frames} x {rows} x {columns} x {samples} | {1000 * taken:.1f} | {taken * 1e6 / 3600:.1f} |", flush=True)


def _measure(data: bytes) -> None:
    features(decode(data, LIMIT))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def child_peak_mb(data: bytes) -> float:
    """Peak resident memory of a supervised child, its models loaded, after some slices."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "slice.dcm").write_bytes(data)
        at = Locator("slice.dcm", None, None, None, hashlib.sha256(data).hexdigest())
        with Supervised(folder, Limits(60, 2 << 30, LIMIT)) as child:
            for _ in range(8):
                child.examine(at, applicable("CT"), "read")
            assert child._child is not None
            status = Path(f"/proc/{child._child.pid}/status").read_text() if sys.platform == "linux" else "VmHWM: 0"
        return int(next(part.split()[1] for part in status.splitlines() if part.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    main()
