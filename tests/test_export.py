"""Functions of a real IPython shell, written as a module and served by the official SDK in a fresh process."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from compute_modules.function_registry.function_schema_parser import parse_function_schema
from shells import plain_shell

from cmemu_nb import Emulator
from cmemu_nb.errors import CmemuError, ExportRefused
from cmemu_nb.export.writer import export_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

FRESH = """
import json, sys
import compute_modules.startup
compute_modules.startup.DISABLE_STARTUP = True
text, calls = json.load(sys.stdin)
import types
sys.modules["app"] = types.ModuleType("app")
module = vars(sys.modules["app"])
exec(compile(text, "app.py", "exec"), module)
from compute_modules.function_registry import function_registry as registry
print(json.dumps([
    [json.dumps(schema) for schema in registry.FUNCTION_SCHEMAS],
    registry.STREAMING,
    list(registry.REGISTERED_FUNCTIONS),
    [repr(eval(call, module)) for call in calls],
]))
"""
PAYLOAD = """
from dataclasses import dataclass

@dataclass
class AddPayload:
    x: int
    y: int
"""
ADD = """
@emu.function
def add(context, event: AddPayload) -> int:
    return event.x + event.y
"""


class Notebook:
    """A shell, what its cells serve, and the sources of the cells that it has run."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.cells: list[str] = []
        self.served: dict[str, tuple[Callable[..., Any], bool]] = {}
        self.edits: dict[str, list[Any]] = {}
        shell.user_ns["emu"] = self

    def function(self, function: Any = None, *, streaming: bool = False, edits: list[Any] | None = None) -> Any:
        def serve(function: Callable[..., Any]) -> Callable[..., Any]:
            self.served[function.__name__] = function, streaming
            self.edits[function.__name__] = edits or []
            return function

        return serve if function is None else serve(function)

    def run(self, *cells: str) -> None:
        for cell in cells:
            code = dedent(cell).lstrip("\n")
            self.shell.run_cell(code, store_history=True).raise_error()
            self.cells.append(self.shell.transform_cell(code))

    def export(self) -> str:
        return export_module(self.served.values(), self.cells)

    def check(self, *calls: str) -> str:
        """Export, run the text in a fresh process, and compare schemas, streaming and the values of calls."""
        text = self.export()
        done = subprocess.run(
            [sys.executable, "-c", FRESH], input=json.dumps([text, calls]), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{text}"
        schemas, streaming, names, values = json.loads(done.stdout)
        here = [
            parse_function_schema(function, name, self.edits[name], {}) for name, (function, _) in self.served.items()
        ]
        assert list(map(json.loads, schemas)) == [result.function_schema for result in here]
        assert streaming == {name: each for name, (_, each) in self.served.items()}
        assert names == list(self.served)
        namespace = self.shell.user_ns
        assert values == [repr(eval(call, namespace)) for call in calls]
        return text


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with plain_shell(tmp_path_factory.mktemp("ipython")) as shell:
        yield shell


@pytest.fixture
def notebook(shell: InteractiveShell) -> Iterator[Notebook]:
    yield Notebook(shell)
    shell.reset(new_session=False)


def test_a_function_comes_with_its_class_and_keeps_its_text(notebook: Notebook) -> None:
    notebook.run(
        PAYLOAD,
        """
        LIMIT = 5

        def _helper(x):
            return min(x, LIMIT)  # at most

        @emu.function  # served
        def add(context, event: AddPayload) -> int:
            # a comment  ä
            return _helper(event.x) + event.y
        """,
    )
    text = notebook.check("add(None, AddPayload(9, 2))")
    assert text == dedent('''\
        """Functions of a compute module, written by cmemu_nb from a notebook."""

        from dataclasses import dataclass

        from compute_modules.annotations import function

        LIMIT = 5


        @dataclass
        class AddPayload:
            x: int
            y: int


        def _helper(x):
            return min(x, LIMIT)  # at most


        @function  # served
        def add(context, event: AddPayload) -> int:
            # a comment  ä
            return _helper(event.x) + event.y
    ''')


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        ("@emu.function", "@function"),
        ("@emu.function()", "@function"),
        ("@emu.function(streaming=True)", "@function(streaming=True)"),
        ("@emu.function(\n    streaming=True,\n)  # why", "@function(streaming=True)  # why"),
        ("@emu.function(edits=[AddPayload])", "@function(edits=[AddPayload])"),
        ("@emu.function(streaming=True, edits=[AddPayload])", "@function(streaming=True, edits=[AddPayload])"),
    ],
)
def test_the_decorator_that_serves_becomes_the_sdks(notebook: Notebook, decorator: str, expected: str) -> None:
    notebook.run(PAYLOAD, f"{decorator}\ndef add(context, event):\n    yield 1\n")
    assert f"\n\n{expected}\ndef add(context, event):\n" in notebook.check("[*add(None, None)]")


