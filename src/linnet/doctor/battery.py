"""The whole battery about one subject: a config, a run, or a model in Hugging Face's format."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from linnet.checkpoint import DamagedCheckpoint
from linnet.config import Override, RunConfig, load_config
from linnet.data import PreparedData, find_prepared, load_prepared, prepare
from linnet.doctor.findings import Check, Diagnosis, Finding, chosen_names, counted, passed, run_checks, skipped
from linnet.doctor.model import MODEL_CHECKS, check_model
from linnet.doctor.rehearsal import CHECK_NAMES, training_checks
from linnet.doctor.setup import RUN_CHECKS, SETUP_CHECKS, Setup
from linnet.doctor.training import check_claims, check_losses
from linnet.doctor.training.claims import LOOKED_AT
from linnet.errors import UserError
from linnet.interop.huggingface import load_hf_model
from linnet.model import TransformerLM
from linnet.runtime import choose_device, seed_everything, untouched_randomness
from linnet.tokenizer import Tokenizer
from linnet.train import RunDirectory, read_records, read_stored_model
from linnet.train.assemble import with_vocabulary

Progress = Callable[..., None]
OnFinding = Callable[[Finding], None]
Asked = TypeVar("Asked")

MODEL_NAMES = tuple(check.name for check in MODEL_CHECKS)
LOSS_NAMES = ("losses are numbers", "loss falls below ln(V)", "validation loss")
MOST_NEAR = 3  # names that a refusal holds; all would drown it


def checks_by_part() -> dict[str, tuple[str, ...]]:
    """The names of all checks of the battery by what they are asked of, in the order in which they are made."""
    return {
        "a run's record": tuple(check.name for check in RUN_CHECKS),
        "machine, tokenizer and data": tuple(check.name for check in SETUP_CHECKS),
        "a run's losses": LOSS_NAMES,
        "the model": MODEL_NAMES,
        "the trainer": CHECK_NAMES,
    }


def check_names() -> tuple[str, ...]:
    """The names of all checks of the battery, in the order in which they are made."""
    return tuple(chain.from_iterable(checks_by_part().values()))


def diagnose(
    subject: str | Path,
    overrides: Sequence[Override] = (),
    *,
    run_dir: Path | None = None,
    claims: Path | None = None,
    only: Collection[str] = (),
    progress: Progress | None = None,
    on_finding: OnFinding | None = None,
) -> Diagnosis:
    """Make every check that fits `subject`; what it is, its files tell.

    Text that a config names is prepared first where that was not done, as training would. Apart from that all work
    happens in a temporary directory. A run is only read, also while another process trains in it.

    Args:
        subject: a config file, a run, one of its checkpoints, or a directory in Hugging Face's format.
        overrides: dotted keys and values for a config, as `load_config` takes them.
        run_dir: where a config's run would be; None takes runs/ and the name of the config.
        claims: a text for people, such as a README, whose numbers are held against a run's log; without `only` nothing
            else is asked.
        only: names of checks, or words in them; empty makes all.
        progress: called as (description, done, total, unit).
        on_finding: told of each finding as soon as there is one.

    Raises:
        UserError: there is no such subject, a config that does not load, or a name in `only` that no check has.
    """
    path = Path(subject)
    claims_alone = claims is not None and not only
    wanted = frozenset[str]() if claims_alone else chosen_names(only, check_names(), most=MOST_NEAR)
    battery = _Battery(wanted, progress or _silent, on_finding or _nobody)
    if (path / "config.yaml").is_file() or (path / "manifest.json").is_file():
        _refuse_overrides(path, overrides, "a run has its settings")
        run = RunDirectory(path if (path / "config.yaml").is_file() else path.resolve().parent.parent)
        written = None if claims is None else _text_of(claims)
        if wanted:
            _examine_run(battery, run, path)
        if claims is not None and written is not None:
            _hold_against_log(battery, run, written, str(claims))
    elif claims is not None:
        raise UserError(f"{path}: is no run, whose log {claims} could be held against: give a run directory")
    elif (path / "config.json").is_file():
        _refuse_overrides(path, overrides, "a model alone has no such settings")
        _examine_model(battery, path)
    elif path.is_file():
        _examine_config(battery, path, overrides, run_dir)
    else:
        what = "is neither a run nor a model in Hugging Face's format" if path.is_dir() else "there is nothing there"
        raise UserError(f"{path}: {what}: give a config file, a run, or a directory that `linnet export` wrote")
    return Diagnosis(str(subject), tuple(battery.findings))


@dataclass
class _Battery:
    """Asks what is wanted, tells what was found, and remembers it."""

    wanted: frozenset[str]
    progress: Progress
    on_finding: OnFinding
    findings: list[Finding] = field(default_factory=list)

    def told(self, checks: Iterable[Check[Asked]]) -> tuple[Check[Asked], ...]:
        """Those of `checks` that are wanted, each telling its finding when it is made."""
        return tuple(self._telling(check) for check in checks if check.name in self.wanted)

    def ask(self, checks: Iterable[Check[Asked]], subject: Asked) -> None:
        """Ask those of `checks` that are wanted."""
        run_checks(self.told(checks), subject)

    def add(self, finding: Finding) -> None:
        """Remember `finding` and tell it, if it is wanted and not told already."""
        if finding not in self.findings:
            self.findings.append(finding)
            self.on_finding(finding)

    def begin(self, name: str) -> None:
        """A check called `name` begins."""
        self.progress(name, len(self.findings), len(self.wanted), "checks")

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether one of these checks is wanted."""
        return not self.wanted.isdisjoint(names)

    def skip(self, names: Iterable[str], why: str) -> None:
        """Tell that none of these checks can be made."""
        for name in names:
            if name in self.wanted:
                self.add(Finding(name, skipped(why)))

    def _telling(self, check: Check[Asked]) -> Check[Asked]:
        def examine(subject: Asked) -> Any:
            self.begin(check.name)
            (finding,) = run_checks((check,), subject)
            self.add(finding)
            return finding.outcome

        return Check(check.name, examine)


