"""QuestionAnswerer: equal to its parts, missing cells, the column of questions, refusals."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from fusing import with_trainer
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score

from skmm import CaptionGenerator, ImageEncoder, JointFusionClassifier, TextEncoder
from skmm.exceptions import CellTypeError, ConvergenceError, ModalityMissingError
from skmm.fusion import CrossAttentionFusion
from skmm.generation import BeamSearch, QuestionAnswerer
from skmm.metrics import vqa_accuracy

SMALL = {"n_components": 32, "n_layers": 1, "max_epochs": 12, "batch_size": 16, "random_state": 0}
ROUTES = ["closed", "open"]
QUESTIONS = np.array(["is it red ?", "is it a blue one ?"])


def small(**params):
    options = {"modalities": [("seen", "passthrough", ["seen"])], "learning_rate": 5e-3}
    return QuestionAnswerer(
        **with_trainer(**{**options, **SMALL, "early_stopping": False, **params})
    )


def objects(n=160, seed=0):
    """Make red or blue objects; the answer depends on both the object and the question."""
    rng = np.random.default_rng(seed)
    red, asked = rng.integers(0, 2, (2, n))
    seen = np.eye(2)[red] + 0.1 * rng.standard_normal((n, 2))
    X = pd.DataFrame({"seen": list(seen), "question": QUESTIONS[asked]})
    return X, pd.Series(np.where(red == asked, "no", "oh yes"), dtype=object)


@pytest.fixture(scope="module", params=ROUTES)
def fitted(request):
    X, y = objects()
    return small(answers=request.param).fit(X, y)


# --- what is learned -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("open", 0),
        pytest.param("closed", 0, marks=pytest.mark.slow),
    ],
)
def test_answers_need_the_question_and_its_subject(kind, seed):
    X, y = objects(seed=seed)
    answerer = small(answers=kind, random_state=seed).fit(X, y)
    X, y = objects(80, seed=seed + 100)
    assert answerer.question_column_ == "question"
    assert answerer.score(X, y) > 0.95
    for name in X:  # without one of them the answer is a guess
        assert answerer.score(X.assign(**{name: None}), y) < 0.8
    # The other question has the other answer.
    other = X["question"].map(dict(zip(QUESTIONS, QUESTIONS[::-1], strict=True)))
    assert answerer.score(X.assign(question=other), y) < 0.05


@pytest.mark.slow
def test_an_image_network_is_trained_with_the_fusion():
    rng = np.random.default_rng(0)
    bright, asked = rng.integers(0, 2, (2, 200))
    cells = rng.integers(0, 60, (200, 8, 8, 3)) + 150 * bright.reshape(-1, 1, 1, 1)
    X = pd.DataFrame({"photo": list(cells.astype(np.uint8))})
    X["asked"] = np.where(asked, "is it dark ?", "what color does it have ?")
    answers = np.array([["black", "white"], ["yes", "no"]], dtype=object)
    photo = ("photo", ImageEncoder("cnn", image_size=8, n_components=8), ["photo"])
    answerer = small(modalities=[photo])
    answerer.fit(X[:120], answers[asked, bright][:120])
    assert answerer.score(X[120:], answers[asked, bright][120:]) > 0.9
    assert answerer.modalities_[0][1].transform(X[["photo"]][:3]).shape == (3, 8)


# --- equal to its parts --------------------------------------------------------------------


@pytest.mark.slow
def test_closed_answers_equal_a_fusion_with_the_question_as_a_modality():
    X, y = objects(80)
    answerer = small(max_epochs=2).fit(X, y)
    question = ("question", TextEncoder("gru", n_components=64), ["question"])
    options = {k: v for k, v in SMALL.items() if k != "n_layers"} | {"max_epochs": 2}
    fusion = JointFusionClassifier(
        [("seen", "passthrough", ["seen"]), question],
        strategy=CrossAttentionFusion(n_layers=1), dropout=0.1,
        **with_trainer(learning_rate=5e-3, early_stopping=False, **options),
    ).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(answerer.predict_proba(X), fusion.predict_proba(X))
    np.testing.assert_array_equal(answerer.predict(X), fusion.predict(X))
    np.testing.assert_array_equal(answerer.classes_, ["no", "oh yes"])
    assert [name for name, *_ in answerer.modalities_] == ["seen", "question"]


def test_open_answers_equal_a_generator_with_the_question_as_prefix():
    X, y = objects(80)
    options = {"decoder": "gru", "decoding": BeamSearch(2), "max_epochs": 2}
    answerer = small(answers="open", **options).fit(X, y)
    captions = CaptionGenerator(
        [("seen", "passthrough", ["seen"])], prefix_column="question", modality_dropout=0.1,
        **with_trainer(learning_rate=5e-3, early_stopping=False, **{**SMALL, **options}),
    ).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(answerer.score_samples(X, y), captions.score_samples(X, y))
    np.testing.assert_array_equal(answerer.predict(X), captions.predict(X))
    assert not hasattr(answerer, "classes_") and not hasattr(answerer, "predict_proba")


@pytest.mark.slow
def test_likelihoods(fitted):
    X, y = objects(30, seed=1)
    found = fitted.score_samples(X, [None, "unheard of", *y[2:]])
    assert np.isnan(found[0]) and found[1] < -1 and np.isfinite(found[2:]).all()
    if fitted.answers == "closed":
        assert found[1] == -np.inf
        places = np.searchsorted(fitted.classes_, y)
        expected = np.log(fitted.predict_proba(X)[np.arange(30), places])
        np.testing.assert_allclose(found[2:], expected[2:])
    best = fitted.score_samples(X, fitted.predict(X))
    assert (best[2:] >= found[2:] - 1e-6).all()


@pytest.mark.slow
def test_a_row_does_not_depend_on_the_other_rows(fitted):
    X, y = objects(6, seed=2)
    X.loc[1, "question"] = None
    X.loc[2, "seen"] = None
    together = fitted.score_samples(X, y)
    alone = [fitted.score_samples(X[i : i + 1], y[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(alone, together, rtol=1e-4)


# --- answers -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROUTES)
def test_the_most_frequent_answer_of_a_list_is_learned(kind):
    X, y = objects(80)
    several = [["maybe", answer, None, answer] for answer in y]
    several[3], several[5] = [], None
    y[3] = y[5] = None
    options = {"answers": kind, "max_epochs": 2}
    answerer = small(**options).fit(X, several)
    expected = small(**options).fit(X, y)
    found, wanted = (a.score_samples(X, y) for a in (answerer, expected))
    np.testing.assert_array_equal(found, wanted)
    tied = [["first", "second"] for _ in y[:40]] + [["second", "first"] for _ in y[40:]]
    answers = set(small(**options).fit(X, tied).predict(X))
    assert answers <= {"first", "second"} or kind == "open"


@pytest.mark.slow
def test_max_answers_keeps_the_most_frequent():
    X, y = objects(120)
    rare = y.copy()
    rare[[3, 50]] = "rare"
    answerer = small(max_answers=2, max_epochs=2).fit(X, rare)
    np.testing.assert_array_equal(answerer.classes_, ["no", "oh yes"])
    keep = rare != "rare"
    expected = small(max_epochs=2).fit(X[keep], rare[keep])
    np.testing.assert_array_equal(answerer.predict_proba(X), expected.predict_proba(X))


def test_score_takes_any_of_several_answers(fitted):
    X, y = objects(40, seed=3)
    answers = fitted.predict(X)
    assert fitted.score(X, answers) == 1
    half = [[answer, "x"] if i % 2 else ["x", "z"] for i, answer in enumerate(answers)]
    assert fitted.score(X, half) == 0.5
    half[0] = None
    assert fitted.score(X, half) == pytest.approx(20 / 39)
    people = [[answer] * 2 + ["x"] for answer in answers]
    way = copy.copy(fitted)
    assert way.set_params(scoring="vqa").score(X, people) == pytest.approx(2 / 3)
    assert way.score(X, people) == vqa_accuracy(people, answers)
    scorer = make_scorer(accuracy_score)
    assert way.set_params(scoring=scorer).score(X, y) == np.mean(y == answers)
    with pytest.raises(ValueError, match="no row of y_true has a text"):
        fitted.score(X, [None] * 40)


# --- missing, unknown ----------------------------------------------------------------------


def test_rows_without_question_or_subject_or_both(fitted):
    X, y = objects(60, seed=4)
    X.loc[::3, "seen"] = None
    X.loc[::4, "question"] = None
    both = X.isna().all(axis=1).to_numpy()
    answers = fitted.predict(X)
    shares = objects()[1].value_counts(normalize=True).sort_index()
    assert set(answers[both]) == {shares.idxmax()} and not pd.isna(answers).any()
    if fitted.answers == "open":
        assert np.isnan(fitted.score_samples(X, answers)).tolist() == both.tolist()
    else:
        np.testing.assert_allclose(fitted.predict_proba(X)[both], [shares] * both.sum(), rtol=1e-5)
    own = r"^QuestionAnswerer: .* row 0 .* set all_missing='prior'"
    with pytest.raises(ModalityMissingError, match=own):
        copy.copy(fitted).set_params(all_missing="raise").predict(X)


@pytest.mark.slow
def test_training_with_missing_cells():
    X, y = objects(200)
    X.loc[::11, "seen"] = None
    X.loc[::13, "question"] = None
    y[::17] = None
    answerer = small(answers="open", modality_dropout=0).fit(X, y)
    assert answerer.score(*objects(100, seed=1)) > 0.9


def test_unknown_words_and_another_question(fitted):
    X, _ = objects(40, seed=5)
    X["question"] = QUESTIONS[0]
    expected = fitted.predict(X)
    if fitted.answers == "open":
        more = X.assign(question="is it xyzzy red ?")
        np.testing.assert_array_equal(fitted.predict(more), expected)
    assert len(fitted.predict(X.assign(question="xyzzy"))) == 40
    assert len(fitted.predict(X.assign(question=""))) == 40


# --- the column of the questions -----------------------------------------------------------


@pytest.mark.parametrize("kind", ROUTES)
def test_auto(kind):
    X, y = objects(60)
    X["number"] = np.arange(60.0)
    X["number"] %= 7
    options = {"modalities": "auto", "answers": kind, "max_epochs": 1}
    answerer = small(**options).fit(X, y)
    columns = [c for _, _, c in answerer.modalities_]
    assert columns[:2] == [["seen"], ["number"]] and len(columns) == 2 + (kind == "closed")
    moved = small(**options, question_column=0).fit(X[["question", "seen", "number"]], y)
    assert moved.question_column_ == 0 and [c for _, _, c in moved.modalities_][0] == ["seen"]


def test_auto_takes_the_text_that_no_triple_selects():
    X, y = objects(60)
    X["title"] = [f"the {i} th of all objects" for i in range(60)]
    with pytest.raises(ValueError, match=r"2 columns of text, \['question', 'title'\]"):
        # Both columns hold sentences that are never repeated.
        small().fit(X.assign(question=[f"{q} {i}" for i, q in enumerate(X["question"])]), y)
    assert small(question_column="question", max_epochs=1).fit(X, y).question_column_ == "question"
    title = ("title", TextEncoder("tfidf", n_components=2), ["title"])
    answerer = small(max_epochs=1).set_params(modalities=[*small().modalities, title]).fit(X, y)
    assert answerer.question_column_ == "question"


def test_a_triple_may_select_the_question():
    X, y = objects(60)
    words = ("words", TextEncoder("gru", n_components=4), ["question"])
    answerer = small(modalities=[*small().modalities, words], max_epochs=1).fit(X, y)
    assert answerer.question_column_ == "question"
    assert [name for name, *_ in answerer.modalities_] == ["seen", "words"]


def test_the_modality_of_the_question_gets_a_free_name():
    X, y = objects(60)
    answerer = small(max_epochs=1).fit(X.rename(columns={"question": "strategy"}), y)
    assert [name for name, *_ in answerer.modalities_] == ["seen", "strategy_text"]


def test_question_encoder_is_cloned_and_reached_by_name():
    X, y = objects(60)
    encoder = TextEncoder("tfidf", n_components=2)
    answerer = small(question_encoder=encoder, max_epochs=1).fit(X, y)
    assert answerer.modalities_[1][1].n_outputs_ == 2 and not hasattr(encoder, "n_outputs_")
    answerer.set_params(question_encoder__n_components=3).fit(X, y)
    assert answerer.modalities_[1][1].n_outputs_ == 3
    assert answerer.get_params()["question_encoder__n_components"] == 3


# --- estimator -----------------------------------------------------------------------------


@pytest.mark.slow
def test_searched_and_scored_as_a_classifier():
    X, y = objects(90)
    assert is_classifier(small()) and not is_classifier(small(answers="open"))
    grid = [
        {"strategy": ["attention"], "n_components": [8], "answers": ["closed"]},
        {"n_components": [8], "answers": ["open"]},
    ]
    search = GridSearchCV(small(max_epochs=1), grid, cv=2, scoring="accuracy").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    losses = cross_val_score(small(max_epochs=1), X, y, cv=2, scoring="neg_log_loss")
    assert (losses < 0).all()


def test_parameters_read_by_predict(fitted):
    X, _ = objects(20)
    answerer = copy.copy(fitted)
    answerer.set_params(missing_columns="absent")
    if fitted.answers == "open":
        answerer.set_params(decoding="beam", decoding__beam_size=3, max_length=1)
    assert (answerer.predict(X[["question"]]) != None).all()  # noqa: E711
    assert answerer.estimator_ is fitted.estimator_ and fitted.estimator_.missing_columns == "raise"
    if fitted.answers == "open":
        assert all(" " not in answer for answer in answerer.predict(X))
        with pytest.raises(ValueError, match="The 'beam_size' parameter"):
            answerer.set_params(decoding__beam_size=0).predict(X)
    else:
        with pytest.raises(ValueError, match="max_length=1 has no effect with answers='closed'"):
            answerer.set_params(max_length=1).predict(X)


def test_pickle_clone_and_the_same_seed(fitted):
    X, y = objects(30, seed=6)
    expected = fitted.score_samples(X, y)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.score_samples(X, y), expected)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)
    options = {"answers": fitted.answers, "max_epochs": 1}
    first, second = (small(**options).fit(X, y).score_samples(X, y) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(fitted.history_) == fitted.n_iter_ == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ROUTES)
def test_callbacks_receive_the_epochs(kind, capsys):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")
    X, y = objects(40)
    monitor = callback.ScoringMonitor(scoring="accuracy")
    answerer = small(answers=kind, max_epochs=3).set_callbacks(monitor).fit(X, y)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(rows) == 3
    assert rows[-1]["accuracy"] == pytest.approx(answerer.score(X, y))
    search = GridSearchCV(answerer.set_callbacks(), {"max_epochs": [1]}, cv=2)
    pytest.importorskip("rich", reason="the progress bar needs rich")
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, y)
    assert type(answerer.estimator_).__name__[-9:] in capsys.readouterr().out


def test_divergence_raises():
    X, y = objects(60)
    for kind in ROUTES:
        wild = small(answers=kind, learning_rate=1e30)
        with pytest.raises(ConvergenceError, match="the loss is nan"):
            wild.fit(X, y)


@pytest.mark.parametrize(
    ("params", "y", "error", "message"),
    [
        ({}, None, ValueError, "QuestionAnswerer requires y to be passed"),
        ({}, [1.5] * 60, TypeError, "QuestionAnswerer: a cell of y must be a text or a list"),
        ({}, ["yes"] * 59, ValueError, "X has 60 rows and y has 59"),
        ({}, ["yes"] * 60, ValueError, "y holds 1 different answers.* needs at least 2"),
        ({"answers": "open"}, [None] * 60, ValueError, "y holds 0 different answers"),
        ({"question_column": "asked"}, ["a", "b"] * 30, ValueError, "no column 'asked'"),
        (
            {"question_column": "number"},
            ["a", "b"] * 30,
            CellTypeError,
            "column 'number', row 0: got",
        ),
        ({"max_answers": 1}, ["a", "b"] * 30, ValueError, "The 'max_answers' parameter"),
        ({"answers": "half"}, ["a", "b"] * 30, ValueError, "The 'answers' parameter"),
        ({"question_encoder": "words"}, ["a", "b"] * 30, ValueError, "no modality 'words'"),
    ],
)
def test_errors(params, y, error, message):
    X, _ = objects(60)
    X["number"] = np.arange(60.0)
    with pytest.raises(error, match=message):
        small(**params).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decoder": "gru"}, "decoder='gru' has no effect with answers='closed'"),
        ({"decoding": "beam"}, "decoding='beam' has no effect with answers='closed'"),
        (
            {"answers": "open", "strategy": "mean"},
            "strategy='mean' has no effect with answers='o",
        ),
        (
            {"answers": "open", "max_answers": 3},
            "max_answers=3 has no effect with answers='o",
        ),
        (
            {"answers": "open", "question_encoder": "text"},
            "question_encoder='text' has no effect",
        ),
        ({"strategy": "mean"}, "n_layers=1 has no effect with strategy='mean'"),
        ({"max_tokens": 3}, "max_tokens=3 has no effect with granularity='pooled'"),
        (
            {"answers": "open", "decoder": "gru", "n_heads": 2},
            "n_heads=2 has no effect with decoder='gru'",
        ),
    ],
)
def test_parameters_without_effect_are_refused(params, message):
    with pytest.raises(ValueError, match=f"QuestionAnswerer: {message}"):
        small(**params).fit(*objects(60))


def test_a_frame_without_text_or_with_only_text_is_refused():
    X, y = objects(40)
    with pytest.raises(ValueError, match=r"no column of text among \['seen'\]"):
        small().fit(X[["seen"]], y)
    with pytest.raises(ValueError, match="QuestionAnswerer: X has no column besides 'question'"):
        small(modalities="auto").fit(X[["question"]], y)
