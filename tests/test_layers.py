"""Which package may import which: a table of layers, and rules that hold the code to it.

Every import statement counts, those inside functions included; only imports under
``if TYPE_CHECKING`` are left out, for they never run. To add a layer, write it into ``LAYERS``.
"""

import ast
import io
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "skmm"


class Layer(NamedTuple):
    """What the files of one layer (a folder, or a file beside them) may import."""

    skmm: set[str]  # other layers
    third_party: set[str]


SCIENCE = {"numpy", "scipy", "sklearn", "pandas", "joblib"}
CORE = {"exceptions", "_constraints", "_environment", "_frame"}
TRAINED = CORE | {"_compose", "_training", "nets"}

# From the bottom up: a layer may import only layers that come before it in this table.
LAYERS = {
    "exceptions": Layer(set(), set()),
    "_constraints": Layer(set(), {"numpy", "sklearn"}),
    "nets": Layer(set(), {"torch"}),
    "_environment": Layer({"exceptions"}, {"torch", "joblib"}),
    "_frame": Layer({"exceptions"}, {"numpy", "pandas"}),
    "datasets": Layer({"exceptions", "_constraints", "_environment"}, SCIENCE | {"PIL"}),
    "readers": Layer({"exceptions", "_environment"}, {"numpy", "scipy", "PIL"}),
    "_frame_report": Layer({"exceptions", "_frame", "readers"}, {"numpy", "pandas", "PIL"}),
    "backbones": Layer({"exceptions", "_environment"}, {"torch", "numpy", "PIL"}),
    "encoders": Layer(CORE | {"readers", "backbones"}, SCIENCE | {"torch", "PIL"}),
    # Estimators over triples meet the encoders here, for the default encoder of a modality.
    "_compose": Layer(CORE | {"nets", "encoders"}, SCIENCE | {"torch"}),
    "_training": Layer(CORE | {"nets", "_compose"}, SCIENCE | {"torch", "skorch"}),
    "fusion": Layer(TRAINED, SCIENCE | {"torch"}),
    "alignment": Layer(TRAINED, SCIENCE | {"torch"}),
    "metrics": Layer(set(), {"numpy"}),
    # Target images are read, not encoded; a pretrained captioner reads its cells itself.
    "generation": Layer(
        TRAINED | {"readers", "backbones", "fusion", "metrics"}, SCIENCE | {"torch"}
    ),
    "model_selection": Layer({"exceptions", "_frame", "readers"}, SCIENCE - {"joblib"}),
    # Takes anything with transform_modality for an alignment, and so imports none.
    "retrieval": Layer(CORE | {"metrics"}, SCIENCE | {"torch"}),
    # Displays show raw cells small: images, audio clips, first words.
    "inspection": Layer(CORE | {"readers"}, SCIENCE),
    "testing": Layer(
        TRAINED
        | {"readers", "backbones", "encoders", "fusion", "alignment", "generation", "metrics"}
        | {"model_selection", "retrieval", "datasets"},
        SCIENCE | {"torch", "PIL"},
    ),
}
ROOT = "__init__"  # loads public names lazily; no module imports it

# Packages that not every user has, and those that few may touch, with the files that do.
OPTIONAL = "_environment/_optional.py"
ONLY_IN = {
    "transformers": {OPTIONAL},
    "diffusers": {OPTIONAL},
    "tokenizers": {OPTIONAL},
    "safetensors": {OPTIONAL},
    "polars": {OPTIONAL},
    "matplotlib": {OPTIONAL},
    "soundfile": {OPTIONAL},
    "av": {OPTIONAL},
    "trimesh": {OPTIONAL},
    "pypcd4": {OPTIONAL},
    "faiss": {OPTIONAL},
    "skorch": {"_training/_net.py"},
}
# Importing by a name computed at run time goes past this test, so few files may do it.
DYNAMIC = {
    "__init__.py": "public names are lazy",
    OPTIONAL: "optional packages",
    "_environment/_versions.py": "looks whether a torchvision can be imported",
}
# Files and functions longer than allowed: path or path:function -> reason.
LONG: dict[str, str] = {}
# Files beside _constraints that touch scikit-learn's private names: path -> reason.
PRIVATE_SKLEARN: dict[str, str] = {}

# Lines of code: blank lines, comments and docstrings do not count.
MAX_FILE = 400
MAX_FUNCTION = 60


