"""Figures of how skmm is built, so that a change of its structure can be weighed.

Run it from the root of a checkout::

    python tests/structure.py                        # the figures of ./skmm
    python tests/structure.py --compare ../old       # beside those of another checkout
    python tests/structure.py --compare before.json  # or beside saved ones
    python tests/structure.py --json before.json     # save them; without a name, print them

What is counted:

- A code line is one that holds a token of code: not blank, no comment, no docstring.
- An arrow leads from a file to another file of the package that it imports, at its top or in a
  function, however often: ``from skmm.a._b import x``, ``from skmm.a import _b``. A name taken
  from a folder is an arrow to the folder's ``__init__``, not to the file behind it. Imports for
  type checkers do not count, nor does what an ``__init__`` hands on, unless said.
- A file is imported once if one arrow leads to it, and inside its folder if that one starts there.
- A base with one subclass is a class that no public ``__all__`` names, with one direct subclass
  in the package, and used for nothing else: nobody calls it, hands it on or keeps it in a table.
  A protocol is a type, not a base.
- Files entered by a call are those in which a function runs during the call, in any thread, once
  all of the package is imported. The encoders meet unknown cells, a checkpoint they have not
  loaded and a store that is empty; the fits of fusion, alignment and captions use no store. Each
  encoder inside a fit is frozen, with tiny random weights.
- Estimators are the public classes with ``get_params``.
- Parameters of functions are those of all functions and methods, without the object itself,
  ``*args`` and ``**kwargs``. Any is ``Any``, ``Any | None``, or another name for them.
"""

import argparse
import ast
import importlib
import inspect
import io
import json
import pkgutil
import re
import statistics
import string
import subprocess
import sys
import tempfile
import textwrap
import threading
import tokenize
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FEW_LINES = 40
N_EPOCHS = 3
N_ROWS = 60

ROWS = {
    "files": "files",
    "code_lines": "code lines",
    "median_lines": "code lines of a file, median",
    "largest_lines": "code lines of the largest file",
    "small_files": f"files of fewer than {FEW_LINES} code lines",
    "imported_once": "files imported by one file",
    "imported_once_inside": "files imported by one file, of their folder",
    "arrows_inside": "arrows inside folders",
    "arrows_inside_with_init": "arrows inside folders, __init__ included",
    "single_subclass": "bases with one subclass",
    "repeated_files": "file names in more than two folders",
    "repeated_classes": "class names in two files",
    "entered_image": "files entered: a cold image",
    "entered_text": "files entered: a cold text",
    "entered_joint": "files entered: a joint fit",
    "entered_contrastive": "files entered: a contrastive fit",
    "entered_caption": "files entered: a fit of captions",
    "estimators": "estimators",
    "estimator_parameters": "constructor parameters, sum",
    "estimator_parameter_names": "constructor parameters, distinct names",
    "most_parameters": "constructor parameters, most",
    "function_parameters": "parameters of functions",
    "any_percent": "annotated Any, per cent",
    "unannotated": "parameters without annotation",
    "mypy_errors": "errors of mypy --strict",
}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
DOTTED = re.compile(r"[\w.]+")
NO_USE = {"bases", "annotation", "returns"}
# A class named only in these calls is asked about, not used.
QUESTIONS = {"isinstance", "issubclass", "cast", "super", "TypeVar"}


# --- files ----------------------------------------------------------------------------------


@dataclass
class File:
    """A file of the package."""

    path: Path  # from the folder that holds the package
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        return ".".join(self.path.parent.parts)

    @property
    def module(self) -> str:
        return self.folder if self.is_init else f"{self.folder}.{self.path.stem}"

    @cached_property
    def is_public(self) -> bool:
        return not any(part.startswith("_") for part in self.module.split("."))

    @cached_property
    def taken(self) -> dict[str, str]:
        """Name in the file -> full name of what was imported under it."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                module = origin(node, self)
                found |= {a.asname or a.name: f"{module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                plain = [a.name.partition(".")[0] for a in node.names if a.asname is None]
                found |= {name: name for name in plain}
                found |= {a.asname: a.name for a in node.names if a.asname is not None}
        return found

    @cached_property
    def exported(self) -> set[str]:
        """Names in ``__all__``."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return {c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)}
        return set()


