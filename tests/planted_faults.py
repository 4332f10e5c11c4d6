"""Faults that the tests must catch: each is planted in a copy of the checkout, and its tests run.

Run it by hand from the root of a checkout, after a change of the code or of the tests::

    python tests/planted_faults.py                    # plant all faults, one after the other
    python tests/planted_faults.py run --fast         # by the tests of `make test-fast` alone
    python tests/planted_faults.py run -f NAME        # only one; -f may be given several times
    python tests/planted_faults.py check              # can each be planted? No test runs
    python tests/planted_faults.py list               # what they are, and which tests catch them

A fault is a small edit that gives wrong results and raises no error. It counts as caught if one of
its tests fails by an assertion; any other exception is reported as broken. The tests of a fault
have to pass without it. Where the code has changed, so that an edit no longer applies, write the
same fault for the new code, by its sentence.

The checkout itself is never written to. Tests that need real data find them in the folder that
``SKMM_DATA`` names.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import partial
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
COPIED = ("skmm", "tests", "conftest.py", "pyproject.toml")
SECONDS_PER_TEST = 300


@dataclass(frozen=True)
class Fault:
    """An edit of one file."""

    name: str
    sentence: str  # what goes wrong
    file: str  # from the root of the checkout
    old: str  # stands once in the file
    new: str
    tests: tuple[str, ...]  # the smallest that catch it


@dataclass(frozen=True)
class Result:
    """What the tests of a planted fault gave."""

    verdict: str  # caught, not caught, broken
    seconds: float = 0.0
    test: str = ""  # the first that failed
    reason: str = ""
    output: str = ""


FAULTS = [
    # --- a mask is ignored ---
    Fault(
        name="joint-mask-ignored",
        sentence="A joint fusion takes every modality for present, so the values in the place of an"
        " absent one reaches the fused vector.",
        file="skmm/_training/_module.py",
        old="masks[name] = own.present[:, None].expand(",
        new="masks[name] = torch.ones_like(own.present)[:, None].expand(",
        tests=("tests/training/test_net.py::test_absent_values_reach_neither_output_nor_gradient",),
    ),
    Fault(
        name="net-mask-ignored",
        sentence="The fusion networks pass on the values where a mask is False, not zeros.",
        file="skmm/nets/fusion/_base.py",
        old="ordered_tokens.append(zeroed(block, mask))",
        new="ordered_tokens.append(block)",
        tests=(
            "tests/nets/fusion/test_contract.py"
            "::test_absent_values_reach_neither_output_nor_gradient",
        ),
    ),
    # --- a fingerprint misses a parameter ---
    Fault(
        name="fingerprint-misses-max-length",
        sentence="The key of a stored text embedding does not depend on max_length, so the vector"
        " of a text that was cut elsewhere is reused.",
        file="skmm/encoders/_engines/_pretrained.py",
        old='"description": self.description,',
        new='"description": {k: v for k, v in self.description.items() if k != "max_length"},',
        tests=(
            "tests/encoders/test_reuse.py::test_each_change_misses_and_each_other_value_hits[text]",
        ),
    ),
    # --- a wrong fold ---
    Fault(
        name="late-folds-see-their-rows",
        sentence="The out-of-fold votes of a late fusion come from estimators that were fitted on"
        " all rows, also on those that they vote on.",
        file="skmm/fusion/_late.py",
        old="self._fit_predictor(modality, take_rows(X, train), y[train], own)",
        new="self._fit_predictor(modality, X, y, params[modality.name])",
        tests=("tests/fusion/test_late.py::test_out_of_fold_votes_have_not_seen_their_row",),
    ),
    # --- a head or an encoder is not trained ---
    Fault(
        name="joint-head-not-trained",
        sentence="The optimizer of a joint fusion never moves the parameters of the head.",
        file="skmm/_training/_net.py",
        old="param_groups=parameter_groups(module, encoder_learning_rates, learning_rate),",
        new="param_groups=[*parameter_groups(module, encoder_learning_rates, learning_rate),"
        ' ("head.*", {"lr": 0.0})],',
        tests=("tests/fusion/test_joint.py::test_every_weight_is_trained",),
    ),
    Fault(
        name="joint-encoders-not-trained",
        sentence="The optimizer of a joint fusion never moves the encoders that train with it.",
        file="skmm/_training/_net.py",
        old="param_groups=parameter_groups(module, encoder_learning_rates, learning_rate),",
        new='param_groups=[("encoders.*", {"lr": 0.0})],',
        tests=("tests/fusion/test_joint_encoders.py::test_gradients_reach_every_encoder",),
    ),
    Fault(
        name="encoder-head-not-trained",
        sentence="Where a checkpoint is fine-tuned by its encoder alone, the head is not trained.",
        file="skmm/encoders/_engines/_trained.py",
        old='        {"params": list(network.head.parameters())},\n',
        new="",
        tests=("tests/encoders/test_fine_tune.py::test_training_equals_a_plain_loop",),
    ),
    # --- early stopping ---
    Fault(
        name="early-stopping-keeps-last",
        sentence="Early stopping keeps the weights of the last epoch, not those of the best.",
        file="skmm/_training/_net.py",
        old="EarlyStopping(patience=n_iter_no_change, load_best=True,",
        new="EarlyStopping(patience=n_iter_no_change, load_best=False,",
        tests=("tests/fusion/test_joint.py::test_early_stopping_ends_at_the_best_epoch",),
    ),
    # --- sample_weight ---
    Fault(
        name="joint-sample-weight-ignored",
        sentence="The loss of a joint fusion is the plain mean over rows, whatever their weights.",
        file="skmm/_training/_net.py",
        old="weight = None if X is None else X.sample_weight",
        new="weight = None",
        tests=("tests/training/test_net.py::test_loss_is_a_mean_over_rows",),
    ),
    # --- stored embeddings ---
    Fault(
        name="store-in-file-order",
        sentence="The store pairs the arrays, in the order of its file, with the keys as they were"
        " asked for, so a cell gets the vector of another.",
        file="skmm/encoders/_store/_store.py",
        old="found[key] = array",
        new="found[asked[len(found)]] = array",
        tests=("tests/encoders/test_store.py::test_order_of_the_keys_does_not_matter",),
    ),
    Fault(
        name="scattered-by-position",
        sentence="The vectors of a batch go to cells in the order in which they were looked up,"
        " though batches are cut by length.",
        file="skmm/encoders/_pass.py",
        old="        for key in keys:\n            yield missing[key], fresh.get(key)\n",
        new="        for places, key in zip(list(missing.values()), keys):\n"
        "            yield places, fresh.get(key)\n",
        tests=("tests/encoders/test_pass.py::test_chunks_do_not_change_the_result",),
    ),
    Fault(
        name="claims-ignored",
        sentence="The store grants every claim, so two workers encode the same cell.",
        file="skmm/encoders/_store/_store.py",
        old="granted = [key for key in keys if key not in taken]",
        new="granted = list(keys)",
        tests=("tests/encoders/test_claims.py::test_exclude_other_threads_and_end",),
    ),
    # --- contrastive pairs, canonical correlation ---
    Fault(
        name="twins-are-negatives",
        sentence="The contrastive loss over pairs of modalities pushes rows apart that hold the"
        " same cell.",
        file="skmm/nets/_contrastive.py",
        old="self.loss(left, right, positive, ~positive & ~same)",
        new="self.loss(left, right, positive, ~positive)",
        tests=("tests/nets/test_contrastive.py::test_pairs_of_modalities_with_masks",),
    ),
    Fault(
        name="hard-negatives-unmasked",
        sentence="The hinge losses choose the hardest negative among all rows, the positive"
        " included.",
        file="skmm/nets/_contrastive.py",
        old="chosen = torch.where(negative, similarity, _NONE).amax(dim=1, keepdim=True)",
        new="chosen = similarity.amax(dim=1, keepdim=True)",
        tests=("tests/nets/test_contrastive.py::test_equals_the_sum_over_pairs",),
    ),
    Fault(
        name="cca-not-centered",
        sentence="Canonical correlation analysis multiplies features that are not centered.",
        file="skmm/alignment/_cca_solver.py",
        old="source.features(rows[present[:, j]]) - self.means[name]",
        new="source.features(rows[present[:, j]])",
        tests=("tests/alignment/test_cca.py::test_kernel_as_the_dual_problem",),
    ),
    # --- decoding of texts ---
    Fault(
        name="beam-state-not-reordered",
        sentence="Beam search leaves the decoder's state in the old order of the beams, so a text"
        " continues what another one wrote.",
        file="skmm/generation/_decoding.py",
        old="        state = state.take_past((first + parents).flatten())\n",
        new="",
        tests=("tests/generation/test_decoding.py::test_a_wide_beam_finds_the_best_of_all_texts",),
    ),
    Fault(
        name="prefix-mask-ignored",
        sentence="Behind a prefix the decoder also looks at the padding of shorter prefixes.",
        file="skmm/nets/_text_decoders.py",
        old="torch.cat([read, generated], dim=1)",
        new="torch.cat([torch.ones_like(read), generated], dim=1)",
        tests=(
            "tests/generation/test_prefix.py"
            "::test_what_follows_a_prefix_is_what_follows_its_tokens",
        ),
    ),
    Fault(
        name="length-penalty-ignored",
        sentence="Beam search compares plain log-likelihoods, whatever the length penalty.",
        file="skmm/generation/_decoding.py",
        old="ranks = total / longer[..., None] ** length_penalty",
        new="ranks = total",
        tests=("tests/generation/test_decoding.py::test_a_length_penalty_makes_longer_texts",),
    ),
    # --- rows that are held out ---
    Fault(
        name="held-out-rows-trained-on",
        sentence="A joint fusion is also trained on the rows that early stopping watches.",
        file="skmm/fusion/_joint.py",
        old="np.setdiff1d(rows, held_out),",
        new="rows,",
        tests=("tests/training/test_held_out.py::test_watched_rows_are_not_trained_on",),
    ),
    Fault(
        name="contrastive-held-out-rows-trained-on",
        sentence="A contrastive alignment is also trained on the rows that early stopping watches.",
        file="skmm/alignment/_contrastive.py",
        old="rows = np.setdiff1d(rows, held_out)",
        new="rows = np.asarray(rows)",
        tests=("tests/training/test_held_out.py::test_watched_rows_are_not_trained_on",),
    ),
    # --- standardization ---
    Fault(
        name="standardized-by-new-frame",
        sentence="Features are centered on the mean of the frame at hand, not on that of the"
        " training rows.",
        file="skmm/_compose/_block.py",
        old="scaled = (value.values - self.mean) / self.deviation",
        new="scaled = (value.values - value.scale()[0]) / self.deviation",
        tests=(
            "tests/fusion/test_joint.py::test_predictions_of_a_row_do_not_depend_on_the_others",
        ),
    ),
    Fault(
        name="scale-counts-absent-rows",
        sentence="Mean and deviation of a feature count rows that lack it as zeros.",
        file="skmm/_compose/_block.py",
        old="counts = np.maximum(known.sum(axis=0), 1)",
        new="counts = np.maximum(np.full(features.shape[1], len(features)), 1)",
        tests=(
            "tests/fusion/test_early.py"
            "::test_scaling_imputation_and_markers_equal_a_hand_computation",
        ),
    ),
]


def main() -> int:
    """Do what the command line says; 1 if a fault is not caught, or cannot be planted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", nargs="?", choices=["run", "check", "list"], default="run")
    names = [fault.name for fault in FAULTS]
    parser.add_argument("-f", "--fault", action="append", choices=names, metavar="NAME")
    parser.add_argument("--fast", action="store_true", help="leave out tests marked slow")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.name in (options.fault or names)]
    if options.verb == "list":
        for fault in faults:
            tests = "\n      ".join(fault.tests)
            print(f"{fault.name}: {fault.sentence}\n    {fault.file}\n      {tests}")
        return 0
    act = check if options.verb == "check" else partial(run, fast=options.fast)
    n_good = sum([act(fault) for fault in faults])  # a list: each fault is reported
    print(f"{n_good} of {len(faults)} {'can be planted' if act is check else 'caught'}")
    return int(n_good < len(faults))


