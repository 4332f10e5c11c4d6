"""
A question about an image
=========================

*What color is the shape? Is there a circle? Neither the image nor the question alone has the
answer.*

This is a small example of visual question answering: an image is one column, a question another,
and the answer is one of the training answers, or a generated text. The images resemble those of the
data set ``easy-vqa``; ``tests/benchmarks/question_answering.py`` measures the same models on its
test questions.
"""

# %%
# Images, questions, answers
# --------------------------
# An image shows one shape of one color. There are six questions about each; of those with the
# answer yes or no, about a third are wrong about the image.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.model_selection import GroupShuffleSplit

from skmm import ImageEncoder, QuestionAnswerer, Trainer
from skmm.inspection import modality_shapley

COLORS = {"red": "#d62728", "blue": "#1f77b4", "green": "#2ca02c", "yellow": "#f0c000"}
SHAPES = ("circle", "triangle", "rectangle")
rng = np.random.default_rng(0)


def draw(shape, color):
    """Draw a shape of random size and position."""
    image = Image.new("RGB", (64, 64), "#f4f4f4")
    width, height = rng.integers(16, 34, 2)
    height = width if shape == "circle" else height
    left, top = rng.integers(2, 62 - width), rng.integers(2, 62 - height)
    pen, box = ImageDraw.Draw(image), [left, top, left + width, top + height]
    if shape == "circle":
        pen.ellipse(box, fill=COLORS[color])
    elif shape == "rectangle":
        pen.rectangle(box, fill=COLORS[color])
    else:
        corners = [(left, box[3]), (box[2], box[3]), (left + width / 2, top)]
        pen.polygon(corners, fill=COLORS[color])
    return np.asarray(image)


def ask(shape, color):
    """Return questions with their answers."""
    yield "what shape is in the image?", shape
    yield f"what is the {color} shape?", shape
    yield "what color is the shape?", color
    yield f"what color is the {shape}?", color
    named = rng.choice([shape, rng.choice(SHAPES)])
    yield f"is there a {named} in the image?", "yes" if named == shape else "no"
    named = rng.choice([color, rng.choice(list(COLORS))])
    yield f"is the shape {named}?", "yes" if named == color else "no"


rows = []
for number in range(260):
    shape, color = rng.choice(SHAPES), rng.choice(list(COLORS))
    image = draw(shape, color)
    rows += [(number, image, question, answer) for question, answer in ask(shape, color)]
frame = pd.DataFrame(rows, columns=["number", "image", "question", "answer"])
frame[["question", "answer"]].head(6)

# %%
# Each modality alone, and both
# -----------------------------
# The same image is in six rows, so whole images are held out. It is encoded only once, since the
# store identifies a cell by its content. A small network over the words of the question is trained
# with a fusion in which image and question attend to each other. Modality dropout removes one of
# them in some training rows, so that the model can also answer with only one.

X, y = frame[["image", "question"]], frame["answer"]
splitter = GroupShuffleSplit(1, test_size=0.25, random_state=0)
train, test = next(splitter.split(X, y, groups=frame["number"]))
X_test, y_test = X.iloc[test], y.iloc[test]

image = ("image", ImageEncoder(), ["image"])
options = {"max_epochs": 20, "trainer": Trainer(early_stopping=False), "random_state": 0}
answerer = QuestionAnswerer([image], **options).fit(X.iloc[train], y.iloc[train])
accuracy = pd.Series(
    {
        "image alone": answerer.score(X_test.assign(question=None), y_test),
        "question alone": answerer.score(X_test.assign(image=None), y_test),
        "both": answerer.score(X_test, y_test),
    }
)
accuracy.round(2)

# %%
# The share of each modality
# --------------------------
# The question determines which answers are possible, the image which one is right. The image alone
# is worth little; its share is what it adds to a question. A joint fusion chooses the answer, and
# can be inspected like any other.

shares = modality_shapley(answerer.estimator_, X_test, y_test)
print(shares.score_values.round(2).to_string())
print("together more than one by one:", shares.interactions.iloc[0, 1].round(2))

# %%
# Generated answers
# -----------------
# With open answers a decoder reads the question, attends to the image and generates the answer word
# by word.

generative = QuestionAnswerer([image], answers="open", **options)
generative.fit(X.iloc[train], y.iloc[train])
print("exactly right:", round(generative.score(X_test, y_test), 2))

# %%
# Some answers
# ------------

asked = frame.iloc[test].groupby("number").sample(1, random_state=2).head(8)
answers = answerer.predict(asked[["image", "question"]])
figure, axes = plt.subplots(2, 4, figsize=(9, 5.2), layout="constrained")
for axis, (_, row), answer in zip(axes.flat, asked.iterrows(), answers, strict=True):
    axis.imshow(row["image"])
    axis.set(xticks=[], yticks=[])
    axis.set_title(row["question"], fontsize=9)
    right = answer == row["answer"]
    shown = answer if right else f"{answer} (it is: {row['answer']})"
    axis.set_xlabel(shown, fontsize=11, color="tab:green" if right else "tab:red")
plt.show()
