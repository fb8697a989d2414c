"""Small real things that the tests share: a store of a few phantoms, and a recipe that trains in seconds."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro
from hypothesis import settings

from manymask.data.case import Source, random_scheme
from manymask.data.datasets import phantom
from manymask.data.store import Store, prepare
from manymask.recipes import Recipe
from tests.factories import perturb, shortened, tiny_recipe

# the same examples everywhere, however slow the machine; `--hypothesis-profile=default` looks for more
settings.register_profile("same-everywhere", derandomize=True, deadline=None)
settings.load_profile("same-everywhere")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """Graphs that tests build are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYMASK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread():
    """How a sum is split among threads moves its last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return tiny_recipe()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    cases = phantom.read().cases[:24]
    source = Source("phantom", cases, {"random": random_scheme({c.id: c.id for c in cases}, 0)}, "Apache-2.0")
    return prepare(source, tmp_path_factory.mktemp("data") / "store", 64, 1)


@pytest.fixture(scope="session")
def trained_run(recipe: Recipe, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with all three stages trained for two steps."""
    from manymask.training.trainer import TrainConfig, fit

    run = tmp_path_factory.mktemp("run")
    short = shortened(recipe, 2)
    for stage in ("image-codec", "mask-codec", "segmenter"):
        fit(TrainConfig(short, stage, store, run, precision="fp32"))
    return run


@pytest.fixture(scope="session")
def drawing_model(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose masks are neither empty nor full, nor equal: what two steps of training do not give."""
    from manymask.hub.model_folder import TrainedModel, save_model
    from manymask.hub.provenance import Provenance

    folder = tmp_path_factory.mktemp("drawing") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = perturb(recipe.build("segmenter"), scale=0.2)
    save_model(TrainedModel(model, recipe, "segmenter", Provenance(), []), folder)
    return folder


@pytest.fixture(scope="session")
def page_server(tmp_path_factory: pytest.TempPathFactory):
    """`manymask serve`, shared by all tests of the page."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed")
    from tests.page_server import serving

    flags = ("--max-megabytes", "3", "--max-megabytes-at-once", "8", "--max-waiting", "20", "--max-waiting-each", "21")
    with serving(tmp_path_factory.mktemp("page"), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium; without a graphics card it draws WebGL in software."""
    api = pytest.importorskip("playwright.sync_api", reason="the extra `test` is not installed: no playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield found
        found.close()


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int | str | None]:
    """Gives the exit status of a command line whose verbs do nothing, so that it only parses."""
    from manymask.cli import main

    def idle(verb: Callable[..., Any]) -> Callable[..., None]:
        return functools.wraps(verb)(lambda *arguments, **settings: None)

    def parse_only(*arguments: Any, **settings: Any) -> None:
        tyro_cli(*arguments, **settings)
        raise SystemExit(0)

    def status(arguments: list[str]) -> int | str | None:
        try:
            return main.run(arguments)
        except SystemExit as stop:  # --help, or an argument that does not parse
            return stop.code

    for verb, function in main.VERBS.items():
        monkeypatch.setitem(main.VERBS, verb, idle(function))
    tyro_cli = tyro.cli  # `train` calls it itself, since its flags depend on the recipe
    monkeypatch.setattr(tyro, "cli", parse_only)
    return status
