"""Files made to break decoders: bombs, loops, lies about sizes. Each is small, and real decoders are what meets it."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
from instances import dicom_bytes, instance, pydicom_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless


def _with(name, syntax, change):
    """One of pydicom's files with its first frame changed."""
    dataset = pydicom.dcmread(BytesIO(pydicom_file(name)))
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    changed = change(frame)
    dataset.PixelData = encapsulate([bytes(changed)])
    dataset["PixelData"].is_undefined_length = True
    return dicom_bytes(dataset, syntax)


def _j2k(rows, columns):
    def change(frame):
        at = frame.find(b"\xff\x4f\xff\x51")
        struct.pack_into(">2I", frame, at + 8, columns, rows)
        # One tile of the whole, so that the decoder would want it all at once.
        struct.pack_into(">2I", frame, at + 24, columns, rows)
        return frame

    return change


def _jpeg(rows, columns):
    def change(frame):
        at = frame.find(b"\xff\xc0")
        struct.pack_into(">2H", frame, at + 5, rows, columns)
        return frame

    return change


def _one_byte(name, at, value):
    data = bytearray(pydicom_file(name))
    data[at] = value
    return bytes(data)


# Found by changing bytes of pydicom's files at random until a decoder of requirements.lock fell.
def segmentation_fault():
    """A lossless JPEG frame that makes gdcm read where nothing is."""
    return _one_byte("SC_rgb_jpeg_gdcm.dcm", 1358, 127), {"crashed"}


def abort():
    """A JPEG frame that pillow refuses and that makes libjpeg end its process."""
    return _one_byte("SC_rgb_dcmtk_+eb+cy+s4.dcm", 1777, 116), {"crashed"}


def endless():
    """A JPEG-LS frame that is decoded until time or memory ends it."""
    return _one_byte("MR_small_jpeg_ls_lossless.dcm", 1556, 0)


def fifty_gigabytes():
    """A header that claims 50 GB."""
    return dicom_bytes(instance(Rows=65535, Columns=65535, NumberOfFrames="6")), {"too_large"}


def inflated():
    """A deflated data set that inflates to 1.6 GB."""
    head = dicom_bytes(instance(np.zeros((8, 8), np.uint16)), DeflatedExplicitVRLittleEndian)
    # The data set begins after the file meta information, whose first element says how long the rest is.
    meta = 132 + 12 + int(pydicom.dcmread(BytesIO(head)).file_meta.FileMetaInformationGroupLength)
    plain = dicom_bytes(instance(np.zeros((8, 8), np.uint16)))
    body = plain[132 + 12 + int(pydicom.dcmread(BytesIO(plain)).file_meta.FileMetaInformationGroupLength) :]
    squeeze = zlib.compressobj(1, wbits=-15)
    begun = squeeze.compress(body) + squeeze.flush(zlib.Z_FULL_FLUSH)
    # 16 MB that refer to nothing before them, a hundred times over.
    zeros = squeeze.compress(bytes(1 << 24)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return head[:meta] + begun + 100 * zeros + squeeze.flush(), {"out_of_memory", "crashed"}


def larger_codestream():
    """A JPEG 2000 frame that claims 60,000 x 60,000 pixels behind a header of another size."""
    return _with("JPEG2000.dcm", JPEG2000, _j2k(60000, 60000)), {"undecodable"}


def larger_header_and_codestream():
    """Both claim what memory cannot hold, though below the limit of samples."""
    dataset = pydicom.dcmread(BytesIO(_with("JPEG2000.dcm", JPEG2000, _j2k(20000, 20000))))
    dataset.Rows, dataset.Columns = 20000, 20000
    return dicom_bytes(dataset, JPEG2000), {"undecodable", "out_of_memory", "crashed"}


def larger_jpeg():
    """A JPEG frame of 65,535 x 65,535 pixels."""
    return _with("SC_rgb_jpeg_dcmtk.dcm", JPEGBaseline8Bit, _jpeg(65535, 65535)), {"undecodable"}


def cut_jpeg_ls():
    """A JPEG-LS frame cut off in its middle; there are decoders that fill up the rest with something."""
    return _with("MR_small_jpeg_ls_lossless.dcm", JPEGLSLossless, lambda frame: frame[: len(frame) // 4 * 2]), {"undecodable"}


def cut_jpeg():
    """The same of JPEG."""
    return _with("SC_rgb_jpeg_dcmtk.dcm", JPEGBaseline8Bit, lambda frame: frame[: len(frame) // 4 * 2]), {"undecodable"}


def cut_jpeg_2000():
    """The same of JPEG 2000."""
    return _with("MR_small_jp2klossless.dcm", JPEG2000, lambda frame: frame[: len(frame) // 4 * 2]), {"undecodable"}


_MADE = (
    segmentation_fault,
    abort,
    fifty_gigabytes,
    inflated,
    larger_codestream,
    larger_header_and_codestream,
    larger_jpeg,
    cut_jpeg_ls,
    cut_jpeg,
    cut_jpeg_2000,
)
FILES = {made.__name__: made for made in _MADE}
