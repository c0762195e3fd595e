"""Epoch loop: killed fits go on bit for bit, finished ones are found again, damaged ones are refused."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluate.baselines.networks.fit_plan import FitPlan
from programs.runtime.errors import InputError
from programs.runtime.events import Event, KeptFit, Note, Progress
from programs.runtime.lock import owned
from programs.runtime.one_thread import one_thread
from tests.support.paths import ROOT
from tests.support.torch_threads import two_threads

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from evaluate.baselines.networks import epochs  # noqa: E402 - needs torch
from programs.runtime.tensor_file import read_packed  # noqa: E402 - needs torch

Hook = Callable[[int], None]


def fit(
    folder: Path | None, hook: Hook = lambda number: None, most: int = 6, scored: bool = False
) -> tuple[list, list]:
    """Fit a small network with dropout; `hook` is called within every epoch. Gives all weights and all events."""
    events: list[Event] = []
    with epochs.reproducible(3):
        network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            hook(number)
            x = torch.from_numpy(rng.normal(size=(16, 4)).astype(np.float32))
            losses = (((network(part)[:, 0] - part.sum(dim=1)) ** 2).mean() for part in x.split(8))
            return epochs.take_steps(optimizer, losses)

        held_out = torch.eye(4)
        score = (lambda: -float(((network(held_out)[:, 0] - 1) ** 2).mean())) if scored else None
        epochs.train_epochs(network, optimizer, one_epoch, score, FitPlan("fitting", 6, 3, 3, folder, events.append))
    return [value.tolist() for value in network.state_dict().values()], events


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("last", [1, 4])
def test_an_interrupted_fit_goes_on_bit_for_bit(tmp_path: Path, last: int, scored: bool) -> None:
    def interrupt(number: int) -> None:
        if number > last:
            raise KeyboardInterrupt

    whole, _ = fit(None, scored=scored)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "fit", interrupt, scored=scored)
    trained: list[int] = []
    resumed, events = fit(tmp_path / "fit", trained.append, scored=scored)
    assert resumed == whole
    assert trained[0] == last + 1, "only the epoch that was under way is lost"
    assert KeptFit(f"fitting: goes on after epoch {last}", tmp_path / "fit") in events


def test_a_killed_process_loses_at_most_one_epoch(tmp_path: Path) -> None:
    script = (
        "import time, pathlib, sys\n"
        "from tests.evaluate.baselines.networks.test_epochs import fit\n"
        "fit(pathlib.Path(sys.argv[1]), lambda number: time.sleep(60 if number == 4 else 0))\n"
    )
    folder = tmp_path / "fit"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], cwd=ROOT)  # noqa: S603
    until = time.monotonic() + 60
    while time.monotonic() < until and _epochs_kept(folder) < 3:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    trained: list[int] = []
    resumed, _ = fit(folder, trained.append)
    assert trained == [4, 5, 6]
    assert resumed == fit(None)[0]


def _epochs_kept(folder: Path) -> int:
    path = folder / epochs.UNFINISHED
    try:
        return int(read_packed(path, "damaged")[1]["trained"]["epochs"]) if path.exists() else 0
    except InputError:  # replaced while it was read, which safetensors opens twice
        return 0


def test_a_finished_fit_is_found_again(tmp_path: Path) -> None:
    first, _ = fit(tmp_path / "fit")
    trained: list[int] = []
    again, events = fit(tmp_path / "fit", trained.append)
    assert again == first and not trained
    assert events == [KeptFit(f"fitting: the fit is kept in {tmp_path / 'fit'}", tmp_path / "fit")]
    assert {path.name for path in (tmp_path / "fit").iterdir()} == {epochs.FINISHED, ".lock"}


def test_a_fit_stops_where_dev_is_best_and_says_how_it_goes() -> None:
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.1, 0.9])
    states = []
    network = torch.nn.Linear(1, 1)

    def one_epoch(number: int, rng: np.random.Generator) -> float:
        with torch.no_grad():
            network.weight += 1
        states.append(network.weight.item())
        return 2.0

    events: list[Event] = []
    trained = epochs.train_epochs(
        network,
        torch.optim.SGD(network.parameters()),
        one_epoch,
        lambda: next(scores),
        FitPlan("fitting x", epochs=9, patience=3, seed=0, on_event=events.append),
    )
    assert (trained.epochs, trained.best_epoch, trained.dev_score) == (5, 2, 0.3)
    assert network.weight.item() == states[1] and not network.training
    assert Progress("fitting x", 3, 9, detail="loss 2.000, best dev score 0.3000 after epoch 2") in events
    assert isinstance(events[-1], Progress) and events[-1].done == events[-1].total


@pytest.mark.parametrize("name", [epochs.FINISHED, epochs.UNFINISHED])
@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_damaged_files_are_refused_with_a_remedy(tmp_path: Path, name: str, damage: str) -> None:
    def interrupt(number: int) -> None:
        if number == 3 and name == epochs.UNFINISHED:
            raise KeyboardInterrupt

    folder = tmp_path / "fit"
    with contextlib.suppress(KeyboardInterrupt):
        fit(folder, interrupt)
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(b"nothing of the kind" if damage == "other" else content[:-5] if damage == "cut" else content)
    with pytest.raises(InputError, match=rf"{name}: the kept fit is damaged; delete its folder .*fit to fit again"):
        fit(folder)


def test_a_fit_of_another_network_is_refused(tmp_path: Path) -> None:
    fit(tmp_path / "fit")
    other = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match=r"is of another network; delete its folder"):
        epochs.train_epochs(
            other,
            torch.optim.SGD(other.parameters()),
            lambda number, rng: 0.0,
            None,
            FitPlan("x", epochs=1, patience=1, seed=0, folder=tmp_path / "fit"),
        )


def test_a_second_process_waits_for_the_same_fit(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    folder = tmp_path / "fit"
    with ThreadPoolExecutor(1) as pool:
        with owned(folder):
            waiting = pool.submit(fit, folder)
            time.sleep(0.5)
            assert not waiting.done()
        weights, events = waiting.result(timeout=30)
    assert weights == fit(None)[0]
    assert Note(f"fitting: waiting for process {os.getpid()}, which fits the same") in events


def test_a_loss_that_is_not_finite_says_what_to_do() -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="loss of epoch 1 is not finite; fit with a lower learning rate"):
        epochs.train_epochs(
            network,
            torch.optim.SGD(network.parameters()),
            lambda number, rng: float("nan"),
            None,
            FitPlan("x", epochs=1, patience=1, seed=0),
        )


def test_each_loss_is_computed_after_the_step_on_the_one_before() -> None:
    """So that a generator of losses trains like a loop: minus the weight, twice, moves it up by the rate, twice."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    assert epochs.take_steps(optimizer, (-network.weight.sum() for _ in range(2))) == np.mean([-1.0, -1.5])
    assert network.weight.item() == 2.0
    assert epochs.take_steps(optimizer, iter(())) == 0.0 and network.weight.item() == 2.0


def test_one_thread_is_for_a_while() -> None:
    @one_thread()
    def threads() -> int:
        return int(torch.get_num_threads())

    with two_threads():
        assert threads() == threads() == 1 and torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="stop"), one_thread():
            raise ValueError("stop")
        assert torch.get_num_threads() == 2


def test_a_fit_leaves_threads_and_random_numbers_of_torch_alone() -> None:
    threads, before = torch.get_num_threads(), torch.get_rng_state()
    fit(None)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)
