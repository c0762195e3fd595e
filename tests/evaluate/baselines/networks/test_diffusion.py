"""Diffusion against closed forms; DiffRec's memory; DiffuASR's guides; what augmentation may touch."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluate.baselines import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.interactions import Interactions, distinct_rows
from evaluate.baselines.systems.diff4rec import Diff4Rec
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.diffuasr import DiffuASR
from evaluate.baselines.systems.sasrec import SASRec
from tests.support.cases import training_of

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402 - needs torch

from evaluate.baselines.networks import diffrec_network, diffuasr_augmenter, sequence_training  # noqa: E402
from evaluate.baselines.networks.diff4rec_augmenter import Diff4RecAugmenter, likely_items  # noqa: E402
from evaluate.baselines.networks.diffusion import (  # noqa: E402
    Diffusion,
    TimeSampler,
    linear_betas,
    linear_variances,
    time_embedding,
)
from evaluate.baselines.networks.sequence_diffusion import SequenceDenoiser, train_denoiser  # noqa: E402
from evaluate.baselines.networks.sequence_network import SequenceNetwork  # noqa: E402


def at(time: int, rows: int = 1) -> Any:
    return torch.full((rows,), time)


class TestDiffusion:
    def test_variances_grow_linearly(self) -> None:
        betas = linear_variances(5, 1e-3, 5e-2, first_beta=1e-3)
        np.testing.assert_allclose(1 - np.cumprod(1 - betas), np.linspace(1e-3, 5e-2, 5))
        assert linear_variances(5, 1e-3, 5e-2)[0] == 1e-5, "the first is fixed"

    def test_noising_at_once_is_noising_step_by_step(self) -> None:
        betas = linear_betas(4, 0.1, 0.4)
        diffusion = Diffusion(betas)
        data = torch.tensor([[2.0]])
        mean, variance = 2.0, 0.0
        for time, beta in enumerate(betas, start=1):
            mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
            noised = [diffusion.noised(data, at(time), torch.tensor([[noise]])).item() for noise in (0.0, 1.0)]
            assert noised == pytest.approx([mean, mean + variance**0.5])

    def test_the_posterior_mean_is_that_of_the_joint_normal(self) -> None:
        """x_{t-1} given x_0 is N(a, v), and x_t given x_{t-1} is N(sqrt(1 - β) x_{t-1}, β): Bayes on a grid."""
        betas = linear_betas(4, 0.1, 0.4)
        diffusion = Diffusion(betas)
        x0, xt, time = 0.7, -0.4, 3
        kept = np.cumprod(1 - betas)
        grid = np.linspace(-8, 8, 200_001)
        before = stats.norm.pdf(grid, kept[time - 2] ** 0.5 * x0, (1 - kept[time - 2]) ** 0.5)
        weights = before * stats.norm.pdf(xt, (1 - betas[time - 1]) ** 0.5 * grid, betas[time - 1] ** 0.5)
        expected = float((weights * grid).sum() / weights.sum())
        found = diffusion.posterior_mean(torch.tensor([[x0]]), torch.tensor([[xt]]), at(time)).item()
        assert found == pytest.approx(expected, abs=1e-5)
        assert diffusion.posterior_mean(torch.tensor([[x0]]), torch.tensor([[xt]]), at(1)).item() == pytest.approx(x0)

    def test_ddim_keeps_the_noise(self) -> None:
        diffusion = Diffusion(linear_betas(10, 0.01, 0.3))
        data, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
        noisy = diffusion.noised(data, at(9, 3), noise)
        there = diffusion.ddim_step(data, noisy, at(9, 3), at(4, 3))
        torch.testing.assert_close(there, diffusion.noised(data, at(4, 3), noise))
        torch.testing.assert_close(diffusion.ddim_step(data, noisy, at(9, 3), at(0, 3)), data)

    def test_a_perfect_model_is_recovered_from_noise(self) -> None:
        diffusion = Diffusion(linear_betas(20, 0.01, 0.3))
        truth = torch.randn(2, 3)
        seen: list[int] = []

        def model(noisy: Any, times: Any) -> Any:
            seen.append(int(times[0]))
            return truth

        torch.testing.assert_close(diffusion.sampled(model, torch.randn(2, 3), calls=5), truth)
        assert seen == [20, 16, 12, 8, 4]
        torch.testing.assert_close(diffusion.denoised(model, torch.randn(2, 3)), truth)
        assert seen[5:] == list(range(20, 0, -1))

    def test_loss_weights_are_differences_of_the_ratio_of_signal_to_noise(self) -> None:
        betas = linear_betas(3, 0.1, 0.3)
        kept = np.cumprod(1 - betas)
        ratios = kept / (1 - kept)
        expected = [0, 1, ratios[0] - ratios[1], ratios[1] - ratios[2]]
        np.testing.assert_allclose(Diffusion(betas).loss_weights.numpy(), expected, rtol=1e-5)

    def test_times_have_an_embedding_of_any_width(self) -> None:
        for size in (1, 2, 5, 10):
            assert time_embedding(torch.tensor([1, 2, 3]), size).shape == (3, size)


class TestTimeSampler:
    def test_draws_by_loss_once_every_time_was_seen_and_stays_unbiased(self) -> None:
        torch.manual_seed(0)
        sampler = TimeSampler(3, memory=4, uniform=0.03)
        for time in (1, 2):
            sampler.note(at(time, 4), torch.full((4,), float(time)))
        assert sampler.probabilities().tolist() == pytest.approx([1 / 3] * 3), "the third was seen too seldom"
        sampler.note(at(3, 9), torch.tensor([100.0] * 5 + [7.0] * 4))
        expected = 0.97 * np.array([1, 2, 7]) / 10 + 0.01
        np.testing.assert_allclose(sampler.probabilities().numpy(), expected, rtol=1e-5)
        times, weights = sampler.draw(60_000)
        np.testing.assert_allclose(np.bincount(times.numpy(), minlength=4)[1:] / 60_000, expected, atol=0.01)
        values = torch.tensor([0.0, 5.0, 1.0, 3.0])[times] * weights
        assert values.mean().item() == pytest.approx(3.0, abs=0.1), "as under uniform times"

    def test_its_memory_is_kept_with_the_weights(self) -> None:
        assert set(TimeSampler(3).state_dict()) == {"losses", "seen"}


class _Largest(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Notes the largest array that torch makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.numel())
        return out


class TestDiffRec:
    def test_no_array_of_users_by_items_is_made(self) -> None:
        users, items, settings = 3000, 5000, DiffRec(hidden=4, batch=50, epochs=1)
        rng = np.random.default_rng(0)
        histories = [rng.permutation(items)[:4] for _ in range(users)]
        tracemalloc.start()
        try:
            with _Largest() as made:
                diffrec_network.train_diffrec(histories, items, settings, FitPlan("fit", 1, 1, 0))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert made.largest <= 50 * (items + 10), "a batch of rows is the largest array"
        assert peak < 4 * users * items * 0.7, "nor by numpy"

    def test_newer_items_weigh_more(self) -> None:
        network = diffrec_network.DiffRecNetwork(6, DiffRec(hidden=4, oldest=0.5))
        rows = network.rows([np.array([3, 0, 5]), np.array([2]), np.array([], dtype=np.int64)])
        assert rows.tolist() == [[0.75, 0, 0, 0.5, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6]

    def test_a_new_user_is_ranked_by_history_and_its_order(self) -> None:
        network = diffrec_network.DiffRecNetwork(6, DiffRec(hidden=4)).eval()
        every = np.arange(6)
        one, turned = network.scores(np.array([1, 2]), every), network.scores(np.array([2, 1]), every)
        assert np.abs(one - turned).max() > 0 and np.ptp(one) > 0


def test_an_item_counts_where_it_was_bought_last() -> None:
    data = Interactions.of({"u": ("a", "b", "a"), "nobody": (), "v": ("b",)})
    assert data.users == {"u": 0, "v": 1} and data.items == {"a": 0, "b": 1}
    assert [own.tolist() for own in data.histories] == [[1, 0], [1]]
    assert distinct_rows(["x", "b"], data.items).tolist() == [1]


SMALL: dict[str, Any] = {"dimensions": 8, "heads": 2, "epochs": 2, "validation": 4, "batch": 16, "dropout": 0.0}
HISTORIES = {f"u{n}": [f"i{(n + k) % 20}" for k in range(4 + n % 5)] for n in range(60)}
SEQUENCES = [np.arange(n, n + 4 + n % 5) % 20 for n in range(60)]


class TestDiffuASR:
    @pytest.fixture
    def denoiser(self) -> SequenceDenoiser:
        torch.manual_seed(0)
        settings = DiffuASR(**SMALL, least=4, generated=2, guide=3, steps=20)
        return SequenceDenoiser(torch.randn(20, 8), settings).eval()

    def test_the_guide_has_one_order_in_training_and_in_generation(
        self, denoiser: SequenceDenoiser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The authors' code fills it in one order in training, and in the other in generation."""
        seen: list[Any] = []
        own = SequenceDenoiser.forward

        def spied(self: Any, noisy: Any, times: Any, guide: Any, real: Any) -> Any:
            seen.append((guide.clone(), real.clone()))
            return own(self, noisy, times, guide, real)

        monkeypatch.setattr(SequenceDenoiser, "forward", spied)
        following = [np.array([4, 9, 1, 7])]
        first = torch.tensor([[2, 3]])
        denoiser.loss(first, following, at(5), torch.randn(1, 2, 8), torch.tensor([True]))
        denoiser.generate(following, torch.randn(1, 2, 8))
        (trained, real), (guided, real_too) = seen[0], seen[1]
        torch.testing.assert_close(trained, guided)
        torch.testing.assert_close(trained[0], denoiser.table[[4, 9, 1]])
        assert real.tolist() == real_too.tolist() == [[True] * 3]
        turned = denoiser.generate([np.array([1, 9, 4, 7])], torch.zeros(1, 2, 8))
        assert turned.shape == (1, 2)
        with torch.no_grad():
            guides = [denoiser.guides([rows]) for rows in (following[0], following[0][::-1].copy())]
            outs = [own(denoiser, torch.zeros(1, 2, 8), at(5), *guide) for guide in guides]
        assert (outs[0] - outs[1]).abs().max() > 1e-4, "the order of the guide counts"

    def test_generated_items_are_new_and_differ(self, denoiser: SequenceDenoiser) -> None:
        following = [np.arange(n, n + 6) % 20 for n in range(20)]
        found = denoiser.generate(following, torch.randn(20, 2, 8))
        for own, before in zip(following, found, strict=True):
            assert len({*own.tolist(), *before.tolist()}) == 8

    def test_nothing_is_generated_before_a_sequence_of_nearly_all_items(self, denoiser: SequenceDenoiser) -> None:
        whole, all_but_one, short = np.arange(20), np.arange(19), np.arange(18)
        found = diffuasr_augmenter.generated(denoiser, [whole, short, all_but_one], 0)
        assert [sorted(before.tolist()) for before in found] == [[], [18, 19], []]

    def test_without_a_guide_nothing_of_it_is_read(self, denoiser: SequenceDenoiser) -> None:
        unread = torch.zeros(1, 3, dtype=torch.bool)
        with torch.no_grad():
            one, other = (
                denoiser(torch.ones(1, 2, 8), at(3), denoiser.guides([rows])[0], unread)
                for rows in (np.array([1, 2, 3]), np.array([7, 8, 9]))
            )
        torch.testing.assert_close(one, other)

    def test_training_lowers_the_loss(self) -> None:
        torch.manual_seed(0)
        settings = DiffuASR(**SMALL, least=4, generated=2)
        said: list[Any] = []
        train_denoiser(SEQUENCES, torch.randn(20, 8), settings, FitPlan("fit", 40, 40, 0, None, said.append))
        details = [event.detail for event in said if getattr(event, "detail", "").startswith("loss")]
        first, last = (float(details[place].split()[1].rstrip(",")) for place in (0, -1))
        assert last < 0.7 * first

    def test_generated_items_are_never_targets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            diffuasr_augmenter.DiffuASRAugmenter, "_generated", lambda self, training: np.full((len(training), 3), 19)
        )
        settings = DiffuASR(**SMALL)
        augment = diffuasr_augmenter.DiffuASRAugmenter(settings, SASRec(**SMALL), 20, FitPlan("fit", 2, 5, 0))
        given = augment(1, SEQUENCES, np.random.default_rng(0))
        longer = 0
        for own, (rows, weights) in zip(SEQUENCES, given, strict=True):
            extra = len(rows) - len(own)
            longer += extra == 3
            assert extra in (0, 3) and rows[extra:].tolist() == own.tolist()
            assert weights.tolist() == [0] * extra + [1] * len(own)
        assert 15 < longer < 45, "half of the sequences"


