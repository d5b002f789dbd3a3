"""glibc's account of what it has allocated, for libraries too (from 2.33 on)."""

import ctypes

LIBRARY = ctypes.CDLL(None)
KNOWN = hasattr(LIBRARY, "mallinfo2")


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
    )]  # fmt: skip


def account():
    """The account as it stands; None where the C library does not say."""
    if not KNOWN:
        return None
    LIBRARY.mallinfo2.restype = Mallinfo2
    return LIBRARY.mallinfo2()


def mapped_alone():
    """Whether malloc asks the system for a large block alone, as glibc does until it is told to keep what is freed;
    None where the C library does not say.
    """
    if not KNOWN:
        return None
    LIBRARY.malloc.restype, LIBRARY.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    LIBRARY.free.argtypes = [ctypes.c_void_p]
    before = account().hblks
    block = LIBRARY.malloc(30 << 20)
    after = account().hblks
    LIBRARY.free(block)
    return after > before