def test_a_function_served_by_a_call_gets_the_decorator(notebook: Notebook) -> None:
    notebook.run(PAYLOAD, ADD.replace("@emu.function\n", ""), "emu.function(add)")
    assert "@function\ndef add(" in notebook.check("add(None, AddPayload(1, 2))")


def test_other_decorators_stay_and_what_they_name_comes_along_before_them(notebook: Notebook) -> None:
    notebook.run(
        PAYLOAD,
        """
        import functools

        def _log(text): return TEXT + text
        TEXT = "called "
        LOG = _log("")

        def twice(times=2):
            _log("at import")
            def decorator(function):
                @functools.wraps(function)
                def wrapper(*args):
                    return times * function(*args)
                return wrapper
            return decorator

        @functools.lru_cache(maxsize=None)
        def cached(x): return x + 1

        @emu.function
        @twice(times=3)
        def add(context, event: AddPayload) -> int:
            return cached(event.x)
        """,
    )
    text = notebook.check("add(None, AddPayload(1, 2))")
    assert "@function\n@twice(times=3)\ndef add" in text
    assert text.index("def _log") < text.index("def add")


def test_every_place_that_names_something_counts(notebook: Notebook) -> None:
    notebook.run(
        """
        import math, datetime
        from dataclasses import dataclass, field
        from typing import Iterable, Optional
        from compute_modules.function_registry.types import Long
        A, B, C, D, E, F, G = 1, 2, 3, 4, 5, 6, 7
        FIRST = {"start": 0}

        def default_list(): return [E]

        class Base:
            shift: int = F
            def moved(self): return self.shift + B

        @dataclass
        class Part:
            date: datetime.date

        @dataclass
        class Payload:
            count: Long
            part: Optional[Part] = None
            items: list[int] = field(default_factory=default_list)
            def total(self): return sum(self.items) + A

        @emu.function
        def measure(context, event: Payload, extra=G) -> Iterable[float]:
            def nested(): return C
            parts = [nested() + i for i in range(B)]
            return [event.total() * D, *parts, Child().moved(), extra, math.pi, FIRST["start"]]

        class Child(Base):
            pass
        """,
    )
    text = notebook.check("measure(None, Payload(1))", "Payload(2, Part(datetime.date(2020, 1, 2)))")
    assert "from compute_modules.function_registry.types import Long\n" in text
    assert "from typing import Iterable, Optional\n" in text


def test_a_field_named_as_its_type_brings_the_type(notebook: Notebook) -> None:
    notebook.run(
        """
        from dataclasses import dataclass
        from datetime import date

        @dataclass
        class Payload:
            date: date

        @emu.function
        def year(context, event: Payload) -> int:
            return event.date.year
        """
    )
    assert "from datetime import date\n" in notebook.check("year(None, Payload(date(2020, 1, 2)))")


def test_imports_are_as_the_notebook_wrote_them(notebook: Notebook) -> None:
    notebook.run(
        """
        import numpy as np
        import xml.etree.ElementTree
        from os import path as where
        from pathlib import Path
        from math import *
        from json import dumps as to_json

        @emu.function
        def use(context, event):
            root = xml.etree.ElementTree.fromstring("<a/>")
            return to_json([root.tag, where.join("a", "b"), str(Path("c")), int(np.arange(3).sum()), sqrt(pi)])
        """
    )
    text = notebook.check("use(None, None)")
    for line in (
        "import numpy as np",
        "import xml.etree.ElementTree",
        "from os import path as where",
        "from pathlib import Path",
        "from math import pi, sqrt",
        "from json import dumps as to_json",
    ):
        assert f"\n{line}\n" in text


