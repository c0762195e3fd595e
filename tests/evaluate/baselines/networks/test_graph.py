"""Graphs: propagation and its gradient, BPR, both directions of every edge, attention, picks, and kept fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from evaluate.baselines import TRAINED, Baseline, TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.knowledge import RELATIONS, KnowledgeGraph
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.kgat import KGAT
from evaluate.baselines.systems.llmrec import LLMRec
from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.cases import draw_cases
from programs.motivation_encoder import MotivationEncoder
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import ContentSimilarity
from programs.runtime.errors import InputError
from programs.runtime.events import Event, KeptFit, Note, Progress
from signatures.schema import CONSUMER
from signatures.types import Item
from tests.support.cases import case, training_of

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from evaluate.baselines.networks import graph, kgat_network, llmrec_network  # noqa: E402 - needs torch
from evaluate.baselines.networks.epochs import take_steps  # noqa: E402

ITEMS = 12
HISTORIES = {f"u{n}": [f"i{(n + k) % ITEMS}" for k in range(4)] for n in range(40)}
ROWS = [np.array([(n + k) % ITEMS for k in range(4)]) for n in range(40)]
TINY: dict[str, Any] = {"dimensions": 8, "epochs": 3, "batch": 64, "validation": 4}


def shop() -> TrainingData:
    """Twelve items of three kinds that people buy, and one of each kind that nobody has."""
    items = {
        one: Item(
            item_id=one, title=f"thing {one} of kind {n % 3}", categories=((f"kind {n % 3}",),), price=1.0 + n % 3
        )
        for n, one in enumerate([*(f"i{n}" for n in range(ITEMS)), "new0", "new1", "new2"])
    }
    vectors = HashingEncoder().encode([item.text for item in items.values()])
    content = ContentSimilarity(dict(zip(items, vectors, strict=True)))
    motivations = MotivationEncoder(HashingEncoder(), CONSUMER, items)
    return TrainingData(training_of(HISTORIES), items, content=content, motivations=motivations)


class TestPropagation:
    def test_normalises_by_the_degrees_of_both_ends(self) -> None:
        ends = np.array([[0, 1], [0, 2], [1, 0], [0, 1]])
        found = graph.symmetric_normalised(ends, 4).toarray()
        half = 0.5**0.5
        np.testing.assert_allclose(found, [[0, half, half, 0], [half, 0, 0, 0], [half, 0, 0, 0], [0] * 4], rtol=1e-6)

    def test_its_gradient_is_that_of_the_dense_product(self) -> None:
        rng = np.random.default_rng(0)
        dense = rng.random((5, 5)).astype(np.float32) * (rng.random((5, 5)) < 0.5)
        propagation = graph.Propagation(sparse.csr_matrix(dense), torch.device("cpu"))
        one = torch.randn(5, 3, requires_grad=True)
        other = one.detach().clone().requires_grad_()
        weights = torch.randn(5, 3)
        (propagation(propagation(one)) * weights).sum().backward()
        matrix = torch.from_numpy(dense)
        (matrix @ matrix @ other * weights).sum().backward()
        torch.testing.assert_close(one.grad, other.grad)
        assert not np.allclose(dense, dense.T), "the test would not see a missing transpose"


def test_bpr_is_the_mean_over_the_negatives() -> None:
    users, items = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]])
    negatives = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    expected = np.mean([np.log1p(np.exp(2.0 - 0.5)), np.log1p(np.exp(1.0 - 0.5))])
    assert graph.bpr(users, items, negatives).tolist() == pytest.approx([expected])


def test_triples_leave_out_what_connects_nothing() -> None:
    items = {
        "a": Item(item_id="a", categories=(("Toys", "Balls"),), brand="Rare", price=1.0),
        "b": Item(item_id="b", categories=(("Toys", "Balls"),), brand="Acme", price=1.0),
        "c": Item(item_id="c", categories=(("Toys", "Dolls"),), brand="Acme", price=9.0),
        "d": Item(item_id="d", categories=(("Toys", "Dolls"),)),
    }
    found = KnowledgeGraph.of(items, {"a": 0, "b": 1, "c": 2, "d": 3, "nowhere": 4})
    named = {(row, RELATIONS[relation]) for row, relation, _ in found.triples.tolist()}
    assert named == {(0, "category"), (1, "category"), (2, "category"), (3, "category"), (1, "brand"), (2, "brand"),
                     (0, "price"), (1, "price")}  # fmt: skip
    assert found.entities == 4, "balls, dolls, Acme and the low price; not Toys, Rare and the high price"


class TestKGAT:
    def network(self, **update: Any) -> kgat_network.KGATNetwork:
        data = shop()
        rows = {item: row for row, item in enumerate(data.items)}
        torch.manual_seed(0)
        settings = KGAT(**TINY | {"layers": (8, 4), "dropout": 0.0} | update)
        return kgat_network.KGATNetwork(ROWS, len(rows), KnowledgeGraph.of(data.items, rows), settings).eval()

    @pytest.mark.parametrize("attention", [False, True])
    def test_edges_of_the_knowledge_graph_lead_in_both_directions(self, attention: bool) -> None:
        """RecBole's lead from items to entities alone, so that an entity never says anything to its items."""
        network = self.network(attention=attention)
        network.layers()
        matrix = network._propagation.forward.to_dense()
        assert ((matrix > 0) == (matrix.T > 0)).all()
        entities = slice(network.users + network.items, None)
        items = slice(network.users, network.users + network.items)
        assert (matrix[items, entities] > 0).any(dim=1).all() and (matrix[entities, items] > 0).any(dim=1).all()

    def test_layers_are_the_bi_interaction_of_the_paper(self) -> None:
        network = self.network()
        with torch.no_grad():
            first, second = network.layers()[:2]
            received = torch.from_numpy(network._fixed.toarray()) @ first
            leaky = torch.nn.functional.leaky_relu
            expected = leaky(network.sums[0](first + received)) + leaky(network.products[0](first * received))
            torch.testing.assert_close(second, expected)
            users, items = network.vectors()
        assert users.shape == (40, 8 + 8 + 4) and items.shape == (15, 20)
        assert users[:, 8:16].norm(dim=1).tolist() == pytest.approx([1.0] * 40, rel=1e-4)

    @pytest.mark.parametrize("attention", [False, True])
    def test_own_vectors_of_items_nobody_has_stay_zero(self, attention: bool) -> None:
        network = self.network(attention=attention).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        users, items, negatives = torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([[5], [6]])
        for epoch in range(3):
            take_steps(optimizer, (network.loss(users, items, negatives) for _ in range(2)))
            take_steps(optimizer, network.graph_losses(np.random.default_rng(epoch)))
        nobodys = slice(network.users + ITEMS, network.users + ITEMS + 3)
        assert not network.own[nobodys].any() and network.own[network.users : network.users + ITEMS].any()
        assert network.eval().vectors()[1][ITEMS:].norm(dim=1).min() > 0.5, "their facts give them vectors"

    def test_attention_is_a_softmax_over_the_edges_of_a_node(self) -> None:
        network = self.network(attention=True)
        transr, vectors = network.transr, network.node.weight.detach()
        found = transr.attention(vectors).toarray()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        own = transr.edges[transr.edges[:, 0] == 3]
        with torch.no_grad():
            raw = []
            for head, relation, tail in own.tolist():
                space = transr.space[relation]
                moved = torch.tanh(space @ vectors[head] + transr.relation[relation])
                raw.append(((space @ vectors[tail]) @ moved).item())
        expected = torch.softmax(torch.tensor(raw), dim=0)
        np.testing.assert_allclose(found[3, own[:, 2]], expected.numpy(), rtol=1e-4)

    def test_attention_follows_the_weights(self) -> None:
        network = self.network(attention=True)
        network.train()
        before = network.vectors()[0].detach()
        rng = np.random.default_rng(0)
        take_steps(torch.optim.SGD(network.transr.parameters(), lr=5.0), network.graph_losses(rng))
        assert (network.vectors()[0].detach() - before).abs().max() > 1e-5

    def test_a_user_who_is_folded_in_differs_from_the_trained_one_by_the_own_vector_alone(self) -> None:
        network = self.network()
        with torch.no_grad():
            network.node.weight[0] = 0
            layers = network.layers()
            expected = network.vectors()[0][0].numpy()
        np.testing.assert_allclose(network.folded_in(ROWS[0], layers), expected, atol=1e-6)

    def test_an_item_without_users_and_facts_ties_below_all_others(self) -> None:
        data = shop()
        bare = {"bare": Item(item_id="bare", title="thing"), "plain": Item(item_id="plain"), **data.items}
        ranker = KGAT(**TINY | {"layers": (8,)}).fit(replace(data, items=bare), 0)
        candidates = ["bare", *(f"i{n}" for n in range(4, ITEMS)), "new2", "plain"]
        scores = ranker.rank(case(["i0", "i1"], candidates, "u0")).scores["kgat"]
        assert scores[0] == scores[-1] < min(scores[1:-1])

    def test_another_knowledge_graph_is_another_fit(self, tmp_path: Path) -> None:
        """An item's text has one of its category paths, the graph has all."""
        data, settings, events = shop(), KGAT(**TINY | {"layers": (8,)}), list[Event]()
        path = ("a second path",)
        more = {
            one: item.model_copy(update={"categories": (*item.categories, path)}) if one in {"i0", "i1"} else item
            for one, item in data.items.items()
        }
        other = replace(data, items=more)
        assert other.sha256 == data.sha256, "the texts are the same"
        settings.fit(data, 0, Fitting(tmp_path, events.append))
        settings.fit(other, 0, Fitting(tmp_path, events.append))
        assert len(list(tmp_path.iterdir())) == 2