def read_package(package: Path) -> dict[str, File]:
    """Module -> file."""
    paths = sorted(package.rglob("*.py"))
    files = [File(path.relative_to(package.parent), path.read_text("utf-8")) for path in paths]
    return {file.module: file for file in files}


def n_code_lines(file: File) -> int:
    docs: set[int] = set()
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Module | ast.ClassDef | FUNCTIONS):
            if ast.get_docstring(node, clean=False) is not None:
                docs.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(file.text).readline):
        if token.type not in {*no_code, tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def figures_of_files(files: dict[str, File]) -> dict[str, Any]:
    lines = {file.path.as_posix(): n_code_lines(file) for file in files.values()}
    largest = max(lines, key=lambda path: lines[path])
    places: dict[str, set[str]] = defaultdict(set)
    for file in files.values():
        places[file.path.stem].add(file.folder)
    repeated = {k: v for k, v in places.items() if len(v) > 2 and k not in {"__init__", "_base"}}
    return {
        "files": len(lines),
        "code_lines": sum(lines.values()),
        "median_lines": statistics.median(lines.values()),
        "largest_lines": [lines[largest], largest],
        "small_files": sum(n < FEW_LINES for n in lines.values()),
        "repeated_files": sorted(f"{name} ({len(found)})" for name, found in repeated.items()),
    }


# --- imports --------------------------------------------------------------------------------


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what is under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            child = ast.Module(child.orelse, [])
        yield child
        yield from running_nodes(child)


def origin(node: ast.ImportFrom, file: File) -> str:
    """Module that an import takes from, a relative one made absolute."""
    if not node.level:
        return node.module or ""
    parts = file.folder.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def reached(file: File, files: dict[str, File]) -> set[str]:
    """Modules of the package that a file imports."""
    found: set[str] = set()
    for node in running_nodes(file.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = origin(node, file)
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                found.add(deeper if deeper in files else module)
    return (found & files.keys()) - {file.module}


def figures_of_imports(files: dict[str, File]) -> dict[str, Any]:
    arrows = [(start, end) for start in files for end in reached(files[start], files)]
    inside = [(a, b) for a, b in arrows if files[a].folder == files[b].folder]
    importers: dict[str, list[str]] = defaultdict(list)
    for start, end in arrows:
        if not files[start].is_init:
            importers[end].append(start)
    once = {end: starts[0] for end, starts in importers.items() if len(starts) == 1}
    return {
        "imported_once": len(once),
        "imported_once_inside": sum(files[a].folder == files[b].folder for b, a in once.items()),
        "arrows_inside": sum(not files[start].is_init for start, _ in inside),
        "arrows_inside_with_init": len(inside),
    }


# --- classes --------------------------------------------------------------------------------


class Classes:
    """Classes of the package, and what a name means in one of its files."""

    def __init__(self, files: dict[str, File]):
        self.files = files
        self.defined = {
            f"{file.module}.{node.name}"
            for file in files.values()
            for node in ast.walk(file.tree)
            if isinstance(node, ast.ClassDef)
        }
        self.public = {
            self.find(file, name)
            for file in files.values()
            if file.is_public
            for name in file.exported
        }

    def find(self, file: File, name: str) -> str | None:
        """Full name of the class that ``name``, dotted or not, means in a file; None if other."""
        head, _, rest = name.partition(".")
        if (own := f"{file.module}.{name}") in self.defined:
            return own
        if head not in file.taken:
            return None
        full = file.taken[head] + (f".{rest}" if rest else "")
        if full in self.defined:
            return full
        module, _, last = full.rpartition(".")
        known = module in self.files and module != file.module
        return self.find(self.files[module], last) if known else None


def used_names(node: ast.AST) -> Iterator[str]:
    """Dotted names that a tree uses, other than as a base, for a type or in a question."""
    if isinstance(node, ast.Name | ast.Attribute) and DOTTED.fullmatch(ast.unparse(node)):
        yield ast.unparse(node)
    elif not isinstance(node, ast.Call) or ast.unparse(node.func) not in QUESTIONS:
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            for child in children if field not in NO_USE else []:
                if isinstance(child, ast.AST):
                    yield from used_names(child)


def figures_of_classes(files: dict[str, File]) -> dict[str, Any]:
    classes = Classes(files)
    n_subclasses: Counter[str | None] = Counter()
    more_than_bases = set(classes.public)
    for file in files.values():
        more_than_bases.update(classes.find(file, name) for name in used_names(file.tree))
        for node in ast.walk(file.tree):
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            if any(ast.unparse(base).startswith("Protocol") for base in bases):
                continue
            for base in bases:
                plain = base.value if isinstance(base, ast.Subscript) else base
                n_subclasses[classes.find(file, ast.unparse(plain))] += 1
    single = {c for c, n in n_subclasses.items() if c and n == 1} - more_than_bases
    names = Counter(full.rpartition(".")[2] for full in classes.defined)
    return {
        "single_subclass": sorted(full.rpartition(".")[2] for full in single),
        "repeated_classes": sorted(name for name, n in names.items() if n > 1),
    }


# --- annotations ----------------------------------------------------------------------------


def parameters(tree: ast.AST) -> Iterator[ast.arg]:
    """Parameters of every function and method, without the object itself."""
    for parent in ast.walk(tree):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, FUNCTIONS):
                known = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                static = "staticmethod" in map(ast.unparse, node.decorator_list)
                yield from known[isinstance(parent, ast.ClassDef) and not static :]


def figures_of_annotations(files: dict[str, File]) -> dict[str, Any]:
    found = [p.annotation for file in files.values() for p in parameters(file.tree)]
    written = [ast.unparse(a).strip("\"'") for a in found if a is not None]
    others = (re.findall(r"^(\w+).* = Any$", file.text, re.M) for file in files.values())
    plain = {"Any", "typing.Any"}.union(*others)
    n_any = sum(text.removesuffix(" | None") in plain for text in written)
    return {
        "function_parameters": len(found),
        "any_percent": round(100 * n_any / max(len(found), 1), 1),
        "unannotated": len(found) - len(written),
    }


def mypy_errors(package: Path) -> int | None:
    command = [sys.executable, "-m", "mypy", "--strict", package.name]
    done = subprocess.run(command, cwd=package.parent, capture_output=True, text=True, check=False)
    total = re.search(r"Found (\d+) error|Success", done.stdout)
    if total is None:
        print(f"mypy gave no count: {done.stdout}{done.stderr}"[-500:], file=sys.stderr)
    return int(total[1] or 0) if total else None


# --- the running package --------------------------------------------------------------------


def import_whole(package: Path) -> Any:
    """Import the package from its place, with all its modules."""
    # With this file's folder on sys.path, tests/datasets would pass for the package datasets.
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != here]
    sys.path.insert(0, str(package.parent))
    root = importlib.import_module(package.name)
    found = Path(root.__file__).resolve().parent
    if found != package:
        raise ImportError(f"{package.name} was imported from {found}, not from {package}.")
    for module in pkgutil.walk_packages(root.__path__, f"{package.name}."):
        importlib.import_module(module.name)
    return root