def check(fault: Fault) -> bool:
    """Say whether the fault can be planted."""
    try:
        planted(fault)
    except (OSError, ValueError, SyntaxError) as error:
        print(f"not planted  {fault.name}: {error}")
        return False
    print(f"ok           {fault.name}")
    return True


def run(fault: Fault, *, fast: bool) -> bool:
    """Say whether the tests catch the fault, or only those that are not slow."""
    try:
        text = planted(fault)
    except (OSError, ValueError, SyntaxError) as error:
        result = Result("not planted", reason=str(error))
    else:
        with tempfile.TemporaryDirectory(prefix=f"fault-{fault.name}-") as temporary:
            folder = Path(temporary).resolve()
            copy_checkout(folder)
            (folder / fault.file).write_text(text)
            result = run_tests(folder, fault.tests, fast=fast)
    print(
        f"{result.verdict:11s}  {fault.name} [{result.seconds:.0f} s] {result.test}"
        f" | {result.reason[:160]}",
        flush=True,
    )
    if result.verdict == "broken":
        print(result.output, flush=True)
    return result.verdict == "caught"


def planted(fault: Fault) -> str:
    """Text of the file with the fault, which is still Python."""
    text = (CHECKOUT / fault.file).read_text()
    n = text.count(fault.old)
    if n != 1:
        raise ValueError(f"the text to replace stands {n} times in {fault.file}")
    changed = text.replace(fault.old, fault.new)
    ast.parse(changed)
    return changed


