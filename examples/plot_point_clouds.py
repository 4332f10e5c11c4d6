"""
Point clouds: invariance to rotation
====================================

*Does it matter whether the features of a point cloud depend on its orientation?*

A cup on a table is upright, a shell in a bag has any orientation. Here models classify five shapes,
noisy and stretched, of 64 to 200 points. They are trained on upright clouds, and tested on other
upright clouds and on rotated ones.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skmm import PointCloudEncoder
from skmm.datasets import make_point_clouds

options = {"n_points": (64, 200), "noise": 0.02, "stretch": 0.3}
X, y = make_point_clouds(200, rotation="none", random_state=0, **options)
tests = {
    "upright": make_point_clouds(200, rotation="none", random_state=1, **options),
    "rotated": make_point_clouds(200, rotation="any", random_state=2, **options),
}

# %%
# The clouds
# ----------
# A cell is an array ``(n_points, 3)``; each cloud has its own number of points.

figure, axes = plt.subplots(
    2, 5, figsize=(11, 4.4), subplot_kw={"projection": "3d"}, layout="constrained"
)
for row, (name, (clouds, shapes)) in zip(axes, tests.items(), strict=True):
    for axis, shape in zip(row, ("sphere", "cube", "cylinder", "cone", "torus"), strict=True):
        points = clouds["points"][shapes == shape].iloc[0]
        axis.scatter(*points.T, c=points[:, 2], s=5)
        axis.set_title(f"{shape}, {name}", fontsize=9)
        axis.set_aspect("equal")
        axis.set_axis_off()

# %%
# A baseline and four models
# --------------------------
# The extents of a cloud along x, y and z are the baseline. The geometric encoder learns nothing;
# PointNet is trained from scratch on 200 clouds. ``rotation_invariant`` changes the input of both.
# A logistic regression follows each of them.


def extents(X):
    """Return the size of the box around each cloud."""
    return np.stack([np.ptp(cloud, axis=0) for cloud in X["points"]])


network = {"n_points": 64, "n_components": 32, "max_epochs": 15, "random_state": 0}
encoders = {
    "extents": FunctionTransformer(extents),
    "geometric": PointCloudEncoder(),
    "geometric, invariant": PointCloudEncoder(rotation_invariant=True),
    "pointnet": PointCloudEncoder("pointnet", **network),
    "pointnet, invariant": PointCloudEncoder("pointnet", rotation_invariant=True, **network),
}
accuracy = pd.DataFrame(index=list(encoders), columns=list(tests), dtype=float)
for name, encoder in encoders.items():
    model = make_pipeline(encoder, StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(X, y)
    for test, (clouds, shapes) in tests.items():
        accuracy.loc[name, test] = model.score(clouds, shapes)
print(accuracy.round(2).to_string())

# %%
# Results
# -------
# For upright clouds the orientation helps a little. For rotated ones it misleads: a network that
# was trained on cones on their base does not recognize one on its side. Features that are invariant
# by construction score as high as before, and the geometric statistics need no training at all.
# With 200 clouds they are a strong baseline.

bars = accuracy.plot.barh(figsize=(8, 3.2), color=["0.75", "tab:blue"], width=0.75)
bars.axvline(0.2, color="0.4", linewidth=1, linestyle=":")
bars.text(0.205, -0.42, "chance", fontsize=8, color="0.4")
bars.set_xlim(0, 1)
bars.set_xlabel("accuracy on 200 other clouds")
bars.invert_yaxis()
bars.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
bars.spines[["top", "right"]].set_visible(False)
plt.tight_layout()
plt.show()
