"""Which pixels of a mask file are foreground, by value; and what is refused because it can be read in several ways."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from manymask.errors import InputError
from manymask.io.masks import MaskReading, read_mask

SHAPE = np.zeros((8, 10), bool)
SHAPE[2:5, 3:9] = True


def save(path, pixels, **options):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack")
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


def indexed(path, indices, colours, **options):
    image = Image.fromarray(indices.astype(np.uint8), mode="P")
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
@pytest.mark.parametrize("pixels", [SHAPE, SHAPE.astype(np.uint8), SHAPE * np.uint8(255), SHAPE * np.uint8(7)])
@pytest.mark.parametrize("threshold", [None, 1, 0.5, 128, 255, 300])
def test_black_and_white_is_never_emptied_by_a_threshold(tmp_path, suffix, pixels, threshold):
    path = save(tmp_path / f"m.{suffix}", pixels)
    assert (read_mask(path, MaskReading(threshold)) == SHAPE).all()
    assert (read_mask(path, MaskReading(threshold, invert=True)) == ~SHAPE).all()


@pytest.mark.parametrize("value", [0, 1, 255])
def test_one_value_alone_is_empty_or_full(tmp_path, value):
    path = save(tmp_path / "m.png", np.full((4, 4), value, np.uint8))
    for threshold in (None, 128):
        assert (read_mask(path, MaskReading(threshold)) == (value > 0)).all()


def test_soft_masks_of_bytes_are_cut_where_it_is_said(tmp_path):
    ramp = np.tile(np.arange(0, 250, 25, dtype=np.uint8), (8, 1))
    path = save(tmp_path / "m.png", ramp)
    with pytest.raises(
        InputError,
        match=r"m\.png: a mask must hold 0 and one other value, found 0, 25, .*cut a soft mask at a threshold, or choose",
    ):
        read_mask(path)
    assert (read_mask(path, MaskReading(100)) == (ramp >= 100)).all()
    assert (read_mask(path, MaskReading(0.5)) == (ramp >= 127.5)).all()
    deep = save(tmp_path / "m.tif", ramp.astype(np.uint16) * 257)
    assert (read_mask(deep, MaskReading(0.5)) == (ramp >= 127.5)).all()


def test_jpeg_masks_with_traces_of_colour(tmp_path):
    rough = np.repeat(SHAPE[:, :, None] * np.uint8(255), 3, axis=2).repeat(8, 0).repeat(8, 1)
    Image.fromarray(rough).save(tmp_path / "m.jpg", quality=60)
    found = read_mask(tmp_path / "m.jpg", MaskReading(128))
    assert (found == SHAPE.repeat(8, 0).repeat(8, 1)).mean() > 0.99


def test_soft_masks_of_shares_are_cut_at_half(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 10, dtype=np.float32), (8, 1))
    path = save(tmp_path / "m.tif", ramp)
    assert (read_mask(path) == (ramp >= 0.5)).all()
    assert (read_mask(path, MaskReading(0.8)) == (ramp >= 0.8)).all()
    assert (read_mask(path, MaskReading(128)) == (ramp >= 128 / 255)).all()
    assert (read_mask(save(tmp_path / "a.tif", ramp * 0)) == 0).all()
    faint = save(tmp_path / "b.tif", ramp * np.float32(0.4))
    with pytest.raises(
        InputError,
        match=r"b\.tif: nothing in this soft mask reaches 0\.5, its largest value is 0\.4.*say where to cut",
    ):
        read_mask(faint)
    assert (read_mask(faint, MaskReading(0.2)) == (ramp * np.float32(0.4) >= 0.2)).all()


def test_labels_are_chosen(tmp_path):
    labels = np.arange(80, dtype=np.uint8).reshape(8, 10) % 3
    for path in (save(tmp_path / "m.png", labels), save(tmp_path / "m.tif", labels.astype(np.float32))):
        with pytest.raises(InputError, match=r"found 0, 1, 2; .*choose the labels"):
            read_mask(path)
        with pytest.raises(
            InputError, match=r"nothing reaches the threshold 128, the mask holds 0, 1, 2; .*choose the labels"
        ):
            read_mask(path, MaskReading(128))
        assert (read_mask(path, MaskReading(labels=(1,))) == (labels == 1)).all()
        assert (read_mask(path, MaskReading(labels=(1, 2))) == (labels > 0)).all()
        assert (read_mask(path, MaskReading(labels=(2,), invert=True)) == (labels != 2)).all()


class TestIndexed:
    VOC = ((0, 0, 0), (128, 0, 0), (0, 128, 0))

    @pytest.mark.parametrize("threshold", [None, 1, 128])
    def test_index_0_is_background(self, tmp_path, threshold):
        for index in (1, 2):
            path = indexed(tmp_path / "m.png", SHAPE * index, self.VOC)
            assert (read_mask(path, MaskReading(threshold)) == SHAPE).all()

    def test_several_are_listed_and_chosen(self, tmp_path):
        indices = np.arange(80).reshape(8, 10) % 3
        path = indexed(tmp_path / "m.png", indices, self.VOC)
        for reading in (None, MaskReading(1)):
            with pytest.raises(InputError, match=r"m\.png holds the labels 0, 1, 2; choose those of the foreground"):
                read_mask(path, reading)
        assert (read_mask(path, MaskReading(labels=(2,))) == (indices == 2)).all()

    def test_a_palette_of_greys_means_its_greys(self, tmp_path):
        path = indexed(tmp_path / "m.png", ~SHAPE, ((255, 255, 255), (0, 0, 0)))
        assert (read_mask(path) == SHAPE).all()

    def test_a_background_that_is_not_clear_is_refused(self, tmp_path):
        path = indexed(tmp_path / "m.png", ~SHAPE, ((255, 0, 0), (0, 0, 0)))
        with pytest.raises(InputError, match=r"index 1 of its palette is black, index 0 is not"):
            read_mask(path)
        assert (read_mask(path, MaskReading(labels=(0,))) == SHAPE).all()

    def test_a_transparent_background_is_still_index_0(self, tmp_path):
        path = indexed(tmp_path / "m.png", SHAPE * 2, self.VOC, transparency=0)
        assert (read_mask(path) == SHAPE).all()


class TestTransparent:
    def image(self, path, colours, alpha):
        pixels = np.dstack([np.broadcast_to(colours, (*SHAPE.shape, 3)), alpha]).astype(np.uint8)
        return save(path, pixels)

    @pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 0, 30)])
    @pytest.mark.parametrize("threshold", [None, 128])
    def test_the_shape_in_alpha_is_the_mask(self, tmp_path, colour, threshold):
        path = self.image(tmp_path / "m.png", colour, SHAPE * 255)
        assert (read_mask(path, MaskReading(threshold)) == SHAPE).all()

    def test_what_cannot_be_seen_has_no_say(self, tmp_path):
        colours = np.where(SHAPE[:, :, None], 0, 255)
        assert (read_mask(self.image(tmp_path / "m.png", colours, SHAPE * 255)) == SHAPE).all()

    def test_a_soft_edge_is_cut_at_half(self, tmp_path):
        alpha = np.tile(np.arange(0, 250, 25), (8, 1))
        path = self.image(tmp_path / "m.png", (0, 0, 0), alpha)
        assert (read_mask(path) == (alpha >= 127.5)).all()
        assert (read_mask(path, MaskReading(200)) == (alpha >= 200)).all()

    def test_two_shapes_are_refused(self, tmp_path):
        alpha = np.where(np.arange(10) < 5, 255, 0) * np.ones((8, 1))
        path = self.image(tmp_path / "m.png", SHAPE[:, :, None] * 255, alpha)
        with pytest.raises(InputError, match=r"m\.png has one shape in its colours and another in its transparency"):
            read_mask(path)

    def test_an_opaque_alpha_channel_does_not_matter(self, tmp_path):
        path = self.image(tmp_path / "m.png", SHAPE[:, :, None] * 255, SHAPE * 0 + 255)
        assert (read_mask(path) == SHAPE).all()

    def test_grey_with_alpha(self, tmp_path):
        pixels = np.dstack([SHAPE * 0, SHAPE * 255]).astype(np.uint8)
        Image.fromarray(pixels, mode="LA").save(tmp_path / "m.png")
        assert (read_mask(tmp_path / "m.png") == SHAPE).all()


def test_colours(tmp_path):
    red = SHAPE[:, :, None] * np.array([255, 0, 0], np.uint8)
    assert (read_mask(save(tmp_path / "a.png", red)) == SHAPE).all()
    red[0, 0] = (0, 0, 9)
    with pytest.raises(
        InputError, match=r"b\.png: a mask must .* this one has colours \(2 beside black\); .*choose the labels"
    ):
        read_mask(save(tmp_path / "b.png", red))


def test_white_is_zero_is_heeded(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", ~SHAPE, photometric="miniswhite")
    assert (read_mask(tmp_path / "m.tif") == SHAPE).all()
    tifffile.imwrite(tmp_path / "n.tif", (~SHAPE).astype(np.float32), photometric="miniswhite")
    assert (read_mask(tmp_path / "n.tif") == SHAPE).all()