def test_an_object_that_no_cell_imported_is_found_where_it_says(notebook: Notebook) -> None:
    from collections import OrderedDict  # noqa: PLC0415
    from typing import Optional  # noqa: PLC0415

    notebook.shell.user_ns.update(Ordered=OrderedDict, Maybe=Optional)
    notebook.run(
        """
        @emu.function
        def use(context, event) -> Maybe[int]:
            return Ordered(a=1)
        """
    )
    text = notebook.check("use(None, None)")
    assert "from collections import OrderedDict as Ordered\n" in text
    assert "from typing import Optional as Maybe\n" in text


@pytest.mark.parametrize(
    "value",
    [
        "-3",
        "2.5",
        "1 + 2j",
        "'text'",
        "b'bytes'",
        "True",
        "None",
        "(1, ('a', None))",
        "frozenset({1, 2})",
        "[1, {'a': [2]}, {3}, set()]",
        "{str(i): 'long ' * i for i in range(20)}",
    ],
)
def test_a_constant_is_written_as_its_value(notebook: Notebook, value: str) -> None:
    notebook.run(f"VALUE = {value}", "@emu.function\ndef use(context, event):\n    return VALUE\n")
    notebook.check("use(None, None)", "type(VALUE)")


def test_a_local_name_that_is_changed_leaves_a_constant_alone(notebook: Notebook) -> None:
    notebook.run(
        """
        rows = [1]

        def fill():
            rows = []
            rows.append(2)
            return rows

        @emu.function
        def use(context, event):
            return rows + fill()
        """
    )
    notebook.check("use(None, None)")


def test_builtins_and_what_ipython_puts_over_them_stay(notebook: Notebook) -> None:
    notebook.run("@emu.function\ndef use(context, event):\n    return callable(open), len(__name__) > 0\n")
    assert "open" not in notebook.check("use(None, None)").replace("callable(open)", "")


def test_recursion_and_functions_that_call_each_other(notebook: Notebook) -> None:
    notebook.run(
        """
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)

        class Tree:
            def size(self, depth: int) -> int: return depth and 1 + grown(self).size(depth - 1)

        def grown(tree: Tree) -> Tree: return Tree()

        @emu.function
        def use(context, event): return even(4), Tree().size(3)

        @emu.function(streaming=True)
        def other(context, event):
            yield use(context, event)
        """
    )
    notebook.check("use(None, None)", "[*other(None, None)]")


def test_a_second_name_is_kept(notebook: Notebook) -> None:
    notebook.run(
        """
        def first(): return 1
        second = first

        @emu.function
        def use(context, event): return second()
        """
    )
    assert "\nsecond = first\n" in notebook.check("use(None, None)")


def test_frozen_slotted_async_and_indented_ones_are_written(notebook: Notebook) -> None:
    notebook.run(
        """
        import asyncio
        from dataclasses import dataclass
        from typing import Any

        @dataclass(frozen=True, slots=True)
        class Payload:
            x: int = 1
            def twice(self) -> int: return self.x * 2

        if True:
            def indented(x):
                return x + 1

        @emu.function
        def use(context, event: Payload) -> int:
            async def inner(): return await later(event.twice())
            return asyncio.run(inner())

        async def later(x, *, more=[i for i in range(3)]):
            return indented(x) + sum(more)
        """
    )
    notebook.check("use(None, Payload(3))")