class TestLLMRec:
    def test_picks_are_the_nearest_and_the_farthest_of_the_likely_items(self) -> None:
        texts = np.eye(ITEMS, dtype=np.float32)
        texts[5] = texts[0]  # like an item of the first user, and of the next ones
        found = llmrec_network.text_picks(ROWS, ITEMS, texts, candidates=6)
        assert 0 < len(found.users) < 40, "nothing of what the others would like is nearer than the rest"
        for user, liked, disliked in zip(found.users, found.favourites, found.dislikes, strict=True):
            assert liked not in ROWS[user] and disliked not in ROWS[user] and liked != disliked
        assert found.favourites[0] == 5

    def test_vectors_are_the_mean_over_the_steps_and_the_direction_of_the_text(self) -> None:
        torch.manual_seed(0)
        texts = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
        settings = LLMRec(**TINY, item_rate=2.0, user_rate=3.0)
        network = llmrec_network.LLMRecNetwork(ROWS, ITEMS, texts, settings).eval()
        with torch.no_grad():
            matrix = torch.from_numpy(network._matrix.toarray())
            own = network.node.weight
            mean = (own + matrix @ own + matrix @ matrix @ own) / 3
            users, items = network.vectors()
            text = torch.nn.functional.normalize(network.item_text(torch.from_numpy(texts)), dim=1)
            profile = network.user_text(torch.from_numpy(texts[ROWS[7]].mean(axis=0)))
        torch.testing.assert_close(items[:ITEMS], mean[40:] + 2 * text[:ITEMS])
        torch.testing.assert_close(items[ITEMS:], 2 * text[ITEMS:])
        torch.testing.assert_close(users[7], mean[7] + 3 * profile / profile.norm())

    def test_a_user_who_is_folded_in_differs_from_the_trained_one_by_the_own_vector_alone(self) -> None:
        torch.manual_seed(0)
        texts = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
        network = llmrec_network.LLMRecNetwork(ROWS, ITEMS, texts, LLMRec(**TINY, layers=1)).eval()
        with torch.no_grad():
            network.node.weight[0] = 0
            expected = network.vectors()[0][0].numpy()
            np.testing.assert_allclose(network.folded_in(ROWS[0], network.layers()), expected, atol=1e-6)
            assert np.isfinite(network.folded_in(np.array([ITEMS + 1]), network.layers())).all()

    def loss(self, scale: float = 1.0, **update: Any) -> float:
        """Loss of ten interactions, with own vectors that are `scale` times as long."""
        texts = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
        asked = (torch.arange(10), torch.tensor([int(own[0]) for own in ROWS[:10]]), torch.full((10, 1), 7))
        torch.manual_seed(1)
        settings = LLMRec(**TINY | {"picked": 0.0, "feature_loss": 0.0, "pruned": 0.0} | update)
        network = llmrec_network.LLMRecNetwork(ROWS, ITEMS, texts, settings)
        with torch.no_grad():
            network.node.weight.mul_(scale)
        return network.loss(*asked).item()

    def test_the_noisiest_interactions_are_left_out(self) -> None:
        """The authors' code keeps the hardest samples."""
        assert self.loss(pruned=0.5, penalty=0.0) < self.loss(pruned=0.0, penalty=0.0)

    def test_the_penalty_grows_with_the_square_of_the_vectors(self) -> None:
        """In the authors' code it is one over the squared length, and falls."""
        short, long = (self.loss(scale, penalty=0.1) - self.loss(scale, penalty=0.0) for scale in (1.0, 2.0))
        assert long == pytest.approx(4 * short, rel=1e-3) and short > 0

    def test_reads_traits_where_there_are_some_and_says_how_many(self, tmp_path: Path) -> None:
        events: list[Event] = []
        settings = LLMRec(**TINY)
        settings.fit(shop(), 0, Fitting(tmp_path, events.append))
        settings.fit(replace(shop(), traits=lambda: {"i1": "cuddly"}), 0, Fitting(tmp_path, events.append))
        assert Note("llmrec: 0 items are known by their traits, 15 by their texts") in events
        assert Note("llmrec: 1 items are known by their traits, 14 by their texts") in events
        assert len(list(tmp_path.iterdir())) == 2, "other texts are another fit"

    def test_no_text_is_an_error(self) -> None:
        with pytest.raises(InputError, match="'llmrec' reads item texts, and no item has one; give titles"):
            LLMRec(**TINY).fit(replace(shop(), content=ContentSimilarity({})), 0)


