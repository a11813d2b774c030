"""Show what a trained RUN looks at in DATA, as one HTML page."""

from __future__ import annotations

import json as jsonlib
import math
from typing import Annotated

import typer

from crnn.cli import options


def explain(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    data: Annotated[str, typer.Argument(help="Sequences or recordings to look at.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The page to write.")] = "why.html",
    count: Annotated[int, typer.Option(min=1, help="Examples to explain.")] = 6,
    method: Annotated[str, typer.Option(help="gradients (integrated), or occlusion.")] = "gradients",
    label: Annotated[str | None, typer.Option(help="The answer to explain; what is predicted for each.")] = None,
    motifs: Annotated[
        str | None, typer.Option(help="Write the filters of a model of DNA or proteins, as MEME.")
    ] = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    skip_bad: options.SkipBad = False,
    json_: options.AsJson = False,
) -> None:
    """Show what a trained RUN looks at in DATA, as one HTML page."""
    import crnn.run as runs
    from crnn.errors import ConfigError
    from crnn.explain.explain import explain as carry_out

    if method not in ("gradients", "occlusion"):
        raise ConfigError(f"--method {method}: expected gradients or occlusion")
    page = options.writable(out, "--out")
    trained = runs.Run(run)
    examples = trained.read(
        data, targets=True, id=id_, time=time, format=format_, on_bad="skip" if skip_bad else "fail"
    )
    found = carry_out(
        trained.model, examples, count=count, method="occlusion" if method == "occlusion" else "gradients", label=label
    )
    found.save(page)
    if motifs:
        found.save_motifs(options.writable(motifs, "--motifs"))
    if json_:
        print(jsonlib.dumps(found.to_dict(), indent=2))
        return
    for shown in found.examples:
        a = shown.attribution
        off = "" if math.isnan(a.error) else f", parts off by {100 * a.error:.2g} %"
        print(f"{a.id}: {a.label} {a.output:.3g} (nothing: {a.baseline:.3g}{off})")
    for motif in found.motifs:
        assert found.alphabet is not None
        print(f"{motif.name}: {motif.consensus(found.alphabet)} (influence {motif.influence:.2f}, {motif.sites} sites)")
    print(f"page: {page}")