def copy_checkout(folder: Path) -> None:
    """Copy what tests need."""
    for name in COPIED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


def run_tests(folder: Path, tests: tuple[str, ...], *, fast: bool) -> Result:
    """Run tests in a copy up to the first that fails."""
    environment = {
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "PYTHONPATH": str(folder),  # the copy comes first, also in processes that tests start
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": "1",  # hypothesis draws the same examples in every run
    }

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()

    origin = python("-c", "import skmm; print(skmm.__file__)")
    if not Path(origin.splitlines()[-1]).is_relative_to(folder):
        return Result("broken", reason="skmm is not that of the copy", output=origin)
    report = folder / "report.xml"
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={SECONDS_PER_TEST}"]
    began = time.monotonic()
    if fast:
        options += ["-m", "not slow"]
    output = python("-m", "pytest", *options, f"--junitxml={report}", *tests)
    seconds = time.monotonic() - began
    if not report.exists():
        return Result("broken", seconds, reason="pytest gave no report", output=output[-3000:])
    return result_of(ET.parse(report).getroot(), seconds, output[-3000:])


def result_of(report: ET.Element, seconds: float, output: str) -> Result:
    """Look for the first test that failed, and why."""
    cases = list(report.iter("testcase"))
    for case in cases:
        for kind in ("error", "failure"):
            found = case.find(kind)
            if found is None:
                continue
            test = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
            message = " ".join((found.get("message") or found.text or "").split())
            # The last line "file:line: SomeError" of the traceback names the exception.
            names = re.findall(r"^\S+\.py:\d+: (\w[\w.]*)", found.text or "", flags=re.MULTILINE)
            error = names[-1] if names else message.split(":")[0]
            by_assertion = error.endswith(("AssertionError", "Failed")) or "assert" in message[:200]
            verdict = "caught" if kind == "failure" and by_assertion else "broken"
            return Result(verdict, seconds, test, message, output)
    if not cases or all(case.find("skipped") is not None for case in cases):
        return Result("broken", seconds, reason="no test has run", output=output)
    return Result("not caught", seconds)


if __name__ == "__main__":
    sys.exit(main())
