"""The provider `python`: a user's function in a process of its own, whose faults are none of lb's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lb.config.model.discovery import Python
from lb.core.membership import Answer
from lb.discovery import python
from lb.discovery.python import PythonSource
from lb.discovery.source import NoAnswer
from tests.support.eventually_async import eventually
from tests.support.source_watch import Watching, watched

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "FIRST_WAIT", 0.05)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the module; its function's body is given."""

    def written(body: str, head: str = "def targets():", more: str = "") -> None:
        new = tmp_path / "own.new"
        new.write_text(f"{more}\n{head}\n    {body}\n")
        new.replace(tmp_path / "own.py")

    return written


def source(folder: Path, **more: Any) -> PythonSource:
    given = {"source": "own:targets", "path": str(folder), "interval": "50ms", "timeout": "5s", **more}
    return PythonSource(Python.model_validate(given))


class Asked(Watching):
    def says(self, *wanted: str) -> bool:
        return isinstance(self.last, Answer) and [each.address for each in self.last.found] == list(wanted)

    def fails(self, text: str) -> bool:
        return isinstance(self.last, NoAnswer) and text in str(self.last)


async def test_what_the_function_returns_are_targets(tmp_path: Path, write: Write) -> None:
    write("return ['http://10.0.0.1:80', {'url': 'https://10.0.0.2:81', 'weight': 3, 'readiness': {'path': '/up'}}]")
    found = (await source(tmp_path).ask()).found
    assert [(each.address, each.url, each.weight, each.settings) for each in found] == [
        ("10.0.0.1:80", "http://10.0.0.1:80", 1, ""),
        ("10.0.0.2:81", "https://10.0.0.2:81", 3, '{"readiness": {"path": "/up"}}'),
    ]
    write("return iter(())")
    assert (await source(tmp_path).ask()).found == ()


async def test_arguments_attributes_and_coroutines(tmp_path: Path, write: Write) -> None:
    write("return [f'http://{host}:80']", "async def targets(host):")
    assert (await source(tmp_path, arguments={"host": "a.test"}).ask()).found[0].address == "a.test:80"
    write("return ['http://b.test:80']", "class Registry:\n  @staticmethod\n  def all():")
    assert (await source(tmp_path, source="own:Registry.all").ask()).found[0].address == "b.test:80"


async def test_changes_are_followed_and_state_is_kept(tmp_path: Path, write: Write) -> None:
    write("calls.append(1); return [f'http://10.0.0.{min(len(calls), 3)}:80']", more="calls = []")
    async with watched(source(tmp_path), Asked()) as watching:
        await eventually(lambda: watching.says("10.0.0.3:80"))
        assert len(watching.told) <= 3
        write("return ['http://10.0.0.9:80']")  # another version of the code
        await eventually(lambda: watching.says("10.0.0.9:80"))
        assert not any(isinstance(each, NoAnswer) for each in watching.told)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "raise RuntimeError('no registry')",
            "own:targets has failed: RuntimeError: no registry, at own.py:3 in targets",
        ),
        ("return 7", "TypeError: a list of targets is expected, not int"),
        ("return 'http://10.0.0.1:80'", "a list of targets is expected, not str"),
        ("return [object()]", "TypeError: Object of type object is not JSON serializable"),
        ("return ['http://']", "names what is no target: targets[0]"),
        ("return [7]", "names what is no target: targets[0]"),
        ("return [{'url': 'http://a:1', 'weight': -1}]", "names what is no target: targets[0].weight: "),
        ("return [{'url': 'http://a:1', 'wait': 1}]", "names what is no target: targets[0].wait"),
        ("return ['http://a:1', 'http://a:1']", "is in pool found already"),
        (
            "return [{'url': 'http://a:1', 'readiness': {'command': ['true']}}]",
            "targets[0].readiness.command: a found target may not set command",
        ),
        ("import sys; sys.exit(3)", "has ended (exit status 3)"),
        ("import sys; sys.exit(0)", "has ended (exit status 0)"),
        ("import os; os.kill(os.getpid(), 11)", "has ended (signal 11)"),
        ("import os; os._exit(1)", "has ended (exit status 1)"),
    ],
)
async def test_a_fault_of_the_function_is_no_answer(tmp_path: Path, write: Write, body: str, said: str) -> None:
    write(body)
    with pytest.raises(NoAnswer) as error:
        await source(tmp_path).ask()
    assert said in str(error.value), error.value


@pytest.mark.parametrize("body", ["raise OSError('gone')", "return [0]", "import os; os._exit(1)", "while True: pass"])
async def test_the_function_is_called_again_after_a_fault(tmp_path: Path, write: Write, body: str) -> None:
    write(f"""if len(open({str(tmp_path / "calls")!r}, 'a+').read()): pass
    import pathlib
    calls = pathlib.Path({str(tmp_path / "calls")!r})
    calls.write_text(calls.read_text() + 'x')
    if len(calls.read_text()) == 3:
        {body}
    return ['http://10.0.0.1:80']""")
    async with watched(source(tmp_path, timeout="500ms"), Asked()) as watching:
        await eventually(lambda: any(isinstance(each, NoAnswer) for each in watching.told))
        await eventually(lambda: watching.says("10.0.0.1:80"))


async def test_a_function_that_hangs_is_ended(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "START", 1.0)
    pid = tmp_path / "pid"
    write(f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(NoAnswer, match=r"own:targets has not returned for 1 s, and is killed"):
        await source(tmp_path, timeout="200ms").ask()
    await eventually(lambda: ended(int(pid.read_text())))


async def test_a_module_that_is_not_there_yet(tmp_path: Path, write: Write) -> None:
    async with watched(source(tmp_path), Asked()) as watching:
        await eventually(lambda: watching.fails("ModuleNotFoundError: No module named 'own'"))
        write("return ['http://10.0.0.1:80']", "def other():")
        await eventually(lambda: watching.fails("has no attribute 'targets'"))
        write("return ['http://10.0.0.1:80']")
        await eventually(lambda: watching.says("10.0.0.1:80"))


async def test_what_it_prints_is_no_answer(tmp_path: Path, write: Write) -> None:
    write("print('{\"targets\": []}'); import os; os.write(1, b'noise'); return ['http://10.0.0.1:80']")
    assert len((await source(tmp_path).ask()).found) == 1


async def test_an_answer_without_an_end_is_no_answer(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "MOST_OCTETS", 1 << 20)
    write("return ['x' * (4 << 20)]")
    with pytest.raises(NoAnswer, match="answered more than 1 MiB"):
        await source(tmp_path).ask()


async def test_its_process_ends_with_the_source_and_with_lb(tmp_path: Path, write: Write) -> None:
    pid = tmp_path / "pid"
    write(f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); return []")
    async with watched(source(tmp_path), Asked()) as watching:
        await eventually(lambda: watching.says() and pid.read_text())
        first = int(pid.read_text())
    assert ended(first)
    given = {"source": "own:targets", "path": str(tmp_path), "interval": "50ms"}
    script = (
        "import asyncio\nfrom lb.config.model.discovery import Python\nfrom lb.discovery.python import PythonSource\n"
        f"watch = PythonSource(Python.model_validate({given!r})).watch\n"
        "asyncio.run(watch(lambda _: print('told', flush=True)))"
    )
    lb = await asyncio.create_subprocess_exec(
        python.sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert lb.stdout is not None
    assert await asyncio.wait_for(lb.stdout.readline(), 30) == b"told\n"
    second = int(pid.read_text())
    assert second != first
    lb.kill()  # no code of it runs any more
    await lb.wait()
    await eventually(lambda: ended(second))


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
