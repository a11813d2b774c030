"""A trained model: what goes in, the network, what comes out; saved as safetensors and JSON, never as code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import crnn
from crnn.alphabets import AlphabetName, alphabet_of
from crnn.config import to_plain
from crnn.data.batch import ONE_PASS_CACHE, Batches, one_pass_values
from crnn.data.dataset import Dataset, Kind, frame_shape
from crnn.data.read import OnBad, as_frame, from_arrays, options_of, read
from crnn.data.readers.reader import number_channels
from crnn.errors import ConfigError, DataError, ModelError, StreamError
from crnn.export.export import Exported, export
from crnn.models.int8 import int8_weights, pack, unpack
from crnn.models.network import Network, describe_timing
from crnn.models.spec import NetworkSpec, spec_from_plain, to_yaml
from crnn.program.lower import lower
from crnn.program.program import Program
from crnn.report.cost import describe_cost
from crnn.sequences import Ragged
from crnn.streaming.steps import EngineName
from crnn.streaming.stream import Stream
from crnn.streaming.streamed import StreamedModel
from crnn.streaming.streams import Streams
from crnn.tasks.infer import find_task
from crnn.tasks.step_task import StepTask
from crnn.tasks.task import Task
from crnn.training.checkpoint import write_file
from crnn.training.outputs import compute_outputs

FORMAT = 1
"""Version of config.json; a newer one is refused."""


@dataclass(frozen=True)
class Inputs:
    """What a model takes: the kind of data, its channels and its rate."""

    kind: Kind
    channel_names: tuple[str, ...]
    sample_rate: float | None
    vocabulary: tuple[str, ...] = ()
    height: int | None = None
    """Of images, in pixels."""

    @classmethod
    def of(cls, data: Dataset) -> Inputs:
        return cls(data.kind, data.channel_names, data.sample_rate, data.vocabulary, data.height)

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return frame_shape(self.kind, len(self.channel_names), self.height)

    @property
    def alphabet(self) -> AlphabetName | None:
        """Of biological sequences; None where there is none."""
        found = alphabet_of(self.vocabulary)
        return None if found is None else found.name

    def check(self, data: Dataset) -> None:
        """Raises DataError when data is of another kind, has other channels, or another rate."""
        if data.kind != self.kind:
            raise DataError(f"{data.source}: found {data.kind}, but the model was trained on {self.kind}")
        if len(data.channel_names) != len(self.channel_names):
            raise DataError(
                f"{data.source}: found {_channels(data.channel_names)}, but the model takes "
                f"{_channels(self.channel_names)}; give the same columns in the same order"
            )
        if data.height != self.height:
            raise DataError(
                f"{data.source}: found images {data.height} pixels high, but the model takes {self.height}; read them "
                f"with height={self.height}"
            )
        unnamed = number_channels(len(self.channel_names))
        if unnamed not in (self.channel_names, data.channel_names) and data.channel_names != self.channel_names:
            raise DataError(
                f"{data.source}: found channels {', '.join(data.channel_names)}, but the model was trained on "
                f"{', '.join(self.channel_names)}; rename or reorder them"
            )
        if data.vocabulary != self.vocabulary:
            raise DataError(
                f"{data.source}: found {len(data.vocabulary)} symbols {' '.join(data.vocabulary):.40}, but the model "
                f"knows {len(self.vocabulary)}, {' '.join(self.vocabulary):.40}; read it with the model's alphabet"
            )
        if self.sample_rate and data.sample_rate and self.sample_rate != data.sample_rate:
            raise DataError(
                f"{data.source}: found {data.sample_rate:g} frames per second, but the model takes "
                f"{self.sample_rate:g}; read it with sample_rate={self.sample_rate:g}"
            )


@dataclass
class Model:
    """A network with everything that it needs to predict from raw data.

    Example:
        model = crnn.load("runs/digits")
        model.predict("new/")              # one dict per recording
    """

    network: Network
    task: Task
    inputs: Inputs
    temperature: float = 1.0
    """Divides the logits; fitted on validation, so that probabilities mean what they say."""
    origin: dict[str, Any] = field(default_factory=dict)
    """How it came about: preset, seed, options, data fingerprint, versions."""
    peaks: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Of a model of 8 bits: place of a node in its program -> its calibrated largest input, of a recurrence also its
    largest state, as `lower` takes them. Then the weights are multiples of 8-bit steps, and are saved so. `predict`
    here still computes in float32."""

    def read(
        self,
        source: Any,
        *,
        labels: str | None = None,
        target: str | None = None,
        group: str | None = None,
        pattern: str | None = None,
        id: str | None = None,
        time: str | None = None,
        format: str | None = None,
        targets: bool = False,
        on_bad: OnBad = "fail",
    ) -> Dataset:
        """Data as this model takes it: its own channels at its own rate, whatever else a table holds.

        Args:
            source: a Dataset; a path or a list of paths; a table; a list of (time, channels) arrays; one
                (time, channels) or (time,) array; a (batch, time, channels) array.
            labels, target, group, pattern, id, time, format: as crnn.read takes them.
            targets: True to score; for prediction they are left out, and none is missed.
        Raises:
            DataError: another kind of data, other channels, another rate.
        """
        if isinstance(source, Dataset):
            data = source
        elif _are_files(source) or as_frame(source) is not None:
            takes = options_of(source, format) if _are_files(source) else frozenset({"alphabet"})
            data = read(
                source,
                labels=labels,
                target=target,
                group=group,
                pattern=pattern,
                id=id,
                time=time,
                format=format if _are_files(source) else None,
                channels=self.inputs.channel_names if self.inputs.kind == "series" else None,
                sample_rate=self.inputs.sample_rate if self.inputs.kind == "audio" and "sample_rate" in takes else None,
                # an option that the format does not take: the data is of another kind, which is said below
                height=self.inputs.height if "height" in takes else None,
                alphabet=self.inputs.alphabet if "alphabet" in takes else None,
                targets=targets,
                on_bad=on_bad,
            )
        else:
            data = self._wrap(source)
        self.inputs.check(data)
        return data

    def _wrap(self, source: Any) -> Dataset:
        """Arrays as a data set."""
        if isinstance(source, np.ndarray) and source.ndim <= 2:
            source = [source]
        data = from_arrays(source, sample_rate=self.inputs.sample_rate)
        return replace(data, kind=self.inputs.kind) if data.channel_names else data

    def outputs(self, source: Any, *, batch_size: int = 64) -> Any:
        """(n, outputs) as the network gives them, logits divided by the temperature; the order of `source`.

        Of a model that answers for every frame, a Ragged of (frames, outputs).
        """
        return self._outputs(self.read(source), batch_size)

    def _outputs(self, data: Dataset, batch_size: int) -> Any:
        batches = Batches(
            data,
            batch_size,
            shuffle=False,
            seed=0,
            cache_bytes=ONE_PASS_CACHE,
            max_values=one_pass_values(data),
        )
        outputs = compute_outputs(self.network, batches)
        return outputs if isinstance(outputs, Ragged) else outputs / self.temperature

    def predict(self, source: Any, *, batch_size: int = 64) -> list[dict[str, Any]]:
        """One prediction per sequence: {'label', 'probability', 'probabilities'} or {'value'}; or as its task says.

        The same answers for any batch_size, order and padding.
        Args:
            source: whatever `read` takes.
        """
        data = self.read(source)
        outputs = self._outputs(data, batch_size)
        if isinstance(self.task, StepTask):
            return self.task.predictions(outputs, self.network.frames_of(data))
        return self.task.predictions(outputs)

    def predict_proba(self, source: Any, *, batch_size: int = 64) -> NDArray[np.float64]:
        """(n, classes) probabilities in the order of `model.task.labels`."""
        predictions = self.predict(source, batch_size=batch_size)
        return np.array([[p["probabilities"][label] for label in self.task.labels] for p in predictions])

    def stream(self, snapshot: bytes | None = None, *, engine: EngineName = "auto") -> Stream:
        """One sequence as it comes: `push` chunks, `finish`; the same answer as predict gives for the whole.

        Args:
            snapshot: what a stream of this model gave by `save`, to go on from there.
            engine: "auto" takes the compiled kernels where they can run this model; "torch" and "native" insist.
        Raises:
            StreamError: the model cannot stream, by which layer, and what to do; a snapshot of another model.
        """
        return Stream(self._streamed(), snapshot, engine=engine)

    def streams(self, *, engine: EngineName = "auto") -> Streams:
        """Many sequences at once, joining and leaving as they come; each has the numbers that it has alone."""
        return Streams(self._streamed(), engine=engine)

    def export(
        self,
        to: str,
        out: str | Path,
        *,
        name: str = "model",
        int8: bool = False,
        whole: bool = False,
        overwrite: bool = False,
    ) -> Exported:
        """Write this model in a format that runs without crnn: "c" (a folder), "onnx" or "keras" (a file).

        Args:
            name: prefix of every name in C.
            int8: ONNX only: weights as 8 bit integers.
            whole: ONNX only: for whole sequences, not for chunks; padded batches take less time.
            overwrite: replace what is there.
        Raises:
            ExportError: an unknown format, a target that is there, a layer that the exporter does not know (named,
                before anything is written), or a result that does not give the model's numbers.
            MissingExtraError: a package is not installed; which extra brings it.
        """
        return export(
            self.network,
            self.task,
            to,
            out,
            temperature=self.temperature,
            sample_rate=self.inputs.sample_rate,
            peaks=self.peaks,
            name=name,
            int8=int8,
            whole=whole,
            overwrite=overwrite,
        )

    def _streamed(self) -> StreamedModel:
        return StreamedModel(
            self.network,
            self.task,
            kind=self.inputs.kind,
            num_channels=len(self.inputs.channel_names),
            sample_rate=self.inputs.sample_rate,
            temperature=self.temperature,
        )

    def program(self) -> Program:
        """The network as a flat list of operations, with the weights that it has now.

        Raises:
            ExportError: a layer that has no operations; which one, and where it stands.
        """
        return lower(
            self.network,
            self.task,
            temperature=self.temperature,
            sample_rate=self.inputs.sample_rate,
            peaks=self.peaks,
        )

    def info(self) -> dict[str, Any]:
        """What this model is, as plain values: inputs, outputs, spec, sizes, cost, timing, versions."""
        network, rate = self.network, self.inputs.sample_rate
        frames = max(round(rate) if rate else 100, network.min_length)
        return {
            "task": self.task.name,
            "labels": self.task.labels,
            "inputs": asdict(self.inputs),
            "parameters": network.num_parameters,
            "bytes": sum(t.numel() * t.element_size() for t in self._tensors().values()),
            "weights": "8 bits, inputs calibrated" if self.peaks else "float32",
            "cost": {
                f"macs per {'second' if rate else '100 steps'}": round(network.macs(max(frames, network.min_length)))
            },
            "timing": describe_timing(network.timing, rate),
            "streams": _how_it_streams(network),
            "shortest sequence": network.min_length,
            "temperature": round(self.temperature, 4),
            "origin": self.origin,
            "spec": to_yaml(network.spec),
        }

    def cost(self) -> dict[str, Any]:
        """What it costs to run, as plain values: multiply-adds, bytes, and as a C file delay, flash and RAM.

        Raises:
            ExportError: a layer that has no operations; which one, and where it stands.
        """
        return describe_cost(self.network, self.program(), len(self.weights_file()))

    def save(self, folder: str | Path) -> None:
        """Write model.safetensors and config.json, each by a temporary file and a rename."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "model.safetensors", self.weights_file())
        config = {
            "format": FORMAT,
            "inputs": asdict(self.inputs),
            "task": {"name": self.task.name, "state": self.task.state()},
            "temperature": self.temperature,
            "model": to_plain(self.network.spec),
            "outputs": self.network.outputs,
            "origin": self.origin,
            **({"peaks": self.peaks} if self.peaks else {}),
        }
        text = json.dumps(config, indent=2, ensure_ascii=False)
        write_file(folder / "config.json", text.encode())

    def weights_file(self) -> bytes:
        """What `save` writes into model.safetensors."""
        return save_tensors(self._tensors(), {"format": "crnn"})

    def _tensors(self) -> dict[str, Tensor]:
        """As they stand in model.safetensors."""
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        return pack(state, int8_weights(self.network)) if self.peaks else state

    @classmethod
    def load(cls, folder: str | Path) -> Model:
        """The model of a run folder; loading runs no code from it.

        Raises:
            ModelError: missing, truncated, foreign, or of a newer version: which file, and what was found.
        """
        folder = Path(folder)
        config = _read_config(folder / "config.json")
        where = folder / "config.json"
        inputs, task = _inputs_of(config, where), _task_of(config, where)
        if config["outputs"] != task.num_outputs:
            raise ModelError(
                f"{where}: found outputs {config['outputs']!r}, but its task has {task.num_outputs}; damaged"
            )
        spec = spec_from_plain(config["model"], f"{where}: model")
        try:
            check_summary(task, spec)
        except ConfigError as error:
            raise ModelError(f"{where}: {error}") from None
        network = Network(spec, features=inputs.features, outputs=task.num_outputs)
        _load_weights(network, folder / "model.safetensors")
        network.eval()
        return cls(network, task, inputs, config["temperature"], config["origin"], _peaks_of(config, where))


def check_summary(task: Task, spec: NetworkSpec) -> None:
    """Raises ConfigError where a task needs a summary that the network lacks, or the other way."""
    if task.per_step and spec.summary is not None:
        raise ConfigError(
            f"model.summary: task {task.name} answers for every frame, found a summary of type "
            f"{spec.summary['type']!r}; set model.summary to null"
        )
    if not task.per_step and spec.summary is None:
        raise ConfigError(
            f"model.summary: task {task.name} gives one answer a sequence, found no summary; add one, such as "
            "{type: mean} or {type: last}"
        )


def _channels(names: tuple[str, ...]) -> str:
    return f"{len(names)} channel{'s' if len(names) != 1 else ''} ({', '.join(names)})"


def _are_paths(source: Any) -> bool:
    return isinstance(source, Sequence) and len(source) > 0 and all(isinstance(s, (str, Path)) for s in source)


def _are_files(source: Any) -> bool:
    return isinstance(source, (str, Path)) or _are_paths(source)


def _how_it_streams(network: Network) -> str:
    try:
        network.start(1)
    except StreamError as error:
        return f"no: {error}"
    return "yes"


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a run folder as written by crnn train")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); the file is damaged") from None
    if not isinstance(config, dict) or "format" not in config:
        raise ModelError(f"{path}: not a crnn config (no 'format'); expected a run folder as written by crnn train")
    if not isinstance(config["format"], int):
        raise ModelError(f"{path}: format {config['format']!r}, expected a whole number; the file is not from crnn")
    if config["format"] > FORMAT:
        by = config.get("origin", {}).get("versions", {}).get("crnn", "a newer crnn")
        raise ModelError(
            f"{path}: format {config['format']}, written by crnn {by}; this is crnn {crnn.__version__}, "
            f"which reads up to format {FORMAT}; upgrade crnn"
        )
    missing = {"inputs", "task", "temperature", "model", "outputs", "origin"} - set(config)
    if missing:
        raise ModelError(f"{path}: {', '.join(sorted(missing))} missing; the file is not whole")
    return config


def _inputs_of(config: dict[str, Any], where: Path) -> Inputs:
    """What the model takes, as Model.save wrote it."""
    try:
        plain = config["inputs"]
        return Inputs(
            kind=plain["kind"],
            channel_names=tuple(plain["channel_names"]),
            sample_rate=plain["sample_rate"],
            vocabulary=tuple(plain["vocabulary"]),
            height=plain.get("height"),
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{where}: inputs: {_lack(error)}; the file is damaged, copy it again") from None


def _task_of(config: dict[str, Any], where: Path) -> Task:
    """The fitted task, as Model.save wrote it."""
    try:
        return find_task(config["task"]["name"]).from_state(config["task"]["state"])
    except (KeyError, TypeError, ValueError) as error:  # an unknown task or option is a ValueError too
        raise ModelError(f"{where}: task: {_lack(error)}; the file is damaged, or from another crnn") from None


def _peaks_of(config: dict[str, Any], where: Path) -> dict[int, tuple[float, ...]]:
    """The calibrated inputs of a model of 8 bits, as Model.save wrote them: JSON's keys are text."""
    try:
        return {int(place): tuple(map(float, peaks)) for place, peaks in config.get("peaks", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: peaks: {error}; expected numbers for each place; the file is damaged") from None


def _lack(error: Exception) -> str:
    return f"found no {error}" if isinstance(error, KeyError) else str(error)


def _load_weights(network: Network, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; the run was not finished (crnn train --resume), or not copied whole")
    try:
        tensors = unpack(load_tensors(path.read_bytes()))
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path}: cannot be read ({error}); it is truncated or not a safetensors file") from None
    wanted = network.state_dict()
    for problem, names in (("lacks", wanted.keys() - tensors.keys()), ("also has", tensors.keys() - wanted.keys())):
        if names:
            raise ModelError(
                f"{path}: {problem} {', '.join(sorted(names)[:3])} ({len(names)} tensors); it belongs to "
                "another config.json"
            )
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise ModelError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, config.json says "
                f"{tuple(tensor.shape)}; the two files do not belong together"
            )
        if tensor.is_floating_point() != tensors[name].is_floating_point():
            raise ModelError(
                f"{path}: {name} holds {tensors[name].dtype} without {name}.scale, expected {tensor.dtype}; the file "
                "is damaged, copy it again"
            )
    network.load_state_dict(tensors)
