"""How much memory a large image takes, measured on the whole way from the file to the results."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 2400, 2500
METER = """
import ctypes
import sys
from pathlib import Path

def kilobytes(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])

libc = ctypes.CDLL(None)
libc.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 2 MiB would count as used where 4 KiB are
if hasattr(libc, "mallopt"):
    libc.mallopt(-3, 1 << 22)  # M_MMAP_THRESHOLD, fixed: what is freed counts no more; it may stay with the process otherwise
"""
SCRIPT = (
    METER
    + """
from manymask.io.inputs import find_inputs
from manymask.inference.segmenter import Segmenter
from manymask.inference.batch import Request, segment_all

model, small, large, out = map(Path, sys.argv[1:])
segmenter, request = Segmenter.from_pretrained(model), Request(out)
segment_all(segmenter, find_inputs([small]).inputs, request)  # what is loaded late counts as the program's own
before = kilobytes("VmRSS")
assert segment_all(segmenter, find_inputs([large]).inputs, request).done == 1
print(kilobytes("VmHWM") - before)
"""
)
WINDOWS = (
    METER
    + """
import numpy as np
from manymask.inference.segmenter import Segmenter

segmenter = Segmenter.from_pretrained(sys.argv[1])

def peak_of(work, side):
    \"\"\"Kilobytes that work on an image of this side takes at most, beside the image and what the program holds.\"\"\"
    image = np.tile(np.arange(256, dtype=np.uint8).repeat(side // 256), (side, 1))
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    work(image)
    return kilobytes("VmHWM") - before

def draw(image):
    for masks in segmenter.draw(segmenter.look(image, tile=512), 1):
        assert masks.shape[-1] == len(image) // 8

def segment(image):
    assert segmenter.segment(image, 1, tile=512).consensus.shape == image.shape

peak_of(draw, 1024)
print(*(peak_of(work, side) for work in (draw, segment) for side in (1024, 4096)))
"""
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_large_image_takes_little_more_memory_than_its_results(drawing_model, tmp_path):
    """In bytes per pixel: five masks and four maps as floats, 36; the cut masks, 6; the image, 2; and 4 to spare."""
    ramp = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 20).astype(np.uint8)
    for name, pixels in (("small", ramp[:64, :64]), ("large", ramp)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png", compress_level=1)
    arguments = [drawing_model, tmp_path / "small.png", tmp_path / "large.png", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 48 * ramp.size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux' /proc")
def test_windows_take_no_memory_that_grows_with_the_image_but_that_of_its_maps(drawing_model):
    """Drawing takes pixels, mask and weights as floats at an eighth of the sides, 0.2 bytes per pixel, and a copy of the image;
    the whole result also takes mask and four maps as floats, 20. The bounds are about half as much again."""
    done = subprocess.run([sys.executable, "-c", WINDOWS, str(drawing_model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn_small, drawn_large, small, large = (1024 * int(number) for number in done.stdout.split())
    more = 4096**2 - 1024**2
    assert drawn_large - drawn_small < 2 * more
    assert large - small < 32 * more
