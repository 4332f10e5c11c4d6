"""
A question about a picture
==========================

*What colour is the shape? Is there a circle? Neither the picture nor the question has the answer.*

Visual question answering in small: a picture is one column, a question another, and the answer is
a class. The pictures are drawn here, after those of the data set ``easy-vqa``, on whose own test
questions ``tests/benchmarks/question_answering.py`` measures the same model.
"""

# %%
# Pictures, questions, answers
# ----------------------------
# A picture shows one shape of one colour. Each is asked six questions; of those with yes or no for
# an answer about a third name the wrong thing.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.model_selection import GroupShuffleSplit

from skmm import ImageEncoder, JointFusionClassifier, TextEncoder
from skmm.inspection import modality_shapley

COLOURS = {"red": "#d62728", "blue": "#1f77b4", "green": "#2ca02c", "yellow": "#f0c000"}
SHAPES = ("circle", "triangle", "rectangle")
rng = np.random.default_rng(0)


def draw(shape, colour):
    """Draw a shape of any size, anywhere."""
    picture = Image.new("RGB", (64, 64), "#f4f4f4")
    width, height = rng.integers(16, 34, 2)
    height = width if shape == "circle" else height
    left, top = rng.integers(2, 62 - width), rng.integers(2, 62 - height)
    pen, box = ImageDraw.Draw(picture), [left, top, left + width, top + height]
    if shape == "circle":
        pen.ellipse(box, fill=COLOURS[colour])
    elif shape == "rectangle":
        pen.rectangle(box, fill=COLOURS[colour])
    else:
        corners = [(left, box[3]), (box[2], box[3]), (left + width / 2, top)]
        pen.polygon(corners, fill=COLOURS[colour])
    return np.asarray(picture)


def ask(shape, colour):
    """Return questions with their answers."""
    yield "what shape is in the picture?", shape
    yield f"what is the {colour} shape?", shape
    yield "what color is the shape?", colour
    yield f"what color is the {shape}?", colour
    named = rng.choice([shape, rng.choice(SHAPES)])
    yield f"is there a {named} in the picture?", "yes" if named == shape else "no"
    named = rng.choice([colour, rng.choice(list(COLOURS))])
    yield f"is the shape {named}?", "yes" if named == colour else "no"


rows = []
for number in range(300):
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    picture = draw(shape, colour)
    rows += [(number, picture, question, answer) for question, answer in ask(shape, colour)]
frame = pd.DataFrame(rows, columns=["number", "picture", "question", "answer"])
frame[["question", "answer"]].head(6)

# %%
# One of the two, both
# --------------------
# The same picture stands in six rows, so whole pictures are held out. It is encoded once
# nevertheless: the frozen encoder knows a cell by its content. A small network over the words of
# the question is trained with the fusion, in which picture and question attend to each other.

X, y = frame[["picture", "question"]], frame["answer"]
splitter = GroupShuffleSplit(1, test_size=0.25, random_state=0)
train, test = next(splitter.split(X, y, groups=frame["number"]))
PICTURE = ("picture", ImageEncoder(), ["picture"])
QUESTION = ("question", TextEncoder("gru", n_components=32), ["question"])


def fusion(triples):
    """Without modality dropout: where one of the two is gone, there is no answer to learn."""
    return JointFusionClassifier(
        triples,
        strategy="cross_attention",
        modality_dropout=0,
        learning_rate=1e-3,
        early_stopping=False,
        max_epochs=20,
        random_state=0,
    ).fit(X.iloc[train], y.iloc[train])


models = {
    "picture alone": fusion([PICTURE]),
    "question alone": fusion([QUESTION]),
    "both": fusion([PICTURE, QUESTION]),
}
accuracy = pd.Series({name: m.score(X.iloc[test], y.iloc[test]) for name, m in models.items()})
accuracy.round(2)

# %%
# Who knew what
# -------------
# The question says which answers are possible, the picture which one is right. Alone the picture
# is worth little; its share is what it adds to a question.

shares = modality_shapley(models["both"], X.iloc[test], y.iloc[test])
print(shares.score_values.round(2).to_string())
print("together more than one by one:", shares.interactions.loc["picture", "question"].round(2))

# %%
# Some answers
# ------------

asked = frame.iloc[test].groupby("number").sample(1, random_state=2).head(8)
answers = models["both"].predict(asked[["picture", "question"]])
figure, axes = plt.subplots(2, 4, figsize=(9, 5.2), layout="constrained")
for axis, (_, row), answer in zip(axes.flat, asked.iterrows(), answers, strict=True):
    axis.imshow(row["picture"])
    axis.set(xticks=[], yticks=[])
    axis.set_title(row["question"], fontsize=9)
    right = answer == row["answer"]
    told = answer if right else f"{answer} (it is: {row['answer']})"
    axis.set_xlabel(told, fontsize=11, color="tab:green" if right else "tab:red")
plt.show()