class TestDiff4Rec:
    def augmenter(self, **update: Any) -> Diff4RecAugmenter:
        diffusion = DiffRec(hidden=8, batch=16, epochs=2, validation=4)
        settings = Diff4Rec(**SMALL, diffusion=diffusion, candidates=6, kept=2, **update)
        return Diff4RecAugmenter(settings, diffusion, SASRec(**SMALL), 20, FitPlan("fit", 2, 5, 0))

    def test_inserts_likely_unseen_items_of_easy_users_first(self) -> None:
        augment = self.augmenter(inserted=1.0, ramp=4, auxiliary=0.25)
        for number, expected in ((1, 15), (2, 30), (4, 60), (9, 60)):
            given = augment(number, SEQUENCES, np.random.default_rng(0))
            longer = [len(rows) - len(own) for own, (rows, _) in zip(SEQUENCES, given, strict=True)]
            assert sum(longer) == expected and max(longer) == 1
        for user, (own, (rows, weights)) in enumerate(zip(SEQUENCES, given, strict=True)):
            (place,) = np.nonzero(weights == np.float32(0.25))[0]
            assert place > 0 and np.delete(rows, place).tolist() == own.tolist()
            assert rows[place] not in own
            assert augment._likely is not None and rows[place] in augment._likely.rows[user]

    def test_only_items_that_are_new_to_the_user_are_inserted(self) -> None:
        augment = self.augmenter(inserted=1.0, ramp=1, auxiliary=0.25)
        training = [np.arange(20), np.arange(19), *SEQUENCES[2:]]
        for number in range(1, 5):
            given = augment(number, training, np.random.default_rng(number))
            assert given[0][0].tolist() == list(range(20)), "nothing is new"
            assert sorted(given[1][0].tolist()) == list(range(20)), "one item is"

    def test_kept_items_are_those_that_the_sequence_network_scores_highest(self) -> None:
        torch.manual_seed(0)
        diffusion = diffrec_network.DiffRecNetwork(20, DiffRec(hidden=8)).eval()
        network = SequenceNetwork(SASRec(**SMALL), 20, 60).eval()
        settings = Diff4Rec(**SMALL, candidates=6, kept=2)
        found = likely_items(diffusion, network, SEQUENCES, settings)
        with torch.no_grad():
            for user in (0, 31):
                own = SEQUENCES[user]
                coarse = diffusion.denoised([own])[0]
                coarse[torch.from_numpy(own)] = -np.inf
                six = coarse.topk(6).indices
                fine = network.scores(network.last_states([own], torch.tensor([user])), six)[0]
                assert found.rows[user].tolist() == six[fine.topk(2).indices].tolist()