def public_classes(root: Any) -> dict[str, type]:
    """Classes that the public folders name in ``__all__``."""
    names = [m.name for m in pkgutil.iter_modules(root.__path__) if not m.name.startswith("_")]
    modules = [root, *(importlib.import_module(f"{root.__name__}.{name}") for name in names)]
    values = {n: getattr(m, n) for m in modules for n in getattr(m, "__all__", ())}
    return {name: value for name, value in values.items() if inspect.isclass(value)}


def figures_of_estimators(root: Any) -> dict[str, Any]:
    classes = {n: c for n, c in public_classes(root).items() if hasattr(c, "get_params")}
    taken = {name: list(inspect.signature(cls).parameters) for name, cls in classes.items()}
    most = max(taken, key=lambda name: len(taken[name]))
    return {
        "estimators": len(taken),
        "estimator_parameters": sum(map(len, taken.values())),
        "estimator_parameter_names": len({name for names in taken.values() for name in names}),
        "most_parameters": [len(taken[most]), most],
    }


def write_checkpoints(folder: Path) -> None:
    """Tiny random models of images and of texts."""
    import transformers as hub

    hub.logging.set_verbosity_error()
    hub.logging.disable_progress_bar()
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    images = hub.ViTConfig(image_size=32, patch_size=8, **small)
    hub.ViTModel(images).save_pretrained(folder / "images")
    size = {"height": 32, "width": 32}
    hub.ViTImageProcessor(size=size).save_pretrained(folder / "images")
    letters = string.ascii_lowercase
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    texts = hub.BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **small)
    hub.BertModel(texts).save_pretrained(folder / "texts")
    vocab = {token: i for i, token in enumerate(tokens)}
    hub.BertTokenizer(vocab=vocab).save_pretrained(folder / "texts")


