"""What decoders raise becomes one line."""

import struct
import zlib

import pytest

from manymask.errors import ManymaskError, decoding, one_line


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack requires 4 bytes"),
        IndexError("list index out of range"),
        NotImplementedError(),
        RuntimeError("two\nlines"),
        zlib.error("Error -3"),
        StopIteration(),
        RecursionError("maximum recursion depth exceeded"),
        OSError("broken data stream"),
        KeyError("x" * 1000),
    ],
)
def test_errors_of_a_decoder_are_one_line_that_names_the_file(error):
    with (
        pytest.raises(ManymaskError, match=r"^a\.png is damaged, cut short or not supported \(.+\)$") as caught,
        decoding("a.png"),
    ):
        raise error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_errors_of_the_system_and_of_memory_keep_their_meaning():
    with pytest.raises(ManymaskError, match=r"^a\.png: Permission denied$"), decoding("a.png"):
        raise PermissionError(13, "Permission denied", "a.png")
    with pytest.raises(ManymaskError, match=r"^a\.png does not fit into memory"), decoding("a.png"):
        raise MemoryError
    with pytest.raises(ManymaskError, match=r"^as it was$"), decoding("a.png"):
        raise ManymaskError("as it was")


def test_interruptions_pass_through():
    with pytest.raises(KeyboardInterrupt), decoding("a.png"):
        raise KeyboardInterrupt


def test_an_error_that_says_nothing_is_named_by_its_class():
    assert one_line(ZeroDivisionError()) == "ZeroDivisionError"
