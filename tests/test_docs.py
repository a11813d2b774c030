"""The pages say what is true: their code runs, their configuration builds, their tables and links are up to date.

A page's blocks run in order in a folder of its own, as their language says:

- ```python: run, all blocks of a page in one namespace.
- ```bash: `crnn ...` is run in this process; `cat > file <<'END'` writes the file; `make TARGET` must be in the
  Makefile; everything else (pip, export, other scripts) is for the reader and not run.
- ```console: the same for lines that start with `$ `; the lines below them must be in what was printed, but for `...`.
- ```yaml NAME features=2: built as options of a run for frames of 2 channels (1 where it does not say; `none` for
  symbols), and kept as NAME, if there is one, for the commands below.

So that this takes seconds, `examples/` holds a fifth of the recordings, training stops after 10 updates where the page
does not say how long it is (`train.steps=10`), and the reports measure little: floors on 60 examples with 40 kernels,
20 resamples of the bootstrap, one timing.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pytest
import yaml

import crnn.run
from crnn.cli.main import run_app
from crnn.config import build_config
from crnn.data.split import SplitConfig
from crnn.models.network import Network
from crnn.models.spec import spec_from_plain
from crnn.nn.layers import LAYERS
from crnn.report import evaluation
from crnn.report.floor import FloorConfig
from crnn.tasks.infer import TASKS
from crnn.training.config import TrainConfig
from docs_tables import filled

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECORDINGS = re.compile(r"_(0|5)\.flac$")
"""Takes of the bundled recordings that the pages are tried on."""


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    words: list[str]
    """What else stands in the line of the fence."""
    text: str


class Page:
    """Runs the blocks of one page."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        if block.language not in ("text", "toml"):
            ways = {"python": self.python, "bash": self.bash, "console": self.console, "yaml": self.yaml}
            ways[block.language](block)

    def python(self, block: Block) -> None:
        exec(compile("\n" * block.line + block.text, self.name, "exec"), self.names)

    def bash(self, block: Block) -> None:
        for command in commands(block.text):
            code, _ = self.shell(command)
            assert code == 0, f"{command}: exit code {code}"

    def console(self, block: Block) -> None:
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            _, printed = self.shell(command)
            lines = [line.strip() for line in printed.splitlines()]
            for line in shown.strip().splitlines():
                assert line.strip() == "..." or line.strip() in lines, f"$ {command}: no line {line!r} in\n{printed}"

    def shell(self, command: str) -> tuple[int, str]:
        """Exit code and everything printed."""
        if file := re.match(r"cat > (\S+) <<'END'\n(.*)END$", command, re.DOTALL):
            Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(file[1]).write_text(file[2], encoding="utf-8")
            return 0, ""
        words = shlex.split(command, comments=True)
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        if words[:1] != ["crnn"]:
            return 0, ""
        if words[1:3] == ["train", "--resume"]:  # as an interrupted run is: without its scores
            (Path(words[3]) / "metrics.json").unlink()
        words = [name for word in words[1:] for name in (sorted(map(str, Path().glob(word))) or [word])]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run_app(words, debug=False)
        print(printed.getvalue())
        assert code != 2, printed.getvalue()
        return code, printed.getvalue()

    def yaml(self, block: Block) -> None:
        names = [word for word in block.words if "=" not in word]
        features = dict(word.split("=") for word in block.words if "=" in word).get("features", "1")
        build_options(yaml.safe_load(block.text), () if features == "none" else (int(features),))
        for name in names:
            Path(name).write_text(block.text, encoding="utf-8")


def build_options(values: dict[str, Any], features: tuple[int, ...]) -> None:
    """Build whatever sections of options there are; an unknown option is an error."""
    for section, options in values.items():
        if section == "model":
            Network(spec_from_plain(options), features=features, outputs=2)
        elif section == "task":
            assert any(set(options) <= set(task.Config.__dataclass_fields__) for task in TASKS.values()), options
        else:
            build_config({"train": TrainConfig, "split": SplitConfig}[section], options, section)


def blocks_of(path: Path) -> list[Block]:
    found = re.finditer(r"^```(\w+)(.*)\n((?:.*\n)*?)```$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [Block(m.string.count("\n", 0, m.start(3)), m[1], m[2].split(), m[3]) for m in found]


def commands(text: str) -> Iterator[str]:
    """The commands of a block: lines, joined where they end with a backslash or open a here-document."""
    for m in re.finditer(r"[^\n]*<<'END'\n(?:.*\n)*?END$|(?:[^\n]*\\\n)*[^\n]+", text, re.MULTILINE):
        if not m[0].startswith("#"):
            yield m[0].replace("\\\n", " ") if "<<'END'" not in m[0] else m[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a part of the examples, in which training and floors are short."""
    for recording in (ROOT / "examples").rglob("*.flac"):
        if RECORDINGS.search(recording.name):
            place = tmp_path / recording.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(recording)
    for name in ("lines", "page"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / "examples" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crnn.run, "train", shortened(crnn.run.train))
    small = FloorConfig(max_examples=60, num_kernels=40)
    quick = functools.partial(crnn.run.evaluate_model, resamples=20, floor_settings=small)
    monkeypatch.setattr(crnn.run, "evaluate_model", quick)
    monkeypatch.setattr(evaluation, "SLOW_RESAMPLES", 5)
    monkeypatch.setattr(evaluation, "measure_cost", functools.partial(evaluation.measure_cost, seconds=0.01))
    matplotlib.use("Agg")
    ours = dict(LAYERS)
    yield tmp_path
    for name in LAYERS.keys() - ours.keys():  # a page's own
        del LAYERS[name]


def shortened(train: Callable[..., Any]) -> Callable[..., Any]:
    """crnn.train that stops after 10 updates where nothing else is asked."""

    def run(*data: Any, **options: Any) -> Any:
        settings = dict(options.get("settings") or {})
        if not options.get("epochs") and "train.steps" not in settings:
            options["settings"] = {"train.steps": 10, **settings}
        return train(*data, **options)

    return run


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_the_code_of_a_page_runs(path: Path, folder: Path) -> None:
    page = Page(path.name)
    for block in blocks_of(path):
        print(f"{path.name}:{block.line}")
        page.run(block)


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_the_tables_of_options_are_those_of_the_classes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert filled(text) == text, f"{path.relative_to(ROOT)}: run python tests/docs_tables.py"


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{path.name}: {target}"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in PAGES[1:] if f"({path.relative_to(ROOT)})" not in text]
