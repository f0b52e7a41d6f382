"""Searches for better flags: each trial is a run of its own, trained by the ordinary command.

Optuna proposes (tree-structured Parzen estimator, Bergstra et al., 2011) and
remembers in a SQLite file. A trial trains in a process of its own, so it may
run out of memory or diverge without harm to the others, and continues like any
run. What a killed search proposes next is what it would have proposed.
"""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from model import locks, space, trials
from model.space import Space
from pipeline import files
from pipeline.console import UserError, say

_JOB, _STUDY = "tuning.json", "study.sqlite"
_POLL_SECONDS = 0.5
_STARTUP_TRIALS = 5  # Drawn at random, before the estimator has something to go by; none of them is pruned.


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """What is searched and how.

    Attributes:
      folder: Folder of the search; each trial has a run in `trials/` inside.
      space: What may vary, see `model.space`.
      flags: Flags of model.train that all trials share.
      trials: Number of trials in all.
      prune: Whether a trial ends early that is worse, at an epoch, than the
        median of those before it.
      seed: Determines what is proposed.
    """

    folder: str
    space: str
    flags: tuple[str, ...]
    trials: int = 20
    prune: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"--tuning_seed is {self.seed}; expected 0 or more.")
        if self.trials < 1:
            raise UserError(f"--trials is {self.trials}; expected 1 or more.")


def tune(config: TuningConfig) -> str:
    """Runs trials until there are as many as asked for, those of an interrupted search included.

    Returns:
      The path of the table of trials.

    Raises:
      UserError: The folder holds another search, the space makes no sense, or
        the flags are refused by model.train.
    """
    searched = Space.parse(config.space)
    with locks.held(config.folder):
        _open(config)
        study = _study(config)
        for unfinished in study.get_trials(states=[TrialState.RUNNING]):
            _finish(config, study, Trial(study, unfinished._trial_id))
        while len(study.trials) < config.trials:
            # A sampler for each trial: one that lives on would begin anew when the search is continued.
            drawn = np.random.SeedSequence((config.seed, len(study.trials))).generate_state(1)
            study.sampler = optuna.samplers.TPESampler(
                seed=int(drawn[0]), n_startup_trials=_STARTUP_TRIALS, multivariate=True
            )
            _finish(config, study, study.ask(searched.distributions))
        return trials.write(config.folder, study.trials)


def _open(config: TuningConfig) -> None:
    path = os.path.join(config.folder, _JOB)
    job = {"space": config.space, "flags": list(config.flags), "prune": config.prune, "seed": config.seed}
    if files.exists(path):
        before = files.read_json(path)
        shown = ", ".join(
            f"{name} was {before[name]!r} and is {job[name]!r}" for name in job if before[name] != job[name]
        )
        if shown:
            raise UserError(
                f"{config.folder} holds another search: {shown}. Give the same to continue it, or another --workdir."
            )
    else:
        files.write_json(path, job)


def _study(config: TuningConfig) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # Of joint sampling.
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if config.prune:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS)
    path = os.path.abspath(os.path.join(config.folder, _STUDY))
    return optuna.create_study(
        storage=f"sqlite:///{path}", study_name="tuning", direction="maximize", load_if_exists=True, pruner=pruner
    )


def _finish(config: TuningConfig, study: optuna.Study, trial: Trial) -> None:
    """Trains a trial to its end, from wherever it stands, and tells the study."""
    folder = trials.run_folder(config.folder, trial.number)
    say(f"trial {trial.number + 1} of {config.trials}: " + " ".join(space.flags(trial.params)))
    begun = time.monotonic()
    state, error = _train(config, trial, folder)
    values = trials.accuracies(folder)
    if error and not files.exists(os.path.join(folder, "run.json")):
        study.tell(trial, state=TrialState.FAIL)
        raise UserError(f"model.train refused the flags of a trial: {error}")
    if state == TrialState.COMPLETE and not values:
        raise UserError(f"{folder} has no accuracy to compare by; expected data with a validation split.")
    if error:
        trial.set_user_attr("error", error)
    trial.set_user_attr("seconds", trial.user_attrs.get("seconds", 0) + time.monotonic() - begun)
    study.tell(trial, values[-1] if state == TrialState.COMPLETE else None, state=state)
    say(_line(study.trials[trial.number], values))
    trials.write(config.folder, study.trials)


def _train(config: TuningConfig, trial: Trial, folder: str) -> tuple[TrialState, str]:
    """Returns how the training of a trial ended, and its error where it failed."""
    locks.wait(folder)  # A search that was killed leaves a training that goes on.
    words = [*config.flags, *space.flags(trial.params), f"--workdir={folder}"]
    log = os.path.join(config.folder, "trials", f"{os.path.basename(folder)}.log")
    files.make_folder(os.path.dirname(log))
    with open(log, "ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "model.train", *words], stdout=output, stderr=output)
        try:
            pruned = _watch(process, trial, folder)
        finally:
            process.terminate()
            process.wait()
    if pruned:
        return TrialState.PRUNED, ""
    if process.returncode:
        return TrialState.FAIL, _last_line(log)
    return TrialState.COMPLETE, ""


def _watch(process: "subprocess.Popen[bytes]", trial: Trial, folder: str) -> bool:
    """Reports each epoch until the process ends; returns whether the trial is to be pruned before that."""
    reported = 0
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        for epoch, value in list(enumerate(trials.accuracies(folder), start=1))[reported:]:
            reported = epoch
            with warnings.catch_warnings():  # Of epochs that an interrupted search has reported.
                warnings.simplefilter("ignore")
                trial.report(value, epoch)
            if trial.should_prune():
                return True
    return False


def _last_line(path: str) -> str:
    lines = files.read(path).decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it left no message."


def _line(trial: FrozenTrial, values: Sequence[float]) -> str:
    found = f"{values[-1]:.4f} after {len(values)} epochs" if values else "no accuracy"
    error = f": {trial.user_attrs['error']}" if "error" in trial.user_attrs else ""
    return f"  {found}, {trial.state.name.lower()}{error}"