def toy_frame() -> tuple[Any, Any]:
    """Images, texts and numbers that no store has seen, and a class for each row."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng()
    numbers = rng.standard_normal((N_ROWS, 3))
    pixels = rng.integers(0, 256, (N_ROWS, 40, 40, 3), dtype=np.uint8)
    letters = rng.choice(list(string.ascii_lowercase), (N_ROWS, 4, 5))
    words = [" ".join("".join(word) for word in text) for text in letters]
    X = pd.DataFrame(numbers, columns=["a", "b", "c"]).assign(photo=list(pixels), review=words)
    return X, np.where(numbers[:, 0] > 0, "a thing up", "a thing down").astype(object)


def trained_shortly(root: Any, name: str, modalities: list[Any]) -> Any:
    """Build an estimator that trains for few epochs, wherever it takes their number."""
    classes = public_classes(root)
    if "max_epochs" in inspect.signature(classes[name]).parameters:
        return classes[name](modalities, max_epochs=N_EPOCHS)
    return classes[name](modalities, trainer=classes["Trainer"](max_epochs=N_EPOCHS))


def calls(root: Any, folder: Path) -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Name -> store, and what makes ready the call."""
    numbers = ("numbers", "passthrough", ["a", "b", "c"])

    def photo() -> Any:
        return ("photo", root.ImageEncoder(folder / "images"), ["photo"])

    def review() -> Any:
        return ("review", root.TextEncoder(folder / "texts"), ["review"])

    def encode(make: Callable[[], Any]) -> Callable[[], Any]:
        (X, _), (_, encoder, columns) = toy_frame(), make()
        return lambda: encoder.fit_transform(X[columns].head(4))

    def fit(name: str, modalities: list[Any]) -> Callable[[], Any]:
        (X, y), estimator = toy_frame(), trained_shortly(root, name, modalities)
        X = X[[column for _, _, columns in modalities for column in columns]]
        return lambda: estimator.fit(X) if "Alignment" in name else estimator.fit(X, y)

    return {
        "image": (folder / "store", lambda: encode(photo)),
        "text": (folder / "store", lambda: encode(review)),
        "joint": (False, lambda: fit("JointFusionClassifier", [numbers, review()])),
        "contrastive": (False, lambda: fit("ContrastiveAlignment", [numbers, photo()])),
        "caption": (False, lambda: fit("CaptionGenerator", [photo()])),
    }


