"""The list of all pictures that were dropped: its numbers, its order, what it promises, and whom it lets go first."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from manymask import Segmenter
from manymask.data.datasets import phantom
from manymask.inference.outputs import pairwise_agreement
from manymask.inference.review import Review
from manymask.serving import service
from manymask.serving.listing import Listing, Row, fill, most_doubtful_first
from manymask.serving.request_queue import LeftError, RequestQueue
from manymask.serving.service import Limits, SegmentRequest, Subject

gradio_client = pytest.importorskip("gradio_client", reason="the extra `app` is not installed")


@pytest.fixture
def images(tmp_path):
    """Four phantoms."""
    for k in range(4):
        Image.fromarray(phantom.draw(k).image[:, :, 0]).save(tmp_path / f"phantom-{k}.png")
    return sorted(tmp_path.glob("*.png"))


def triage(client, paths, **wanted):
    files = [gradio_client.handle_file(str(path)) for path in paths]
    return client.predict(paths=files, api_name="/triage", **wanted)


def listing_of(folder, paths, **wanted) -> Listing:
    segmenter, opened = Segmenter.from_pretrained(str(folder)), service.open_files(paths, Limits())

    def subject(number: int) -> Subject:
        picture = opened.picture(number, "")
        return Subject(picture, picture, opened.file(number))

    return Listing(segmenter, SegmentRequest(**{"samples": 2, **wanted}), Limits(), opened, subject)


def test_rows_are_what_segment_gives_the_most_doubtful_first(client, page_server, images):
    found = triage(client, images, model="calibrated", seed=3)
    segmenter = Segmenter.from_pretrained(str(page_server.models / "calibrated"))
    expected = {path.stem: segmenter.segment(path, 5, 3) for path in images}
    assert {row["name"] for row in found["rows"]} == set(expected)
    for row in found["rows"]:
        result = expected[row["name"]]
        worst = result.expected
        for name in ("dice", "dice_low", "dice_high", "failure", "presence", "like_training", "doubt"):
            assert row[name] == pytest.approx(getattr(worst, name), rel=1e-3), name
        assert row["agreement"] == pytest.approx(pairwise_agreement((result.masks >= 0.5).numpy()), rel=1e-2)
        assert row["foreign"] is worst.foreign is True
    doubts = [row["doubt"] for row in found["rows"]]
    assert doubts == sorted(doubts, reverse=True)
    held = Review(np.array([row["failure"] for row in found["rows"]]))
    assert found["review"] == 1 and found["calibrated"] and found["ended"] == "whole"
    first, *_, last = found["promise"]
    hold = f"{held.found(1):{'.1f' if held.expected >= 1 else '.1g'}}"
    assert first.startswith(f"Review this 1 of 4 images: it is expected to hold {hold} of")
    assert last.startswith("4 of 4 images are unlike the training images")


def test_without_calibration_the_least_agreement_is_first_and_nothing_is_promised(client, page_server, images):
    found = triage(client, images, model="whole", samples=3)
    agreements = [row["agreement"] for row in found["rows"]]
    assert agreements == sorted(agreements) and len(set(agreements)) == 4
    assert [row["doubt"] for row in found["rows"]] == pytest.approx([1 - each for each in agreements])
    assert all(row["dice"] is row["failure"] is row["presence"] is None for row in found["rows"])
    assert found["calibrated"] is False
    assert found["promise"] == [
        "Nothing is promised. The model is not calibrated: no Dice is predicted, and no outline is promised. Images are sorted "
        "by how little their masks agree."
    ]
    off = triage(client, images[:2], model="calibrated", samples=3)
    assert off["promise"][0].startswith(
        "Nothing is promised. This result is off the calibration, which holds for 5 masks"
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"model": "whole", "samples": 1}, "one mask has no other to agree with"),
        ({"model": "crops"}, "needs a click in each image"),
        ({"model": "whole", "samples": 99}, "choose 1 to 16 masks"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_message(client, images, wanted, message):
    with pytest.raises(Exception, match=message):
        triage(client, images[:2], **wanted)


def test_picture_that_cannot_be_segmented_is_a_row_with_the_reason_and_counts_for_nothing(client, page_server, images):
    Image.new("L", (70, 70), 9).save(images[0])
    found = triage(client, images, model="calibrated")
    assert found["rows"][-1]["name"] == "phantom-0" and "flat" in found["rows"][-1]["error"]
    assert str(page_server.folder) not in found["rows"][-1]["error"] and found["rows"][-1]["doubt"] is None
    assert found["failed"] == 1 and found["promise"][0].startswith("Review this 1 of 3 images")


def test_rows_without_a_doubt_come_last_and_equals_stay_in_order():
    rows = [Row(1, "a", error="flat"), Row(2, "b", doubt=0.1), Row(3, "c", doubt=0.7), Row(4, "d", doubt=0.1)]
    assert [row.name for row in most_doubtful_first(rows)] == ["c", "b", "d", "a"]


def test_stopped_list_keeps_its_rows_and_speaks_of_them_alone(page_server, images):
    listing, line = listing_of(page_server.models / "calibrated", images, samples=5), RequestQueue(5, 5)
    with line.place("me", "one") as ticket:
        for _ in fill(listing, ticket, str):
            if len(listing.rows) == 2:
                line.stop("me")
    assert listing.ended == "stopped" and len(listing.rows) == 2
    assert listing.value()["promise"][0].startswith("Review this 1 of 2 images")


def test_list_of_a_visitor_who_left_ends_at_once(page_server, images):
    listing, line = listing_of(page_server.models / "whole", images), RequestQueue(5, 5)
    with line.place("me", "one") as ticket, pytest.raises(LeftError):
        for _ in fill(listing, ticket, str):
            line.leave("me")
    assert len(listing.rows) == 1


def test_others_draw_between_two_pictures_of_a_list(page_server, images):
    listing, line = listing_of(page_server.models / "whole", images), RequestQueue(5, 5)
    drew = threading.Event()
    rows_then = []

    def other():
        with line.place("you", "two") as mine:
            mine.wait()
            rows_then.append(len(listing.rows))
            drew.set()

    with line.place("me", "one") as ticket:
        thread = None
        for _ in fill(listing, ticket, str):
            if thread is None:
                thread = threading.Thread(target=other)
                thread.start()
                while len(line._tickets) < 2:
                    time.sleep(0.01)
        thread.join()
    assert drew.is_set() and rows_then == [1] and [row.number for row in listing.rows] == [1, 2, 3, 4]


def test_slices_of_a_volume_are_listed_by_their_numbers(client, tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="the extra `nifti` is not installed")
    volume = np.stack([phantom.draw(k).image[:, :, 0].T for k in range(3)], axis=2)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    found = triage(client, [tmp_path / "scan.nii.gz"], model="calibrated")
    assert found["kind"] == "Slice" and sorted(row["number"] for row in found["rows"]) == [1, 2, 3]
    assert all(row["name"].endswith(f"slice {row['number']}") for row in found["rows"])


def test_list_keeps_no_masks(page_server, images):
    listing, line = listing_of(page_server.models / "whole", images), RequestQueue(5, 5)
    with line.place("me", "one") as ticket:
        list(fill(listing, ticket, str))
    for row in listing.value()["rows"]:
        assert all(value is None or isinstance(value, str | float | int) for value in row.values())


def test_time_of_a_list_is_bounded(page_server, images, monkeypatch):
    monkeypatch.setattr("manymask.serving.listing.LONGEST", 0.0)
    listing, line = listing_of(page_server.models / "whole", images), RequestQueue(5, 5)
    with line.place("me", "one") as ticket:
        list(fill(listing, ticket, str))
    assert listing.ended == "late" and len(listing.rows) == 1
