"""Language models for transcribers: train one from text, find its weight for a run."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from crnn.cli import options

app = typer.Typer(help="Language models for transcribers.", no_args_is_help=True)


@app.callback()
def _verbs() -> None:
    """Language models for transcribers: crnn lm train TEXT... -o words.arpa; crnn lm tune RUN words.arpa."""


@app.command("train")
def train(
    text: Annotated[list[str], typer.Argument(help="Text files, a sentence (or line) a line, UTF-8.")],
    out: Annotated[str, typer.Option("-o", "--out", help="The ARPA file to write.")],
    order: Annotated[int, typer.Option(help="Longest n-gram.")] = 3,
    units: Annotated[str, typer.Option(help="words, or characters (a space is then written ▁).")] = "words",
    form: Annotated[str, typer.Option(help="Unicode normal form, as the transcriber's.")] = "NFC",
    lower: Annotated[bool, typer.Option("--lower", help="Lower case, for a transcriber of lower case text.")] = False,
    held_out: Annotated[str | None, typer.Option(help="Text to give the perplexity of.")] = None,
    json_: options.AsJson = False,
) -> None:
    """Train n-grams (modified Kneser-Ney) on TEXT and write them as ARPA."""
    from crnn.data.codec import CodecConfig
    from crnn.decode.ngram import train_ngrams
    from crnn.decode.sentences import read_sentences
    from crnn.errors import ConfigError

    if units not in ("words", "characters"):
        raise ConfigError(f"--units {units}: expected words or characters")
    config = CodecConfig(form=form)  # type: ignore[arg-type]
    file = options.writable(out, "--out")

    def sentences(paths: list[str]) -> list[list[str]]:
        return read_sentences(paths, form=config.form, characters=units == "characters", lower=lower)

    model = train_ngrams(sentences(text), order)
    model.save(file)
    counts = [len(grams) for grams in model.probabilities]
    perplexity = model.perplexity(sentences([held_out])) if held_out else None
    if json_:
        found = {"out": str(file), "order": model.order, "tokens": model.num_tokens, "ngrams": counts}
        print(jsonlib.dumps(found | ({} if perplexity is None else {"perplexity": perplexity})))
        return
    sizes = ", ".join(f"{count:,} of {n}" for n, count in enumerate(counts, 1))
    print(f"{file}: {units} up to {model.order}, {model.num_tokens:,} in the text; {sizes}")
    if perplexity is not None:
        print(f"perplexity of {held_out}: {perplexity:.1f}")
    print(f"next     crnn predict RUN FILES --beam 16 --lm {file}")


@app.command("tune")
def tune(
    run: Annotated[str, typer.Argument(help="The run folder of a transcriber.")],
    lm: Annotated[str, typer.Argument(help="ARPA file.")],
    data: Annotated[str | None, typer.Argument(help="Labelled data; else the run's own validation part.")] = None,
    beam: Annotated[int, typer.Option(help="Hypotheses of the beam search.")] = 16,
    json_: options.AsJson = False,
) -> None:
    """Choose a language model's weight and bonus for a trained RUN by its error rate on validation, and keep them."""
    import crnn.run as runs
    from crnn.errors import ConfigError, DataError
    from crnn.tasks.decoding import Decoding
    from crnn.tasks.transcribe import Transcribe

    trained = runs.Run(run)
    task = trained.model.task
    if not isinstance(task, Transcribe):
        raise ConfigError(f"{run}: its task is {task.name}; a language model is for a transcriber")
    held = trained.validation_data() if data is None else trained.read(data, targets=True)
    if held is None:
        raise DataError(f"{run}: kept no validation part, or its data has changed; give labelled DATA it has not seen")
    task.decoding = Decoding(beam=beam, lm=lm)
    cer = task.tune_language_model(trained.model.outputs(held), held.targets)
    trained.model.save(run)
    found = {"lm_weight": task.lm_weight, "word_bonus": task.word_bonus, "cer": cer, "texts": len(held)}
    if json_:
        print(jsonlib.dumps(found))
        return
    chosen = f"weight {task.lm_weight:g}, bonus {task.word_bonus:g}"
    print(f"{lm}: {chosen}: cer {cer:.4f} on {len(held)} texts; kept in {run}")
