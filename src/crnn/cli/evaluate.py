"""Score a trained RUN on DATA that it has not seen."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from crnn.cli import decoding, options


def evaluate(
    run: Annotated[str, typer.Argument(help="The run folder.")],
    data: Annotated[str | None, typer.Argument(help="Labelled data; the run's own test part when left out.")] = None,
    labels: options.Labels = None,
    target: options.Target = None,
    group: options.Group = None,
    pattern: options.Pattern = None,
    id_: options.Id = None,
    time: options.Time = None,
    format_: options.Format = None,
    report: Annotated[str | None, typer.Option(help="Write the report here, as .html or .json.")] = None,
    beam: decoding.Beam = None,
    lm: decoding.Lm = None,
    lm_weight: decoding.LmWeight = None,
    word_bonus: decoding.WordBonus = None,
    lexicon: decoding.Lexicon = None,
    hot_word: decoding.HotWord = None,
    skip_bad: options.SkipBad = False,
    json_: options.AsJson = False,
) -> None:
    """Score a trained RUN on DATA that it has not seen."""
    import crnn.run as runs
    from crnn.errors import ConfigError

    if report:
        options.writable(report, "--report")
    trained = runs.Run(run)
    changed = decoding.choose(
        trained.model,
        beam=beam,
        lm=lm,
        lm_weight=lm_weight,
        word_bonus=word_bonus,
        lexicon=lexicon,
        hot_word=hot_word,
    )
    if changed and data is None:
        raise ConfigError(f"{changed}: the run's own scores were measured when it was trained; give the DATA to score")
    result = trained.evaluate(
        data,
        labels=labels,
        target=target,
        group=group,
        pattern=pattern,
        id=id_,
        time=time,
        format=format_,
        on_bad="skip" if skip_bad else "fail",
    )
    if json_:
        print(jsonlib.dumps(result.to_dict(), indent=2))
    else:
        print("\n".join([str(result), *(f"warning  {text}" for level, text in result.warnings() if level == "bad")]))
    if report:
        result.save(report)
        if not json_:
            print(f"report: {report}")