def test_typed_dicts_named_tuples_and_enums_are_classes_too(notebook: Notebook) -> None:
    notebook.run(
        """
        from enum import Enum
        from typing import NamedTuple, TypedDict

        class Base(TypedDict):
            x: int

        class Payload(Base):
            y: int

        class Pair(NamedTuple):
            a: int
            b: int = 2

        class Color(Enum):
            RED = 1
            def __private(self): return self.value
            @property
            def shown(self): return self.name

        @emu.function
        def use(context, event: Payload) -> int:
            return Pair(event["x"]).b + Color.RED.value
        """
    )
    notebook.check("use(None, {'x': 1, 'y': 2})", "Color.RED.shown")


def test_a_function_of_a_module_is_imported_and_registered(notebook: Notebook) -> None:
    notebook.run(
        "import textwrap, bisect", "emu.function(textwrap.dedent)", "emu.function(streaming=True)(textwrap.wrap)"
    )
    text = notebook.check()
    assert "\nfrom textwrap import dedent, wrap\n" in text
    assert text.endswith("\nfunction(dedent)\nfunction(streaming=True)(wrap)\n")


def test_the_newest_class_counts(notebook: Notebook) -> None:
    notebook.run(PAYLOAD, PAYLOAD.replace("y: int", "y: int\n    z: int = 1"), ADD)
    assert "z: int = 1" in notebook.check("add(None, AddPayload(1, 2))")


def test_annotations_as_text_need_no_future_import(notebook: Notebook) -> None:
    notebook.run(
        """
        from __future__ import annotations

        def helper(x: int) -> list[int]:
            def inner(y: int) -> int: return y
            return [inner(x)]

        @emu.function
        def use(context, event) -> int:
            return helper(1)
        """
    )
    notebook.shell.compile.reset_compiler_flags()
    assert "__future__" not in notebook.check("use(None, None)")


USE = "@emu.function\ndef use(context, event):\n    return {}\n"
REFUSED = {
    "a name that is not defined": (["{use nothing}"], ["use uses 'nothing'", "not defined"]),
    "a data frame": (
        ["import pandas as pd\nframe = pd.DataFrame({'a': [1]})", "{use frame}"],
        ["use uses 'frame'", "DataFrame", "load it inside the function"],
    ),
    "an object": (["class Model: pass\nmodel = Model()", "{use model}"], ["use uses 'model'", "Model", "in a module"]),
    "an open file": (["import os\nfile = open(os.devnull)", "file.close()", "{use file}"], ["'file'", "TextIOWrapper"]),
    "a lambda": (["shift = lambda x: x", "{use shift(1)}"], ["'shift'", "lambda", "def"]),
    "not a number": (["value = float('nan')", "{use value}"], ["'value'", "float", "literal"]),
    "a subclass of a number": (
        ["import numpy as np\nvalue = np.float64(1)", "{use value}"],
        ["'value'", "numpy.float64"],
    ),
    "a list in itself": (["value = []\nvalue.append(value)", "{use value}"], ["'value'", "contains itself"]),
    "a magic": (["@emu.function\ndef use(context, event):\n    %time 1\n"], ["use uses a magic"]),
    "a closure": (
        ["def make(rate):\n    def scaled(x): return rate * x\n    return scaled\nscaled = make(2)", "{use scaled(1)}"],
        ["use uses 'scaled'", "closure", "'rate'"],
    ),
    "a served closure": (
        ["def make(rate):\n    @emu.function\n    def use(context, event): return rate\n    return use\nuse = make(2)"],
        ["use: it is a closure", "'rate'"],
    ),
    "a wrapping by a call": (
        ["import functools\ndef plain(x): return x\nplain = functools.cache(plain)", "{use plain(1)}"],
        ["'plain'", "wrapped by a call"],
    ),
    "a function that others were registered with": (
        ["import functools\n@functools.singledispatch\ndef shown(x): return x", "{use shown(1)}"],
        ["'shown'", "singledispatch"],
    ),
    "a written global": (
        ["count = 0\n@emu.function\ndef use(context, event):\n    global count\n    count += 1\n"],
        ["use uses 'count'", "int", "'global'"],
    ),
    "a class without a statement": (["Made = type('Made', (), {})", "{use Made()}"], ["'Made'", "class statement"]),
    "a class changed by hand": (
        ["class Thing:\n    pass\ndef size(self): return 1\nThing.size = size", "{use Thing()}"],
        ["'Thing'", "changed"],
    ),
    "a function without a source": (["exec('def plain(): return 1')", "{use plain()}"], ["'plain'", "source"]),
    "a class defined again": (
        [PAYLOAD, ADD, PAYLOAD.replace("y: int", "y: float")],
        ["add", "event: AddPayload", "Run the cell of add again"],
    ),
    "a default defined again": (
        ["LIMIT = [1]\n@emu.function\ndef use(context, event, most=LIMIT): return most", "LIMIT = [2]"],
        ["use", "most: LIMIT", "Run the cell of use again"],
    ),
    "a field's class defined again": (
        ["class Inner: pass", "class Outer:\n    inner: Inner", "class Inner: pass", "{use Outer()}"],
        ["Outer", "inner: Inner", "Run the cell of Outer again"],
    ),
    "a base defined again": (
        ["class Base: pass", "class Outer(Base): pass", "class Base: pass", "{use Outer()}"],
        ["Outer", "base: Base"],
    ),
    "the name of the decorator": (["def function(): return 1", "{use function()}"], ["'function'", "another name"]),
}


