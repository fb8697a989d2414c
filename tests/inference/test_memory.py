"""How much memory a large image takes, measured on the whole way from the file to the results."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HEIGHT, WIDTH = 2400, 2500
SCRIPT = """
import ctypes
import sys
from pathlib import Path
from manymask.io.inputs import find_inputs
from manymask.inference.segmenter import Segmenter
from manymask.inference.batch import Request, segment_all

def kilobytes(name):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1])

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 2 MiB would count as used where 4 KiB are
model, small, large, out = map(Path, sys.argv[1:])
segmenter, request = Segmenter.from_pretrained(model), Request(out)
segment_all(segmenter, find_inputs([small]).inputs, request)  # what is loaded late counts as the program's own
before = kilobytes("VmRSS")
assert segment_all(segmenter, find_inputs([large]).inputs, request).done == 1
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux' /proc")
def test_large_image_takes_little_more_memory_than_its_results(drawing_model, tmp_path):
    """In bytes per pixel: five masks and four maps as floats, 36; the cut masks, 6; the image, 2; and 12 to spare."""
    ramp = (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 20).astype(np.uint8)
    for name, pixels in (("small", ramp[:64, :64]), ("large", ramp)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png", compress_level=1)
    arguments = [drawing_model, tmp_path / "small.png", tmp_path / "large.png", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 56 * ramp.size
