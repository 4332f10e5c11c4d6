"""Every fusion on frozen features: does it beat the best single modality, and at what cost?

All fusions of skmm against each modality alone, against scikit-learn's estimators over the same
features side by side, and against pytorch-widedeep's fusers where they are installed::

    python tests/benchmarks/fusions.py --store some/folder
    python tests/benchmarks/fusions.py --only emoji glyphs
    WIDEDEEP_PYTHON=other/bin/python python tests/benchmarks/fusions.py

The figures go into RESULTS.md and into the tables of docs/guide/choosing_fusion.rst; with
``SKMM_RESULTS`` into that file and a folder ``tables`` next to it. Some 40 minutes on one core.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from fusions_data import LOADERS, glyphs, matrices
from fusions_methods import BEST_SINGLE, NotThereError, fitted, of_scikit_learn, of_widedeep, ours
from fusions_report import pays_on_emoji
from report import RESULTS, table, write_section

from skmm import JointFusionClassifier, set_config
from skmm.inspection._comparison import compare

SEEDS = (0, 1, 2, 3, 4)
SMALL_SEEDS = (0, 1)
DOCS = Path(__file__).parents[2] / "docs" / "guide" / "choosing_fusion"
TABLES = RESULTS.parent / "tables" if "SKMM_RESULTS" in os.environ else DOCS
FAMILIES = ["early", "late", "joint", "scikit-learn", "widedeep"]
FIGURES = "figures.csv"  # all figures, in full; the other tables are made from it


def encode(data):
    """Fill the store, so that no method pays for it."""
    matrices(data.triples, data.X, data.X)
    if data.tokens:
        every_token = JointFusionClassifier(data.triples, granularity="sequence", max_epochs=1)
        every_token.fit(data.X, data.y)


def measure(data, seeds, *, max_epochs, n_trees):
    """Return a row for each method and seed: score, seconds of the processor, parameters."""
    rows = []
    missing = None

    def note(seed, name, result):
        rows.append((name, seed, *result))
        print(f"{data.name}, seed {seed}, {name}: {result.score:.4f}, {result.seconds:.1f} s")

    encode(data)
    for seed in seeds:
        train, test = data.split(seed)
        parts = [(data.X.iloc[own], data.y.iloc[own]) for own in (train, test)]
        folds = data.folds(train)
        for name, model in ours(data, folds, seed, max_epochs):
            note(seed, name, fitted(model, data, *parts))
        alone = [row for row in rows if row[1] == seed and row[0].endswith(" alone")]
        # The modality that a user would have chosen: the test rows are not used.
        rows.append((BEST_SINGLE, seed, *max(alone, key=lambda row: row[-1])[2:]))
        blocks = matrices(data.triples, parts[0][0], parts[1][0])
        targets = [part[1].to_numpy() for part in parts]
        for name, result in of_scikit_learn(data, blocks, *targets, folds, seed, n_trees):
            note(seed, name, result)
        try:
            for name, result in of_widedeep(data, blocks, *targets, seed, max_epochs):
                note(seed, name, result)
        except NotThereError as reason:
            missing = str(reason)
    if missing:
        print(f"pytorch-widedeep is left out: {missing}")
    columns = ["method", "seed", "score", "seconds", "parameters", "promised"]
    return pd.DataFrame(rows, columns=columns)


def summary(found, test_per_train):
    """A row for each method: means, and intervals that correct for overlapping training parts."""
    scores = found.pivot(index="seed", columns="method", values="score")
    best = scores[BEST_SINGLE]
    rows = {}
    for name in in_order(found["method"].unique()):
        own = compare(scores[name].to_numpy(), test_per_train)
        more = compare((scores[name] - best).to_numpy(), test_per_train)
        cost = found[found["method"] == name]
        rows[name] = {
            "score": own.difference,
            "score_reach": own.upper - own.difference,
            "gain": more.difference,
            "gain_reach": more.upper - more.difference,
            "seconds": cost["seconds"].mean(),
            "parameters": cost["parameters"].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def in_order(methods):
    """Return each modality alone, the best of them, then one family after the other."""

    def family(name):
        if name.endswith(" alone") or name == BEST_SINGLE:
            return name == BEST_SINGLE
        return 2 + FAMILIES.index(name.replace(":", ",").partition(",")[0])

    return sorted(methods, key=family)


def in_words(row):
    """Return the cells of RESULTS.md."""
    return {
        "score": f"{row['score']:.3f} ± {row['score_reach']:.3f}",
        "more than the best single": f"{row['gain']:+.3f} ± {row['gain_reach']:.3f}",
        "CPU s": f"{row['seconds']:.2f}",
        "parameters": "" if np.isnan(row["parameters"]) else f"{row['parameters']:,.0f}",
    }


def section(data, figures, seeds):
    shown = pd.DataFrame([in_words(row) for _, row in figures.iterrows()], index=figures.index)
    train, test = data.sizes
    metric = {"roc_auc": "ROC AUC", "accuracy": "accuracy"}[data.metric]
    text = (
        f"{data.about[0].upper()}{data.about[1:]}: {train} training and {test} test rows, {metric},"
        f" mean over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}) with its 95 %"
        " interval (Nadeau and Bengio 2003: a t interval that corrects for overlapping training"
        " parts). Frozen features, encoded before; processor seconds in `fit`, which"
        " other work on the machine disturbs; parameters that are learned from the target. The"
        " penalty of logistic regressions is chosen by 3 folds inside the training rows"
        f"{'' if data.groups is None else ', of whole groups'}, and so is the best single"
        " modality; all else is default.\n\n"
    )
    write_section(f"Every fusion: {data.name}", "fusions.py", text + table(shown))


def keep(figures, name):
    """Replace the figures of a data set, and write the tables again."""
    TABLES.mkdir(parents=True, exist_ok=True)
    path = TABLES / FIGURES
    figures = figures.reset_index().assign(data=name)
    if path.exists():
        old = pd.read_csv(path)
        figures = pd.concat([old[old["data"] != name], figures], ignore_index=True)
        figures = figures.sort_values(
            "data", key=lambda names: names.map(list(LOADERS).index), kind="stable"
        )
    figures = figures[["data", *[column for column in figures if column != "data"]]]
    figures.to_csv(path, index=False, float_format="%.6g")
    draw(figures)


def draw(figures):
    """Return tables of the documentation: a row for each method, a column for each data set."""
    names = figures["data"].unique()
    methods = in_order(figures["method"].unique())
    # Modalities differ from data set to data set, so they have their own table.
    singles = [name for name in methods if name.endswith(" alone")]
    shared = [name for name in methods if name not in singles]
    cells = figures.set_index(["method", "data"])
    tables = {"scores": _score_cell, "gains": _gain_cell, "cost": _cost_cell}
    for file, cell in tables.items():
        rows = {
            method: {
                name: cell(cells.loc[method, name]) if (method, name) in cells.index else ""
                for name in names
            }
            for method in shared
        }
        pd.DataFrame.from_dict(rows, orient="index")[list(names)].to_csv(
            TABLES / f"{file}.csv", index_label="method"
        )
    alone = figures[figures["method"].isin(singles)]
    pd.DataFrame(
        {
            "data": alone["data"],
            "modality": alone["method"].str.removesuffix(" alone"),
            "score": [_score_cell(row) for _, row in alone.iterrows()],
        }
    ).to_csv(TABLES / "singles.csv", index=False)


def _score_cell(row):
    return f"{row['score']:.3f} ± {row['score_reach']:.3f}"


def _gain_cell(row):
    """Bold where the interval is above 0, in italics where it is below."""
    if row.name[0] == BEST_SINGLE:
        return ""
    text = f"{row['gain']:+.3f} ± {row['gain_reach']:.3f}"
    if row["gain"] > row["gain_reach"]:
        return f"**{text}**"
    return f"*{text}*" if row["gain"] < -row["gain_reach"] else text


def _cost_cell(row):
    seconds, thousands = f"{row['seconds']:.1f} s", row["parameters"] / 1000
    if np.isnan(thousands):
        return seconds
    return f"{seconds}, {thousands:,.{int(thousands < 10)}f} k"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", help="folder for embeddings that stays, to measure again")
    parser.add_argument("--only", nargs="+", choices=[*LOADERS, "report"], default=None)
    parser.add_argument("--small", action="store_true", help="a few glyphs, to see that it runs")
    options = parser.parse_args()
    if options.store:
        set_config(store=options.store)
    sets = (
        {"glyphs": lambda: glyphs(240, task="category", image_size=32)}
        if options.small
        else LOADERS
    )
    seeds = SMALL_SEEDS if options.small else SEEDS
    max_epochs, n_trees = (2, 3) if options.small else (100, 100)
    for name, load in sets.items():
        if options.only and name not in options.only:
            continue
        data = load()
        found = measure(data, seeds, max_epochs=max_epochs, n_trees=n_trees)
        train, test = data.sizes
        figures = summary(found, test / train)
        section(data, figures, seeds)
        keep(figures, data.name)
    if not options.small and (not options.only or "report" in options.only):
        pays_on_emoji(TABLES)


if __name__ == "__main__":
    main()
