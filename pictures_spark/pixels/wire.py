"""Messages between a Spark task and its child: JSON and plain arrays, with their length in front.

No pickle: the child has decoded untrusted bytes with native code, and what comes back from it must not be able to run anything.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

LENGTH = struct.Struct(">Q")
# A message is at most this long: two projections of the largest frame and their energies stay far below.
LONGEST = 1 << 32
_TYPES = ("uint8", "float32")
_HEAD = struct.Struct(">I")


def pack(message: dict[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """One message with its length in front."""
    given = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    head = json.dumps([message, [[name, array.dtype.name, array.shape] for name, array in given.items()]]).encode()
    body = b"".join([_HEAD.pack(len(head)), head, *(array.tobytes() for array in given.values())])
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A message without the length in front.

    Raises
    ------
    ValueError
        The bytes are not a message.
    """
    try:
        (size,) = _HEAD.unpack_from(body)
        message, described = json.loads(body[_HEAD.size : _HEAD.size + size])
        at = _HEAD.size + size
        arrays = {}
        for name, kind, shape in described:
            if kind not in _TYPES or any(not isinstance(n, int) or n < 0 for n in shape):
                raise ValueError
            count = int(np.prod(shape, dtype=object)) if shape else 1
            arrays[str(name)] = np.frombuffer(body, kind, count, at).reshape(shape)
            at += arrays[name].nbytes
    except (struct.error, TypeError, KeyError, UnicodeDecodeError, ValueError):
        raise ValueError("not a message of the pixels child") from None
    if at != len(body) or not isinstance(message, dict):
        raise ValueError("not a message of the pixels child")
    return message, arrays
