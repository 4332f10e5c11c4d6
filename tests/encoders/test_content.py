"""Digests of modules and code: different computations have different digests."""

import functools
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from skmm.encoders._store._fingerprint import code_digest, module_digest


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def define(code, **names):
    """Run code like a cell of a notebook; its definitions replace earlier ones."""
    cell = sys.modules["a_notebook"] = types.ModuleType("a_notebook")
    vars(cell).update({"nn": nn, "torch": torch, "np": np, **names})
    exec(code, vars(cell))
    return vars(cell)


NET = """
class Net(nn.Module):
    def forward(self, x):
        return {body}
"""


class TestDigests:
    """Different computations have different digests."""

    def test_the_same_code_has_the_same_digest(self):
        digests = {module_digest(define(NET.format(body="x + 1"))["Net"]()) for _ in range(3)}
        assert len(digests) == 1 and None not in digests
        moved = define("\n\n" + NET.format(body="x + 1"))["Net"]()
        assert module_digest(moved) in digests

    @pytest.mark.parametrize(
        ("body", "one", "other"),
        [
            ("x + SHIFT", "SHIFT = 1", "SHIFT = 2"),
            ("act(x)", "def act(x): return x", "def act(x): return -x"),
            ("act(x)", "act = torch.relu", "act = torch.sigmoid"),
            ("act(x)", "act = lambda x: x + 1", "act = lambda x: x + 2"),
            ("a(x)", "def a(x): return b(x)\ndef b(x): return x",
             "def a(x): return b(x)\ndef b(x): return -x"),
            ("T.f(x)", "class T:\n  f = staticmethod(lambda x: x)",
             "class T:\n  f = staticmethod(lambda x: -x)"),
            ("x * cfg.k", "class C: k = 1\ncfg = C()", "class C: k = 2\ncfg = C()"),
            ("x * cfg.k", "class C: pass\ncfg = C(); cfg.k = 1",
             "class C: pass\ncfg = C(); cfg.k = 2"),
            ("x * TABLE['a'][0]", "TABLE = {'a': [1]}", "TABLE = {'a': [2]}"),
            ("x + W", "W = torch.tensor(1.0)", "W = torch.tensor(2.0)"),
            ("inner(x)", "inner = nn.Softplus(beta=1)", "inner = nn.Softplus(beta=2)"),
            ("g(x)", "import functools\ng = functools.partial(torch.add, other=1)",
             "import functools\ng = functools.partial(torch.add, other=2)"),
            ("g(x)", "import functools\n@functools.cache\ndef g(x): return x",
             "import functools\n@functools.cache\ndef g(x): return -x"),
            ("NS.f(x)", "import types\ndef f(x): return x\nNS = types.SimpleNamespace(f=f)",
             "import types\ndef f(x): return -x\nNS = types.SimpleNamespace(f=f)"),
            ("D['f'](x)", "import collections as c\ndef f(x): return x\nD = c.OrderedDict(f=f)",
             "import collections as c\ndef f(x): return -x\nD = c.OrderedDict(f=f)"),
            ("(lambda y: f(y))(x)", "def f(y): return y", "def f(y): return -y"),
        ],
    )  # fmt: skip
    def test_digest_depends_on_all_that_the_code_uses(self, body, one, other):
        def digest(names):
            return module_digest(define(names + NET.format(body=body))["Net"]())

        assert digest(one) is not None
        assert digest(one) == digest(one)
        assert digest(one) != digest(other)

    def test_a_function_in_a_user_module(self, monkeypatch):
        digests = []
        for body in ("return x", "return -x"):
            helpers = types.ModuleType("my_helpers")
            exec(f"def act(x): {body}", vars(helpers))
            monkeypatch.setitem(sys.modules, "my_helpers", helpers)
            space = define("import my_helpers\n" + NET.format(body="my_helpers.act(x)"))
            digests.append(module_digest(space["Net"]()))
        assert None not in digests and digests[0] != digests[1]

    def test_objects_that_cannot_be_inspected_have_no_digest(self):
        hooked = nn.Linear(2, 2)
        hooked.register_forward_pre_hook(lambda module, inputs: inputs)
        generator = define("gen = (i for i in range(9))\n" + NET.format(body="x + next(gen)"))
        hidden = define(NET.format(body="__import__('os') and helper(x)"), helper=hooked)
        for module in (
            hooked,
            nn.Sequential(hooked),
            torch.fx.symbolic_trace(nn.Linear(2, 2)),
            generator["Net"](),
            hidden["Net"](),
        ):
            assert module_digest(module) is None

    def test_a_layer_that_refers_to_its_parent(self):
        def whole(scale):
            parts = nn.Sequential(nn.Tanh(), nn.Tanh())
            parts[0].owner, parts[0].scale = [parts], scale
            return module_digest(parts)

        assert whole(1) is not None and whole(1) == whole(1) != whole(2)

    def test_a_layer_used_twice(self):
        part = nn.Linear(2, 2)
        once, twice = nn.Sequential(part), nn.Sequential(part, part)
        assert module_digest(once) != module_digest(twice)

    def test_order_and_kind_of_layers(self):
        parts = [nn.ReLU(), nn.Tanh(), nn.Softplus(), nn.Softplus(beta=2)]
        digests = {module_digest(nn.Sequential(*order)) for order in
                   (parts, parts[::-1], parts[:3], [*parts[:3], nn.Softplus()])}  # fmt: skip
        assert len(digests) == 4

    @pytest.mark.parametrize(
        "make",
        [
            lambda: nn.GRU(2, 2),
            lambda: nn.TransformerEncoderLayer(4, 2),
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
            lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        ],
    )
    def test_common_modules_can_be_stored(self, make):
        torch.manual_seed(0)
        first = module_digest(make())
        torch.manual_seed(0)
        assert first is not None and module_digest(make()) == first
        assert module_digest(make()) != first

    def test_dtype(self):
        module = linear()
        whole = module_digest(module)
        assert module_digest(module.bfloat16().float()) != whole

    def test_functions(self):
        def times(k):
            return lambda x: x * k

        assert code_digest(times(2)) == code_digest(times(2)) != code_digest(times(3))
        assert code_digest(functools.partial(times, 2)) != code_digest(functools.partial(times, 3))
        assert code_digest(np.stack) not in (None, code_digest(np.concatenate))
        assert code_digest([].append) is None