@pytest.mark.parametrize("baseline", [DiffuASR, Diff4Rec])
def test_augmentation_sees_no_held_out_item_and_only_training_sees_its_items(
    baseline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """What stops the augmented training is in no scorer, and items of the augmentation are in no history."""
    given: list[Any] = []
    own = sequence_training.train

    def spied(sequences: Any, *args: Any, **kwargs: Any) -> Any:
        given.append([rows.tolist() for rows in sequences])
        return own(sequences, *args, **kwargs)

    module = __import__(f"evaluate.baselines.networks.{baseline.name}_augmenter", fromlist=["train"])
    monkeypatch.setattr(module, "train", spied)
    data = TrainingData(training_of(HISTORIES), {})
    ranker = baseline(**SMALL).fit(data, 0, Fitting(tmp_path))
    (scorer,) = given
    whole = [[ranker.rows[item] for item in history] for history in HISTORIES.values()]
    shorter = [one != other for one, other in zip(scorer, whole, strict=True)]
    assert sum(shorter) == 4
    assert all(one == other[:-1] for one, other, cut in zip(scorer, whole, shorter, strict=True) if cut)
    assert {item for rows in scorer for item in rows} <= set(range(20)) and len(ranker.rows) == 20
    again = baseline(**SMALL).fit(data, 0, Fitting(tmp_path))
    assert len(given) == 1, "a kept fit needs no augmentation"
    assert torch.equal(again.network.bias, ranker.network.bias)