def test_held_out_edges_are_not_in_the_graph() -> None:
    """So that the best epoch is not chosen by edges that the vectors were propagated along."""
    given: list[Any] = []

    def make(histories: list[Any]) -> kgat_network.KGATNetwork:
        given.extend(histories)
        return kgat_network.KGATNetwork(histories, ITEMS, KnowledgeGraph.of({}, {}), KGAT(**TINY | {"layers": (4,)}))

    network = graph.train_graph(ROWS, ITEMS, make, KGAT(**TINY | {"layers": (4,)}), FitPlan("fit", 3, 3, 0))
    cut = [user for user, own in enumerate(given) if len(own) < 4]
    assert len(cut) == 4
    for user in cut:
        assert network._fixed[user, 40 + ROWS[user][-1]] == 0 and network._fixed[user, 40 + ROWS[user][0]] > 0


@pytest.mark.parametrize("name", ["kgat", "llmrec", "diffrec", "diff4rec", "diffuasr"])
def test_fits_are_kept_and_found_again(name: str, tmp_path: Path) -> None:
    settings = TRAINED[name].model_validate({"epochs": 2, "validation": 4})
    asked = case(["i1", "i2"], [f"i{n}" for n in range(ITEMS)], "u0")
    events: list[Event] = []
    first = settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked)
    before = len(events)
    again = settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked)
    assert again == first
    assert any(isinstance(event, Note) and "the fit is kept in" in event.text for event in events[before:])
    assert any(isinstance(event, Progress) and "loss" in event.detail for event in events[:before])
    assert settings.fit(shop(), 0).rank(asked) == first, "keeping a fit does not change it"


