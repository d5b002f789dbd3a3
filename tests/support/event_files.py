"""TensorBoard event files, written and read by the letter of their format."""

import struct

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def record(event):
    """A record of an event file: its length (8 bytes), a checksum (4), the event, a checksum (4)."""
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", masked_crc32c(length)) + event + struct.pack("<I", masked_crc32c(event))


def points(folder):
    """Yield (tag, iteration, value) of every scalar in every event file of a folder. No record may be cut short."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            assert len(content) >= length + 16, f"{path}: half a record"
            event = Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag, event.step, value.simple_value
            content = content[16 + length :]


def scalars(folder):
    """The scalars in a folder of one event file: tag -> [(iteration, value), …]."""
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    found = {}
    for tag, iteration, value in points(folder):
        found.setdefault(tag, []).append((iteration, value))
    return found