@dataclass
class Import:
    module: str  # absolute, e.g. "skmm.readers._text" or "torch.nn"
    names: tuple[str, ...]  # what `from module import` takes, else empty
    line: int


@dataclass
class File:
    path: str  # inside the package, e.g. "readers/_text.py"
    tree: ast.Module
    text: str

    @property
    def layer(self) -> str:
        return self.path.partition("/")[0].removesuffix(".py")

    @property
    def module(self) -> str:
        parts = ("skmm/" + self.path).removesuffix(".py").removesuffix("/__init__")
        return parts.replace("/", ".")


def read_package(root: Path) -> list[File]:
    paths = sorted(root.rglob("*.py"))
    texts = [path.read_text() for path in paths]
    return [
        File(path.relative_to(root).as_posix(), ast.parse(text), text)
        for path, text in zip(paths, texts, strict=True)
    ]


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what is under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from running_nodes(other)
            continue
        yield child
        yield from running_nodes(child)


def imports(file: File) -> list[Import]:
    found = []
    package = file.module if file.path.endswith("__init__.py") else file.module.rpartition(".")[0]
    for node in running_nodes(file.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, (), node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            names = tuple(alias.name for alias in node.names)
            found.append(Import(module, names, node.lineno))
    return found


def targets(item: Import, modules: set[str]) -> set[str]:
    """Modules of skmm that an import reaches: ``from a import b`` may reach ``a.b``."""
    if item.module.partition(".")[0] != "skmm":
        return set()
    deeper = {f"{item.module}.{name}" for name in item.names} & modules
    plain = {item.module} if not item.names or len(deeper) < len(item.names) else set()
    return deeper | plain


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ROOT


def wrong_layers(files: list[File]) -> list[str]:
    modules = {file.module for file in files}
    wrong = []
    for file in files:
        if file.path == "__init__.py":
            continue
        if file.layer not in LAYERS:
            wrong.append(f"{file.path}: tests/test_layers.py has no layer {file.layer!r}")
            continue
        for item in imports(file):
            for target in targets(item, modules):
                other = layer_of(target)
                if other not in LAYERS[file.layer].skmm | {file.layer}:
                    wrong.append(f"{file.path}:{item.line}: {file.layer} may not import {target}")
    return wrong


def wrong_packages(files: list[File]) -> list[str]:
    wrong = []
    for file in files:
        allowed = LAYERS[file.layer].third_party if file.layer in LAYERS else set()
        for item in imports(file):
            package = item.module.partition(".")[0]
            if package == "skmm" or package in sys.stdlib_module_names:
                continue
            if package in ONLY_IN and file.path not in ONLY_IN[package]:
                wrong.append(f"{file.path}:{item.line}: {package} belongs in {ONLY_IN[package]}")
            elif package not in allowed:
                wrong.append(f"{file.path}:{item.line}: {file.layer} may not import {package}")
    return wrong


def dynamic_imports(files: list[File]) -> list[str]:
    wrong = []
    for file in files:
        for node in running_nodes(file.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rpartition(".")[2]
                if called in {"import_module", "__import__"} and file.path not in DYNAMIC:
                    wrong.append(f"{file.path}:{node.lineno}: imports by a computed name")
    return wrong


def private_sklearn(files: list[File]) -> list[str]:
    wrong = []
    for file in files:
        if file.path == "_constraints.py" or file.path in PRIVATE_SKLEARN:
            continue
        for item in imports(file):
            parts = [*item.module.split("."), *item.names]
            if parts[0] == "sklearn" and any(_is_private(part) for part in parts):
                wrong.append(f"{file.path}:{item.line}: private {'.'.join(parts)}")
        for node in running_nodes(file.tree):
            if isinstance(node, ast.Attribute) and _is_private(node.attr):
                if ast.unparse(node).startswith("sklearn."):
                    wrong.append(f"{file.path}:{node.lineno}: private {ast.unparse(node)}")
    return wrong


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def circles(files: list[File]) -> list[list[str]]:
    """Files that reach themselves by imports."""
    modules = {file.module for file in files}
    graph = {
        file.module: set().union(*(targets(item, modules) for item in imports(file)))
        - {file.module}
        for file in files
    }
    found = []
    for start in sorted(graph):
        # Shortest way back, so that the message names the circle and nothing else.
        paths = [[start]]
        seen = {start}
        while paths:
            path = paths.pop(0)
            for after in sorted(graph.get(path[-1], ())):
                if after == start:
                    found.append(path)
                    paths = []
                    break
                if after not in seen:
                    seen.add(after)
                    paths.append([*path, after])
    return found


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that hold code: no blank ones, comments or docstrings."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, HAVE_DOCSTRINGS) and ast.get_docstring(node) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


HAVE_DOCSTRINGS = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def too_long(files: list[File]) -> list[str]:
    wrong = []
    for file in files:
        lines = code_lines(file.text)
        if len(lines) > MAX_FILE and file.path not in LONG:
            wrong.append(f"{file.path}: {len(lines)} code lines")
        for node in ast.walk(file.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n = len(lines & set(range(node.body[0].lineno, node.end_lineno + 1)))
                if n > MAX_FUNCTION and f"{file.path}:{node.name}" not in LONG:
                    wrong.append(f"{file.path}:{node.name}: {n} code lines")
    return wrong


# Modules whose private names we need, and names that are public in spite of their underscore.
LIBRARIES = {"nn", "sys", "torch"}
OPEN = {"_asdict", "_init_callback_context", "_modules", "_parameters", "_replace"}


def private_reach(files: list[File]) -> list[str]:
    """Private attributes of other objects: only a class and its own file may touch them."""
    wrong = []
    for file in files:
        own = {name for node in ast.walk(file.tree) for name in _private_names_defined(node)}
        for node in running_nodes(file.tree):
            if not isinstance(node, ast.Attribute) or not _is_private(node.attr):
                continue
            base = ast.unparse(node.value)
            if base in {"self", "cls"} or base.startswith("super(") or node.attr in own:
                continue
            if base.partition(".")[0] in LIBRARIES or node.attr in OPEN:
                continue
            if base[0].isupper():  # of a base class, which its subclass extends
                continue
            wrong.append(f"{file.path}:{node.lineno}: {ast.unparse(node)}")
    return wrong


def _private_names_defined(node: ast.AST) -> list[str]:
    """Private names that a node defines: functions, names, attributes of ``self``."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr] if ast.unparse(node.value) in {"self", "cls"} else []
    return []


def same_names(files: list[File]) -> list[str]:
    """Classes of one name, and file names in more than two folders."""
    classes, names = defaultdict(list), defaultdict(list)
    for file in files:
        folder, _, name = file.path.rpartition("/")
        names[name].append(folder)
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(file.path)
    wrong = [f"class {name}: {', '.join(paths)}" for name, paths in classes.items() if paths[1:]]
    for name, folders in names.items():
        if len(folders) > 2 and name not in {"__init__.py", "_base.py"}:
            wrong.append(f"file {name}: {', '.join(folders)}")
    return wrong


def single_subclasses(files: list[File]) -> list[str]:
    """Bases and mixins that are there for one class alone: they belong into that class."""
    classes = [n for file in files for n in ast.walk(file.tree) if isinstance(n, ast.ClassDef)]
    bases = Counter(
        ast.unparse(base).partition("[")[0].rpartition(".")[2]
        for node in classes
        for base in node.bases
    )
    return [
        f"{node.name} has one subclass"
        for node in classes
        if (node.name.strip("_").startswith("Base") or node.name.endswith("Mixin"))
        and bases[node.name] == 1
    ]


RULES = [
    *(wrong_layers, wrong_packages, dynamic_imports, private_sklearn, circles, too_long),
    *(private_reach, same_names, single_subclasses),
]


@pytest.fixture(scope="module")
def files() -> list[File]:
    found = read_package(PACKAGE)
    assert len(found) > 20, "the package was not found, so nothing would be tested"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_layers(rule, files):
    found = rule(files)
    assert not found, "\n".join(map(str, found))


def test_the_table_has_no_arrow_up():
    seen: set[str] = set()
    for name, layer in LAYERS.items():
        assert layer.skmm <= seen, f"{name} comes before a layer that it imports"
        seen.add(name)


def test_the_table_says_what_the_design_says():
    """The promises that must survive an edit of the table."""
    for name in ("exceptions", "_constraints", "nets"):
        assert LAYERS[name].skmm == set()
    assert not LAYERS["fusion"].skmm & {"encoders", "readers", "backbones"}
    assert not LAYERS["encoders"].skmm & {"fusion", "nets"}
    assert not LAYERS["alignment"].skmm & {"encoders", "readers", "backbones"}
    assert not LAYERS["generation"].skmm & {"encoders", "alignment"}
    for name in ("_compose", "_training"):
        assert not LAYERS[name].skmm & {"fusion", "alignment", "generation"}
    assert not LAYERS["retrieval"].skmm & {"alignment", "fusion", "encoders"}
    assert LAYERS["metrics"].third_party == {"numpy"}
    assert "torch" not in LAYERS["readers"].third_party
    assert LAYERS["nets"].third_party == {"torch"}
    for layer in LAYERS.values():
        assert "testing" not in layer.skmm


@pytest.mark.slow
def test_exceptions_from_the_rules_are_still_needed(files):
    paths = {file.path for file in files}
    for path in {*DYNAMIC, *PRIVATE_SKLEARN, *(key.partition(":")[0] for key in LONG)}:
        assert path in paths


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * 61
BAD = {
    "fusion on encoders": (
        wrong_layers,
        "fusion/_early.py",
        "from skmm.encoders import TextEncoder",
    ),
    "inside a function": (
        wrong_layers,
        "fusion/_early.py",
        "def f():\n    import skmm.readers._text",
    ),
    "relative": (wrong_layers, "encoders/_base.py", "from ..fusion import EarlyFusion"),
    "nets on exceptions": (
        wrong_layers,
        "nets/_concat.py",
        "from skmm.exceptions import CellTypeError",
    ),
    "root from inside": (wrong_layers, "encoders/_base.py", "import skmm"),
    "name of the root": (wrong_layers, "encoders/_base.py", "from skmm import TextEncoder"),
    "alignment": (wrong_layers, "fusion/_early.py", "from skmm import alignment"),
    "testing": (wrong_layers, "encoders/_base.py", "from skmm.testing import check_encoder"),
    "unknown layer": (wrong_layers, "utils.py", ""),
    "reader with torch": (wrong_packages, "readers/_text.py", "import torch"),
    "nets with sklearn": (wrong_packages, "nets/_concat.py", "from sklearn.base import clone"),
    "optional package": (wrong_packages, "encoders/_text.py", "def f():\n    import transformers"),
    "skorch": (wrong_packages, "fusion/_joint.py", "from skorch import NeuralNet"),
    "unknown package": (wrong_packages, "encoders/_text.py", "import nltk"),
    "past the table": (
        dynamic_imports,
        "fusion/_base.py",
        "import importlib\nimportlib.import_module('skmm.encoders')",
    ),
    "private module": (
        private_sklearn,
        "fusion/_base.py",
        "from sklearn.utils._tags import get_tags",
    ),
    "private name": (private_sklearn, "fusion/_base.py", "from sklearn.base import _fit_context"),
    "private attribute": (
        private_sklearn,
        "fusion/_base.py",
        "import sklearn\nsklearn.utils._metadata",
    ),
    "circle": (circles, "_column.py", "from skmm._optional import x"),
    "private attribute of another": (
        private_reach,
        "fusion/_base.py",
        "def f(other):\n    return other._secret",
    ),
    "two classes of a name": (same_names, "fusion/_base.py", "class B: ...\nclass B: ..."),
    "base of one class": (
        single_subclasses,
        "fusion/_base.py",
        "class BaseThing: ...\nclass Thing(BaseThing): ...",
    ),
    "long file": (too_long, "_column.py", "x = 1\n" * 401),
    "long function": (too_long, "_column.py", LONG_FUNCTION),
}


@pytest.mark.parametrize("case", BAD)
def test_each_rule_can_fail(case, tmp_path):
    rule, path, text = BAD[case]
    good = {
        "__init__.py": "",
        "exceptions.py": "",
        "alignment/__init__.py": "",
        "encoders/__init__.py": "from skmm.encoders._base import B",
        "_optional.py": "def f():\n    from skmm._column import y" if case == "circle" else "",
    }
    for name, content in {**good, path: text}.items():
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(content)
    found = rule(read_package(tmp_path))
    assert len(found) >= 1
    named = (
        "BaseThing" if rule is single_subclasses else path.removesuffix(".py").rpartition("/")[2]
    )
    assert named in str(found)


def test_imports_for_type_checkers_do_not_count(tmp_path):
    (tmp_path / "nets").mkdir()
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from skmm.fusion import X\n"
    (tmp_path / "nets" / "_concat.py").write_text(text)
    assert [rule(read_package(tmp_path)) for rule in RULES] == [[]] * len(RULES)
