"""From runs and a dataset to a submission: what is predicted, where answers are kept, how they are joined."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from export import combine, submission
from export.predictor import PredictConfig, Predictor, share_a_pass
from export.scores import ScoreStore, Stores
from export.submission import Submission
from model import aggregation
from pipeline import files
from pipeline.console import progress

if TYPE_CHECKING:
    from pipeline.engines import Engine

# Has the process that starts workers leave them the memory of the GPUs.
_SHARED_GPUS = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def run(config: PredictConfig, beam_options: Sequence[str] = ()) -> Submission:
    """Predicts a split and writes the submission; continues where an interrupted prediction stopped.

    Args:
      config: The options.
      beam_options: Options of Beam, such as --runner; where there are any, the
        shards are predicted by a Beam job.

    Raises:
      UserError: The runs, the data or the options cannot be used as they are;
        see the message. Finished shards stay, and the next call keeps them.
    """
    engine = _engine(beam_options) if beam_options else None
    work = f"{config.output}.parts"
    if share_a_pass(config.load_runs()):
        store = _predict(config, work, engine)
        found = submission.best_of(store)
    else:
        stores = [_predict(alone, work, engine) for alone in _one_by_one(config, work)]
        store = stores[0]
        combine.check_alike(stores)
        method = combine.GEOMETRIC if config.aggregate == aggregation.GEOMETRIC else combine.MEAN
        found = combine.combine(stores, method=method)
    written = submission.write(config.output, found, store.tree(), products=sum(store.records))
    files.remove_tree(work)
    return written


def _engine(beam_options: Sequence[str]) -> "Engine":
    """Returns what runs the job; Beam takes more than a second to import, which prediction without it is spared."""
    logging.getLogger().setLevel(logging.ERROR)  # Beam speaks of optional packages while it is imported.
    from pipeline import engines

    engines.prepare(beam_options)
    os.environ.update(_SHARED_GPUS)
    return engines.Engine(beam_options)


def _one_by_one(config: PredictConfig, work: str) -> Iterator[PredictConfig]:
    """Yields a prediction for each run, which keeps its scores."""
    folder = config.scores or work
    for path, name in zip(config.runs, _names(config.runs), strict=True):
        yield replace(config, runs=(path,), scores=os.path.join(folder, name))


def _names(runs: Sequence[str]) -> list[str]:
    """Returns a name for each run: that of its folder, with a number where two are the same."""
    names = [os.path.basename(os.path.abspath(path)) for path in runs]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def _begin(config: PredictConfig, work: str, predictor: Predictor) -> Stores:
    """Opens the stores that the answers go to."""
    content = {
        "data": predictor.data.fingerprint,
        "split": config.split,
        "records": [shard.records for shard in predictor.data.shards(config.split)],
        "views": list(config.views),
        "aggregate": config.aggregate,
        "top_k": min(config.kept, predictor.tree.num_categories),
    }

    def begin(folder: str, runs: list[dict[str, Any]]) -> ScoreStore:
        return ScoreStore.begin(folder, {"runs": runs} | content, predictor.tree)

    several = config.scores is not None and len(config.runs) > 1
    together = begin(work if several or not config.scores else config.scores, predictor.identities)
    pairs = zip(_names(config.runs), predictor.identities, strict=True)
    members = [begin(os.path.join(config.scores or "", name), [identity]) for name, identity in pairs if several]
    return Stores(together, tuple(members))


def _predict(config: PredictConfig, work: str, engine: "Engine | None") -> ScoreStore:
    """Predicts with runs that share a pass, and returns the finished store of their average."""
    predictor = Predictor(config)
    stores = _begin(config, work, predictor)
    missing = stores.together.missing()
    if engine:
        from export import predict_job

        shards = predictor.data.shards(config.split)
        predict_job.run(config, stores, {shard: shards[shard].bytes for shard in missing}, engine)
    else:
        _predict_here(predictor, stores, missing)
    for store in (*stores.members, stores.together):
        store.finish(predictor.data, config.split)
    return stores.together


def _predict_here(predictor: Predictor, stores: Stores, missing: Sequence[int]) -> None:
    records = stores.together.records
    done = sum(records) - sum(records[shard] for shard in missing)
    with progress("predicting", total=sum(records), unit=" products", initial=done) as bar:
        for shard, answers in predictor.predict(missing, bar.update):
            stores.write(shard, answers)
