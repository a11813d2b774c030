"""The `crnn` command: parses first, imports torch late; exit 0 good, 1 the user's mistake, 2 ours, 130 Ctrl-C."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

import crnn
from crnn.cli import check, compress, evaluate, explain, export, finetune, info, lm, predict, search, stream, train
from crnn.cli.options import INTERRUPTED
from crnn.errors import CrnnError

app = typer.Typer(
    name="crnn",
    help="Convolutional-recurrent networks for sequences: files in, an honest score out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("check", help=check.__doc__)(check.check)
app.command("train", help=train.__doc__)(train.train)
app.command("eval", help=evaluate.__doc__)(evaluate.evaluate)
app.command("predict", help=predict.__doc__)(predict.predict)
app.command("explain", help=explain.__doc__)(explain.explain)
app.command("export", help=export.__doc__)(export.export)
app.command("stream", help=stream.__doc__)(stream.stream)
app.command("info", help=info.__doc__)(info.info)
app.command("compress", help=compress.__doc__)(compress.compress)
app.command("finetune", help=finetune.__doc__)(finetune.finetune)
app.command("search", help=search.__doc__)(search.search)
app.add_typer(lm.app, name="lm")


def _version(show: bool) -> None:
    if show:
        print(f"crnn {crnn.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of the command itself."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; prints one message, no traceback, for the user's mistakes (all of it with --debug)."""
    # Before torch is loaded: threads that wait by spinning make small networks many times slower wherever another
    # program wants a core too, or a container has fewer cores than it shows.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    sys.exit(run_app([a for a in arguments if a != "--debug"], debug))


def run_app(arguments: list[str], debug: bool) -> int:
    """The exit code of a command line."""
    try:
        app(arguments)
    except SystemExit as end:  # typer exits by itself; its 2 is a wrong option, which is the user's mistake: 1
        if end.code in (0, None, INTERRUPTED):
            return int(end.code or 0)
        return 1
    except CrnnError as error:
        if debug:
            traceback.print_exc()
        message = str(error).replace("on_bad='skip'", "--skip-bad")  # as this command spells it
        print(f"crnn: {message}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        print("crnn: this is a fault of crnn, not of your data; please report it with the lines above", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    main()
