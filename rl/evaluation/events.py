"""Reading TensorBoard's event files, each record held against its checksums."""

import functools
import struct

import numpy as np
from google.protobuf.message import DecodeError
from tensorboardX.proto.event_pb2 import Event

from rl.errors import UserError
from rl.files import check_file

EVENTS = "events.out.tfevents.*"  # the names of event files
_HEAD, _TAIL = 12, 4  # bytes of a record before and after its event


def scalars(path):
    """Read the scalars of an event file: yields (tag, step, value).

    Raises:
        UserError: it cannot be read, is something else, or a record of it is damaged.
    """
    for number, record in enumerate(records(path), 1):
        try:
            event = Event.FromString(record)
        except DecodeError:
            raise UserError(f"{path}: expected TensorBoard events, found something else in record {number}") from None
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value


def records(path):
    """The records of an event file, a list of bytes.

    A record is its length (8 bytes), a checksum (4), the event, a checksum (4). The last one of a run that still
    writes, or was killed, may be cut short and is left out.

    Raises:
        UserError: the file cannot be read, or a record of it is damaged; its number, from 1, is named.
    """
    check_file(path, "TensorBoard events")
    content = path.read_bytes()
    starts, lengths, start = [], [], 0
    while start + _HEAD <= len(content):
        length, checksum = struct.unpack_from("<QI", content, start)
        if _length_checksum(length) != checksum:
            raise _damaged(path, len(starts) + 1)
        if start + _HEAD + length + _TAIL > len(content):
            break
        starts.append(start + _HEAD)
        lengths.append(length)
        start += _HEAD + length + _TAIL
    starts, lengths, octets = np.array(starts, int), np.array(lengths, int), np.frombuffer(content, np.uint8)
    damaged = []
    for length in np.unique(lengths):  # all records of a length at once
        (alike,) = np.nonzero(lengths == length)
        rows = octets[starts[alike, None] + np.arange(length + _TAIL)]
        stored = rows[:, length:].copy().view("<u4")[:, 0]
        damaged.extend(alike[masked_crc(rows[:, :length]) != stored])
    if damaged:
        raise _damaged(path, min(damaged) + 1)
    return [content[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def masked_crc(rows):
    """The checksum of event files, CRC-32C (Castagnoli) rotated by 15 bits and shifted by a constant.

    Args:
        rows: bytes [N, length].

    Returns:
        uint32 [N]
    """
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = _table()[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc ^= np.uint32(0xFFFFFFFF)
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


@functools.cache
def _table():
    """What eight bits do to the remainder, [256]."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ (np.uint32(0x82F63B78) * (table & 1))
    return table


@functools.lru_cache(maxsize=4096)
def _length_checksum(length):
    return int(masked_crc(np.frombuffer(struct.pack("<Q", length), np.uint8)[None])[0])


def _damaged(path, number):
    return UserError(f"{path}: expected TensorBoard events: record {number} does not agree with its checksum")
