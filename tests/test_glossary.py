"""One word, one meaning: docs/glossary.rst holds for the package, and old words stay out.

A page of terms is of use only if the names in the code follow it. So every term in code font must
be a name of the package, every parameter that several classes share must be a term, and the words
that the glossary replaces must not come back, in names, comments, messages or pages.
"""

import functools
import importlib
import inspect
import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

REPO = Path(__file__).resolve().parents[1]
GLOSSARY = REPO / "docs" / "glossary.rst"
PUBLIC_MODULES = (
    "skmm",
    "skmm.alignment",
    "skmm.backbones",
    "skmm.datasets",
    "skmm.encoders",
    "skmm.exceptions",
    "skmm.fusion",
    "skmm.generation",
    "skmm.inspection",
    "skmm.metrics",
    "skmm.model_selection",
    "skmm.nets",
    "skmm.readers",
    "skmm.retrieval",
    "skmm.testing",
)


# --- the terms and the package ----------------------------------------------------------


def glossary() -> dict[str, str]:
    """Text of each entry, by its term as it is written."""
    entries, term = {}, None
    for line in GLOSSARY.read_text().splitlines():
        if re.match(r"   \S", line):
            term = line.strip()
            entries[term] = ""
        elif line.startswith("      ") and term is not None:
            entries[term] += line.strip() + " "
        elif line.strip():
            term = None  # the text between two lists of terms
    return entries


TERMS = glossary()
NAMED = {term.strip("`"): text for term, text in TERMS.items() if term.startswith("``")}


@functools.cache
def public_objects() -> dict[str, object]:
    found = {}
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        found |= {member: getattr(module, member) for member in module.__all__}
    return found


def parameters_of(value: object) -> set[str]:
    try:
        return set(inspect.signature(value).parameters) - {"self"}
    except (TypeError, ValueError):
        return set()


@functools.cache
def names_of(name: str) -> frozenset[str]:
    """Parameters, methods, their parameters and documented attributes of a public object."""
    value = public_objects()[name]
    names = parameters_of(value)
    if not inspect.isclass(value):
        return frozenset(names)
    for member in dir(value):
        if not member.startswith("_"):
            names |= {member} | parameters_of(inspect.getattr_static(value, member))
    return frozenset(names | attributes_of(value))


def attributes_of(cls: type) -> set[str]:
    documented = NumpyDocString(inspect.getdoc(cls) or "")["Attributes"]
    return {name.strip() for entry in documented for name in entry.name.split(",")}


def shared_parameters() -> dict[str, int]:
    """How many public classes with ``get_params`` have each parameter of a constructor."""
    classes = {
        value
        for value in public_objects().values()
        if inspect.isclass(value) and hasattr(value, "get_params")
    }
    return Counter(name for cls in classes for name in parameters_of(cls))


def test_glossary_is_in_the_index():
    assert "   glossary\n" in (REPO / "docs" / "index.rst").read_text()


def test_terms_are_listed_once():
    written = re.findall(r"^   (\S.*)\n      ", GLOSSARY.read_text(), re.M)
    assert len(written) > 100
    counts = Counter(term.strip("`").lower() for term in written)
    assert not [term for term, n in counts.items() if n > 1]


@pytest.mark.parametrize("term", TERMS)
def test_entry_has_a_meaning_and_a_use(term):
    meaning, _, used = TERMS[term].partition(":Used by:")
    assert meaning.strip().endswith(".") and used.strip()


@pytest.mark.parametrize("term", NAMED)
def test_named_term_is_a_name_of_the_package(term):
    _, _, used = NAMED[term].partition(":Used by:")
    users = re.findall(r":(?:class|func):`~[\w.]*?(\w+)`", used.partition(":Instead of:")[0])
    missing = [user for user in users if user not in public_objects()]
    assert not missing, f"not public: {missing}"
    # A display plots what others record; where nobody is named, any class may have it.
    without = [
        user for user in users if term not in names_of(user) and not user.endswith("Display")
    ]
    assert not without, f"{term} is no parameter, method or attribute of {without}"
    assert users or any(term in names_of(name) for name in public_objects())


def test_shared_parameters_are_terms():
    missing = sorted(name for name, n in shared_parameters().items() if n > 1 and name not in NAMED)
    assert not missing, "docs/glossary.rst has no entry for the parameters " + ", ".join(missing)


def test_shared_attributes_are_terms():
    """Those that estimators learn, beside what scikit-learn defines and their own results."""
    classes = {
        value
        for value in public_objects().values()
        if inspect.isclass(value) and hasattr(value, "get_params")
    }
    counts = Counter(name for cls in classes for name in attributes_of(cls))
    parameters = shared_parameters()
    missing = sorted(
        name
        for name, n in counts.items()
        if n > 2
        and name.endswith("_")
        and name not in NAMED
        and name.removesuffix("_") not in parameters  # a parameter as it was resolved
        and name not in {"n_features_in_", "feature_names_in_"}
    )
    assert not missing, "docs/glossary.rst has no entry for the attributes " + ", ".join(missing)