def files_entered(root: Any) -> dict[str, list[str] | None]:
    """Call -> files in which a function ran; None if the call failed."""
    prefix = f"{Path(root.__file__).resolve().parent}/"
    entered: dict[str, list[str] | None] = {}
    seen: set[str] = set()  # one for all calls: a thread may outlive the call that started it

    def note(frame: Any, event: str, argument: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(prefix) and frame.f_code.co_name != "<module>":
            seen.add(path.removeprefix(prefix))

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_checkpoints(Path(name))
        for key, (store, ready) in calls(root, Path(name)).items():
            with root.config_context(store=store):
                try:
                    call = ready()
                    seen.clear()
                    threading.setprofile(note)
                    sys.setprofile(note)
                    call()
                except Exception as error:  # the other figures are still worth having
                    print(f"{key}: {type(error).__name__}: {error}", file=sys.stderr)
                    seen.clear()
                finally:
                    sys.setprofile(None)
                    threading.setprofile(None)
                entered[f"entered_{key}"] = sorted(seen) or None
    return entered


# --- the table ------------------------------------------------------------------------------


def measure(package: Path, *, with_mypy: bool = True) -> dict[str, Any]:
    """Every figure of a package; the lists are given whole."""
    files, root = read_package(package), import_whole(package)
    found = figures_of_files(files) | figures_of_imports(files) | figures_of_classes(files)
    found |= figures_of_annotations(files) | figures_of_estimators(root) | files_entered(root)
    return found | {"mypy_errors": mypy_errors(package) if with_mypy else None}


def measure_other(place: Path, *, with_mypy: bool) -> dict[str, Any]:
    """Figures of another checkout, from a process of its own, or those saved in a file."""
    if place.is_file():
        return json.loads(place.read_text("utf-8"))
    command = [sys.executable, __file__, "--package", str(place / "skmm"), "--json"]
    command += [] if with_mypy else ["--no-mypy"]
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def short(key: str, value: Any) -> str:
    """Return a figure as the table shows it."""
    if value is None:
        return "-"
    if key in {"largest_lines", "most_parameters"}:
        return f"{value[0]:,}"
    return f"{len(value) if isinstance(value, list) else value:,}"


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Figures side by side, and below them the names that some of them count."""
    width = max(map(len, ROWS.values()))
    heads = [*columns] if len(columns) > 1 else []
    lines = [" " * width + "".join(f"{head:>10}" for head in heads)] if heads else []
    for key, label in ROWS.items():
        values = [short(key, figures.get(key)) for figures in columns.values()]
        lines.append(f"{label:<{width}}" + "".join(f"{value:>10}" for value in values))
    for key in ("largest_lines", "most_parameters"):
        lines += ["", f"{ROWS[key]}: " + " / ".join(c[key][1] for c in columns.values())]
    for key in ("single_subclass", "repeated_files", "repeated_classes"):
        for head, figures in columns.items():
            mark = f", {head}" if heads else ""
            names = ", ".join(figures[key]) or "none"
            lines += ["", *textwrap.wrap(f"{ROWS[key]}{mark}: {names}", 100)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures of how skmm is built.")
    parser.add_argument("--package", type=Path, default=Path("skmm"), help="default: ./skmm")
    parser.add_argument("--compare", type=Path, help="another checkout, or its saved figures")
    parser.add_argument("--json", nargs="?", const="-", help="print JSON, or save it to a file")
    parser.add_argument("--no-mypy", action="store_true", help="skip mypy: a minute")
    given = parser.parse_args()
    if not ((package := given.package.resolve()) / "__init__.py").is_file():
        parser.error(f"{given.package} is no package. Run this from the root of a checkout.")
    columns = {}
    if given.compare:
        columns["before"] = measure_other(given.compare.resolve(), with_mypy=not given.no_mypy)
    here = columns["after"] = measure(package, with_mypy=not given.no_mypy)
    text = json.dumps(columns if given.compare else here, indent=1)
    if given.json == "-":
        print(text)
        return
    if given.json:
        Path(given.json).write_text(text + "\n", "utf-8")
    print(table(columns))


if __name__ == "__main__":
    main()