def _examine_config(battery: _Battery, path: Path, overrides: Sequence[Override], run_dir: Path | None) -> None:
    config = load_config(path, overrides)
    data = prepare(config.data, config.tokenizer, progress=battery.progress)
    config = with_vocabulary(config, data)
    place = run_dir if run_dir is not None else Path("runs") / path.stem
    with _workspace(place) as workspace:
        setup = Setup(config.model, data.tokenizer, workspace, config, data, place=place)
        battery.ask(SETUP_CHECKS, setup)
        if battery.any_of(MODEL_NAMES):
            _examine_weights(battery, _first_model(config), trained=config.model.init_from is not None)
        _rehearse(battery, config, data, workspace)


def _examine_run(battery: _Battery, run: RunDirectory, path: Path) -> None:
    battery.ask(RUN_CHECKS, run)
    try:
        config, tokenizer = run.config(), Tokenizer.from_pretrained(run.tokenizer)
    except UserError as error:
        rest = [name for name in check_names() if name not in {finding.name for finding in battery.findings}]
        battery.skip(rest, f"the run cannot be opened: {error}")
        return
    data, no_data = _data_of(run, config)
    with _workspace(run.path) as workspace:
        setup = Setup(config.model, tokenizer, workspace, config, data, no_data, run, run.path)
        battery.ask(SETUP_CHECKS, setup)
        for finding in check_losses(
            read_records(run.metrics_file), vocab_size=config.model.vocab_size, warmup_steps=config.optim.warmup_steps
        ).findings:
            if finding.name in battery.wanted:
                battery.add(finding)
        if battery.any_of(MODEL_NAMES):
            try:
                model = read_stored_model(path, _pass_over).model
            except UserError as error:
                battery.skip(MODEL_NAMES, str(error))
            else:
                _examine_weights(battery, model.to(choose_device(config.train.device)), trained=True)
                del model
        if data is None:
            battery.skip(CHECK_NAMES, no_data)
        else:
            _rehearse(battery, config, data, workspace)


def _hold_against_log(battery: _Battery, run: RunDirectory, text: str, where: str) -> None:
    log = run.log_file.read_text(encoding="utf-8", errors="replace") if run.log_file.exists() else ""
    found = check_claims(text, read_records(run.metrics_file), log=log, where=where).findings
    for finding in found:
        battery.add(finding)
    numbers = sum(finding.name != where for finding in found)
    if numbers:
        battery.add(Finding(where, passed(f"looked at {counted(numbers, 'number')}; looked for were {LOOKED_AT}")))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: give a README or another page") from error


def _examine_model(battery: _Battery, path: Path) -> None:
    model, tokenizer = load_hf_model(path), Tokenizer.from_pretrained(path)
    with _workspace(path) as workspace:
        battery.ask(SETUP_CHECKS, Setup(model.config, tokenizer, workspace, exported=path))
    _examine_weights(battery, model.to(choose_device("auto")), trained=True)


def _examine_weights(battery: _Battery, model: TransformerLM, *, trained: bool) -> None:
    found = check_model(model, trained=trained, checks=battery.told(MODEL_CHECKS))
    for finding in found.findings:  # of a model that cannot be run there is one that nobody asked for
        battery.add(finding)


def _rehearse(battery: _Battery, config: RunConfig, data: PreparedData, workspace: Path) -> None:
    names = [name for name in CHECK_NAMES if name in battery.wanted]
    if names:
        training_checks(config, data, workspace, only=names, progress=battery.begin, on_finding=battery.add)


def _first_model(config: RunConfig) -> TransformerLM:
    """The model as the run would begin with it, on its device."""
    if config.model.init_from is not None:
        begin = read_stored_model(Path(config.model.init_from), _refuse).model
        model = TransformerLM.from_tensors(config.model, begin.state_dict())
    else:
        with untouched_randomness():
            seed_everything(config.train.seed)
            model = TransformerLM(config.model)
    return model.to(choose_device(config.train.device))


def _data_of(run: RunDirectory, config: RunConfig) -> tuple[PreparedData | None, str]:
    """What the run reads, where it lay when the run began or where its config finds it; else why there is none."""
    try:
        kept = Path(str(run.provenance().get("data", {}).get("directory", "")))
        if (kept / "dataset.json").is_file():
            return load_prepared(kept), ""
        found = find_prepared(config.data, config.tokenizer)
    except UserError as error:
        return None, f"the run's data cannot be read: {error}"
    return found, "the run's data is no longer prepared: `linnet data prepare` makes it again"


@contextmanager
def _workspace(place: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, on the disk of `place` where one may write there."""
    home = next((parent for parent in place.absolute().parents if parent.is_dir()), None)
    writable = home if home is not None and os.access(home, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix=".linnet-doctor-", dir=writable) as directory:
        yield Path(directory)


def _refuse_overrides(path: Path, overrides: Sequence[Override], why: str) -> None:
    if overrides:
        raise UserError(f"--{overrides[0][0]}: {path}: {why} already: settings go with a config file")


def _refuse(damage: DamagedCheckpoint) -> NoReturn:
    raise damage


def _pass_over(damage: DamagedCheckpoint) -> None:
    """The check of the checkpoints tells it."""


def _silent(description: str, done: int, total: int | None, unit: str = "") -> None:
    """Report to nobody."""


def _nobody(finding: Finding) -> None:
    """Tell nobody."""
