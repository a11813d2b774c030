"""Parts predicted by the machines of a Ray cluster, through Ray Data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from crnn.data.dataset import Dataset
from crnn.errors import MissingExtraError
from crnn.prediction.parts import Done, LoadModel, Worker


class _RayWorker:
    """One process of the cluster: loads the model once, then predicts part after part."""

    def __init__(self, load: LoadModel, data: Any, batch_size: int) -> None:
        import ray

        self.worker = Worker(load, ray.get(data), batch_size)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"done": self.worker.predict([int(i) for i in row["part"]]).to_json()}


def predict_by_ray(
    load: LoadModel, data: Dataset, parts: list[list[int]], *, batch_size: int, workers: int | None
) -> Iterator[Done]:
    """What came of each part, as they are done; a part whose worker dies is done again by another.

    Connects to the cluster that RAY_ADDRESS names or that runs here, else starts one here. All machines have to see the
    run and the files at the same paths.

    Args:
        workers: processes; as many as the cluster has CPUs when None.
    Raises:
        MissingExtraError: ray is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError(
            "--cluster ray needs ray, which is not installed; pip install 'crnn[cluster]'"
        ) from None
    if not ray.is_initialized():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    done = rows.map(
        _RayWorker,  # type: ignore[arg-type]  # as Ray has it: a class is made once a worker
        fn_constructor_args=(load, ray.put(data), batch_size),
        concurrency=min(count, len(parts)),
        num_cpus=1,
    )
    for row in done.iter_rows():
        yield Done.from_json(row["done"])