# Words of class names that have no meaning of their own in skmm, by where they are from.
FROM_SCIKIT_LEARN = """
classifier regressor display error warning split curve importance report
""".split()
ALGORITHMS = """
attention autoencoder beam bilinear bottleneck cca concat contrastive cross few film flow gan gated
greedy info lip low matching max mean multi nce nucleus sampling search shapley shot sig sum
triplet zero
""".split()
PLAIN = """
answerer attribution caption convergence decode encoded extra leakage map media pretrained prototype
modal retrieval text tabular type
""".split()


def words_of_name(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", name)]


def test_words_of_class_names_are_terms():
    known = {word for term in TERMS for word in re.findall(r"[a-z]+", term.lower())}
    known |= {*FROM_SCIKIT_LEARN, *ALGORITHMS, *PLAIN}
    unknown = {
        name: [word for word in words_of_name(name) if word not in known]
        for name, value in public_objects().items()
        if inspect.isclass(value)
    }
    unknown = {name: words for name, words in unknown.items() if words}
    assert not unknown, f"words of class names that the glossary does not know: {unknown}"


# --- words that stay out ----------------------------------------------------------------

# What to write instead. A word that ends in * stands for every word that begins with it; other
# words are meant with the endings that are listed.
BANNED = {
    "picture* pictured": "image",
    "sound sounds": "audio, recording, clip",
    "painter painters": "diffusion pipeline",
    "writer writers": "captioner, or what is meant",
    "expert experts": "modality predictor",
    "judge judges judged judging": "discriminator, or compare, rate, score",
    "game games": "adversarial training",
    "middles": "transformers, of triples",
    "middle of (a|the|each|every|one|its) triple|triple s middle": "transformer",
    "stand ins?|stands? in|standing in": "imputer, or replaces, represents, is in",
    "stands? (beside|under|behind|above|below|before|there|here|where|on|at)": (
        "is next to, is after, is listed, means"
    ),
    "bent|unbent": "nonlinear",
    "anew": "again",
    "shall": "must, should",
    "whoever|whomever|whosoever": "a user who, the caller",
    "told|untold": "given, by default, distinguished, known, said",
    "lacks|lacking": "has no, is missing, without",
    "goes on|went on|going on|go on": "continues",
    "eats|eat|eaten|eating": "reads, receives",
    "reads? ahead|reading ahead|decod(e|es|ed|ing) ahead": "prefetch",
    "drawn (glyphs?|images?|characters?)|(glyphs?|images?|characters?) drawn": "generated",
    "affair|affairs": "is decided by, belongs to",
    "riddle*|poem*": "say it plainly",
    "rooms": "packages, layers",
    "whilst amongst thereof whereof thence hitherto henceforth": ("a word of today"),
    # British spelling
    r"[a-z]*(colour|behaviour|favour|honour|neighbour|labour|flavour)[a-z]*": "American",
    r"(centre|metre|fibre|theatre|litre|calibre)[a-z]*": "American: center",
    r"gre(y|ys|yed|yscale)": "American: gray",
    r"(label|model|travel|cancel|channel|signal|fuel|level|total)l(ed|ing|er)": "American: one l",
    r"(normal|standard|regular|special|summar|optim|minim|maxim|initial|final|general|local|real"
    r"|recogn|organ|util|visual|vector|token|serial|synchron|character|central|penal|quant|factor"
    r"|discret|binar|parametr|random|categor|custom|memor|priorit|emphas|author|harmon"
    r"|equal|crystal|symbol|linear|polar|tabular|stabil|neutral|modern|scrutin|apolog)"
    r"is(e|es|ed|ing|er|ers|ation|ations)": "American: -ize",
    r"(analy|cataly|paraly)s(e|ed|ing)": "American: analyze",
    r"(catalogue|dialogue|programme|judgement|artefact|licence|defence|offence|cheque|tyre)s?": (
        "American"
    ),
    r"learnt|spelt|burnt|dreamt|leant|fulfil|fulfils|skilful|ageing|towards": "American",
}

# The files of the variational autoencoder, whose posterior is a product of experts.
AUTOENCODERS = (
    "skmm/nets/_autoencoder.py",
    "skmm/alignment/_autoencoder.py",
    "tests/alignment/test_autoencoder.py",
)
# What is allowed, by path and pattern, with the reason. Patterns are removed before the search.
ALLOWED = [
    ("*", r"soundfile|SoundFile\w*|LibsndfileError|sounddevice", "the package soundfile"),
    ("*", r"csv\.writer|ExcelWriter|SummaryWriter", "names of Python and of other packages"),
    ("*", r"[Pp]roduct[ -]of[ -]experts", "the title of a paper, and its method"),
    ("*", r"n-person games|Theory of Games|cooperative games|Game Theory", "papers"),
    ("skmm/datasets/_glyphs.py", r"game piece", "a family of Unicode's names"),
    *(
        (path, r"(?<![a-z])experts?(?![a-z])", "what a product of experts multiplies")
        for path in AUTOENCODERS
    ),
    ("tests/*", r"A man is eating food", "a sentence of a published example"),
    ("docs/glossary.rst", r"(?m)^ +:Instead of:.*$", "where the glossary names what it replaces"),
    ("tests/test_glossary.py", r"(?s).*", "the list itself"),
    ("tests/benchmarks/RESULTS.md", r"(?m)^\|.*$", "recorded figures"),
]

SCANNED = {".py", ".rst", ".md"}
SKIPPED = ("docs/_build", "docs/auto_examples", "docs/api/", "docs/gen_modules")


def _pattern(words: str) -> str:
    """Turn a key of BANNED into a regular expression over lower-case words."""
    if re.fullmatch(r"[a-z* ]+", words):  # single words, one next to the other
        words = "|".join(words.split())
    words = re.sub(r"(?<=[a-z])\*(?=\||$)", r"[a-z]*", words)
    # A phrase may continue in the next line, after the sign of a comment.
    return words.replace(" ", r"[\s#*'\"`-]+")


PATTERNS = [(re.compile(rf"\b(?:{_pattern(words)})\b"), use) for words, use in BANNED.items()]


# Those of several words.
PHRASES = [(pattern, use) for pattern, use in PATTERNS if r"[\s" in pattern.pattern]


@functools.cache
def use_instead(word: str) -> str | None:
    return next((use for pattern, use in PATTERNS if pattern.fullmatch(word)), None)


def words_of(text: str) -> str:
    """Lower-case words of a text, names taken apart, every line where it was."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return text.replace("_", " ").replace("’", " ").replace("'s ", " s ").lower()


def found_in(path: str, text: str) -> list[str]:
    """Banned words of a file, each as ``file:line: word (what to write instead)``."""
    for where, allowed, _ in ALLOWED:
        if fnmatch(path, where):
            text = re.sub(allowed, lambda hit: re.sub(r"[^\n]", " ", hit[0]), text)
    words = words_of(text)
    # Words first, by looking each one up once; then the phrases, which are few.
    hits = [
        (hit.start(), hit[0], use)
        for hit in re.finditer(r"[a-z]+", words)
        if (use := use_instead(hit[0]))
    ]
    for pattern, use in PHRASES:
        hits += [(hit.start(), " ".join(hit[0].split()), use) for hit in pattern.finditer(words)]
    return [
        f"{path}:{words.count(chr(10), 0, start) + 1}: {word} ({use})"
        for start, word, use in sorted(hits)
    ]


def scanned_files() -> list[str]:
    found = [REPO / "README.md"]
    for folder in ("skmm", "docs", "examples", "tests"):
        found += (REPO / folder).rglob("*")
    names = sorted(p.relative_to(REPO).as_posix() for p in found if p.suffix in SCANNED)
    return [name for name in names if not name.startswith(SKIPPED) and "/." not in name]


def _folder(path: str) -> str:
    """Return ``skmm/encoders`` of a file inside it, and the first folder or the file elsewhere."""
    first, *rest = path.split("/")
    if first in ("skmm", "tests") and len(rest) > 1:
        return f"{first}/{rest[0]}"
    return first if rest else path


FILES: dict[str, list[str]] = {}
for _path in scanned_files():
    FILES.setdefault(_folder(_path), []).append(_path)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FILES)
def test_old_words_stay_out(folder):
    found = []
    for path in FILES[folder]:
        found += found_in(path, (REPO / path).read_text())
    assert not found, f"{len(found)} words of {folder}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "The picture of a row.",
        "def read_sound(cell):",
        "class CaptionWriter:",
        "if not\n    # told, the first",
        "the middle\nof a triple",
        "the colour of a neighbour",
        "normalised and centred on the centre",
    ],
)
def test_old_words_are_found(text):
    assert found_in("a.py", text)


@pytest.mark.parametrize(
    "text",
    [
        "import soundfile as sf",
        "a wise noise that raises",
        "stored",
        "expertise",
        "the middle frame",
    ],
)
def test_words_that_are_allowed_are_not_found(text):
    assert not found_in("a.py", text)


def test_found_words_have_their_line():
    (found,) = found_in("a.py", "one\ntwo\nthe picture\n")
    assert found.startswith("a.py:3: picture (image")