@pytest.mark.parametrize(
    "settings", [KGAT(**TINY, attention=True), LLMRec(**TINY), DiffRec(hidden=8, epochs=3, batch=2)]
)
def test_an_interrupted_fit_goes_on_bit_for_bit(settings: Baseline, tmp_path: Path) -> None:
    """What a step depends on beside the weights (attention, DiffRec's memory of losses) must come back with them."""

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            raise KeyboardInterrupt

    asked = case(["i1", "i2"], [f"i{n}" for n in range(ITEMS)], "u0")
    with pytest.raises(KeyboardInterrupt):
        settings.fit(shop(), 0, Fitting(tmp_path, interrupt))
    events: list[Event] = []
    resumed = settings.fit(shop(), 0, Fitting(tmp_path, events.append)).rank(asked)
    assert any(isinstance(event, KeptFit) and "goes on after epoch 1" in event.text for event in events)
    assert resumed == settings.fit(shop(), 0).rank(asked)


def test_attention_is_kept_and_found_again(tmp_path: Path) -> None:
    settings = KGAT(**TINY, attention=True)
    asked = case(["i1", "i2"], [f"i{n}" for n in range(ITEMS)], "u0")
    first = settings.fit(shop(), 0, Fitting(tmp_path)).rank(asked)
    assert settings.fit(shop(), 0, Fitting(tmp_path)).rank(asked) == first


@pytest.mark.parametrize("name", ["kgat", "llmrec", "diffrec", "diff4rec", "diffuasr"])
def test_ranks_the_demo_store(name: str) -> None:
    data = demo_dataset()
    cases = draw_cases(data, part="test", users=40, negatives=9, seed=0)
    items = [item for item in data.items.values() if item.text]
    vectors = HashingEncoder().encode([item.text for item in items])
    content = ContentSimilarity.of([item.item_id for item in items], vectors)
    motivations = MotivationEncoder(HashingEncoder(), CONSUMER, data.items)
    training = TrainingData(cases.training, data.items, data.metadata, content, motivations=motivations)
    ranker = TRAINED[name].model_validate({"epochs": 3}).fit(training, 0)
    for one in cases.cases:
        ranking = ranker.rank(one.blinded())
        assert sorted(ranking.order) == sorted(one.candidates)
        assert len(set(ranking.scores[name])) > 1, "no list is one tie"