@pytest.mark.parametrize(("cells", "words"), REFUSED.values(), ids=list(REFUSED))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_refused_by_name(notebook: Notebook, cells: list[str], words: list[str]) -> None:
    for cell in cells:
        notebook.run(USE.format(cell[5:-1]) if cell.startswith("{use ") else cell)
    with pytest.raises(ExportRefused) as refused:
        notebook.export()
    for word in words:
        assert word in str(refused.value)
    assert isinstance(refused.value, CmemuError)


@pytest.mark.parametrize(
    "change",
    [
        "CACHE['a'] = 1",
        "CACHE['a']['b'] = 1",
        "CACHE['a'] += 1",
        "del CACHE['a']",
        "CACHE.setdefault('a', []).append(1)",
        "CACHE.update(a=1)",
        "CACHE['a'].append(1)",
        "[CACHE.pop(i) for i in 'a']",
    ],
)
def test_a_container_that_is_changed_is_refused(notebook: Notebook, change: str) -> None:
    notebook.run(
        f"CACHE = {{}}\ndef remember():\n    {change}",
        USE.format("remember(), CACHE"),
    )
    with pytest.raises(ExportRefused, match=r"remember uses 'CACHE', an object of type dict: it is changed"):
        notebook.export()


def test_the_emulator_itself_is_refused(notebook: Notebook) -> None:
    notebook.shell.user_ns["emulator"] = Emulator(port=0)
    notebook.run(USE.format("emulator.call('add')"))
    with pytest.raises(
        ExportRefused, match=r"'emulator', an object of type cmemu_nb\.emulator\.Emulator: it exists only"
    ):
        notebook.export()


def test_two_objects_under_one_name_are_refused(notebook: Notebook) -> None:
    notebook.run("LIMIT = 1", USE.format("LIMIT"))
    code = compile("def other(context, event):\n    return LIMIT\n", "<other>", "exec")
    import linecache  # noqa: PLC0415

    linecache.cache["<other>"] = (1, None, ["def other(context, event):\n", "    return LIMIT\n"], "<other>")
    namespace: dict[str, Any] = {"LIMIT": 2, "__name__": "__main__"}
    exec(code, namespace)
    notebook.function(namespace["other"])
    with pytest.raises(ExportRefused, match="other uses 'LIMIT', an object of type int, but another object"):
        notebook.export()


def test_one_error_lists_every_problem(notebook: Notebook) -> None:
    notebook.run("first, second = object(), float('inf')", USE.format("first, second, third"))
    with pytest.raises(ExportRefused, match=r"3 things") as refused:
        notebook.export()
    assert str(refused.value).count("\n- use uses ") == 3


def test_the_text_is_python_and_ends_with_one_newline(notebook: Notebook) -> None:
    notebook.run(PAYLOAD, ADD + "\n\n# the end\n\n")
    text = notebook.export()
    ast.parse(text)
    assert text.endswith("event.y\n")
    assert text == notebook.export()
