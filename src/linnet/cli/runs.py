"""linnet runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from linnet.cli.json_lines import json_line
from linnet.errors import UserError


@click.command("runs")
@click.argument("directory", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run.")
def command(directory: Path, as_json: bool) -> None:
    """The runs under DIRECTORY (default: runs), the most recent last: state, step, loss, rate.

    \b
    Examples:
      linnet runs
      linnet runs elsewhere/runs --json
    """
    from linnet.train import RunDirectory

    if not directory.is_dir():
        raise UserError(f"{directory}: there is no such directory: runs appear there once `linnet train` has begun")
    runs = [RunDirectory(path) for path in directory.iterdir() if path.is_dir()]
    rows = sorted((_row(run) for run in runs if run.holds_a_run()), key=lambda row: str(row["changed"]))
    if as_json:
        for row in rows:
            click.echo(json_line(row))
    elif rows:
        _print(rows)
    else:
        click.echo(f"{directory}: holds no runs")


def _row(run: Any) -> dict[str, Any]:
    from linnet.checkpoint import list_checkpoints
    from linnet.train import in_use, read_records

    row: dict[str, Any] = {"run": str(run.path), "changed": _changed(run.path)}
    try:
        max_steps = run.config().train.max_steps
    except UserError as error:
        return {**row, "state": f"damaged: {error}"}
    records = [record for record in read_records(run.metrics_file) if _is_plain(record)]
    losses = [record for record in records if "loss" in record]
    validations = [record for record in records if "val_loss" in record]
    saved = [step for step, _ in list_checkpoints(run.checkpoints)]
    step = max([record["step"] for record in records] + saved, default=0)
    if in_use(run.path):
        state = "running"
    else:
        state = "complete" if saved and saved[-1] >= max_steps else "stopped"
    return {
        **row,
        "state": state,
        "step": step,
        "max_steps": max_steps,
        "saved_step": saved[-1] if saved else None,
        "loss": losses[-1]["loss"] if losses else None,
        "val_loss": validations[-1]["val_loss"] if validations else None,
        "val_bits_per_byte": validations[-1].get("val_bits_per_byte") if validations else None,
        "tokens_per_second": losses[-1].get("tokens_per_second") if losses else None,
    }


def _is_plain(record: dict[str, Any]) -> bool:
    """Whether the values shown here are numbers, as linnet writes them; a run may come from anywhere."""
    shown = ("step", "loss", "val_loss", "val_bits_per_byte", "tokens_per_second")
    return all(record.get(name) is None or type(record[name]) in (int, float) for name in shown)


def _changed(path: Path) -> str:
    times = [entry.stat().st_mtime for entry in path.iterdir()] or [path.stat().st_mtime]
    return datetime.fromtimestamp(max(times)).isoformat(sep=" ", timespec="seconds")


def _print(rows: list[dict[str, Any]]) -> None:
    from linnet.cli.tables import print_table

    numbers = ("step", "loss", "val loss", "bits/byte", "tok/s")
    cells = [
        (
            row["run"],
            row["state"],
            f"{row['step']}/{row['max_steps']}" if "step" in row else "",
            _number(row.get("loss"), ".4f"),
            _number(row.get("val_loss"), ".4f"),
            _number(row.get("val_bits_per_byte"), ".4f"),
            _number(row.get("tokens_per_second"), ",.0f"),
            row["changed"],
        )
        for row in rows
    ]
    print_table(cells, ("run", "state", *numbers, "changed"), right=numbers)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
