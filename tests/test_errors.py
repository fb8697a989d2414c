"""What decoders raise becomes one line; errors are types with fields, and name no flags."""

import ast
import pickle
import re
import struct
import zlib
from pathlib import Path

import pytest

import manymask
from manymask.diffusion.sampling import SamplingConfig
from manymask.errors import (
    ConfigError,
    DataLeakError,
    InputError,
    ManymaskError,
    MissingExtraError,
    decoding,
    one_line,
)
from manymask.io.raster import read_noted


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
        pytest.raises(InputError, match=r"^a\.png is damaged, cut short or not supported \(.+\)$") as caught,
        decoding("a.png"),
    ):
        raise error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_errors_of_the_system_and_of_memory_keep_their_meaning():
    with pytest.raises(InputError, match=r"^a\.png: Permission denied$"), decoding("a.png"):
        raise PermissionError(13, "Permission denied", "a.png")
    with pytest.raises(InputError, match=r"^a\.png does not fit into memory"), decoding("a.png"):
        raise MemoryError
    with pytest.raises(ManymaskError, match=r"^as it was$"), decoding("a.png"):
        raise ManymaskError("as it was")


def test_interruptions_pass_through():
    with pytest.raises(KeyboardInterrupt), decoding("a.png"):
        raise KeyboardInterrupt


def test_an_error_that_says_nothing_is_named_by_its_class():
    assert one_line(ZeroDivisionError()) == "ZeroDivisionError"


def test_fields_survive_another_wording_and_another_process():
    error = MissingExtraError("a.nii: no reader", path="a.nii", extra="nifti", package="nibabel")
    for same in (error.reworded("b.nii: no reader"), pickle.loads(pickle.dumps(error))):
        assert type(same) is MissingExtraError and same is not error
        assert (same.path, same.extra, same.package) == ("a.nii", "nifti", "nibabel")
    assert str(error.reworded("b.nii: no reader")) == "b.nii: no reader" and str(error) == "a.nii: no reader"


def test_files_settings_and_leaks_are_told_apart(tmp_path):
    with pytest.raises(InputError) as missing:
        read_noted(tmp_path / "none.png")
    assert missing.value.path == tmp_path / "none.png"
    with pytest.raises(ConfigError) as wrong:
        SamplingConfig(steps=0)
    assert wrong.value.parameter == "steps"
    assert DataLeakError("1 case", cases=["a"]).cases == ("a",)


def _texts_of_errors(module: Path) -> list[str]:
    """All texts in calls of error types."""
    calls = [node for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id.endswith("Error")]
    constants = [node.value for call in made for node in ast.walk(call) if isinstance(node, ast.Constant)]
    return [text for text in constants if isinstance(text, str)]


def test_errors_outside_of_command_line_and_page_name_no_flags():
    root = Path(manymask.__file__).parent
    core = [path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in ("cli", "serving")]
    texts = {(path.name, text) for path in core for text in _texts_of_errors(path)}
    assert len(texts) > 300
    assert not {text for text in texts if re.search(r"(?<![\w-])--[a-z]|click on", text[1])}
