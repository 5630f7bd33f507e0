"""What `linnet profile` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from linnet.cli.tables import print_table
from linnet.cli.terminal import printable

if TYPE_CHECKING:
    from linnet.study.profile import Comparison, Profile

MOST_STRETCH = 1.3  # beyond, shares of the recorded steps say little of the others
COMPILED_NOTE = (
    "Compiled: what the compiler fused into one kernel counts as a whole, with silu as feed-forward, with a softmax as "
    "attention, else as norms, rotation, residuals; what surrounds the compiled blocks, as head and loss."
)


def print_comparison(found: Comparison, place: Path, top: int) -> None:
    """Print each profile, then all of them side by side."""
    for profile in found.profiles:
        print_profile(profile, top)
        click.echo()
    for attention, reason in found.refusals.items():
        click.echo(f"attention {attention}: not possible here: {printable(reason)}\n")
    if len(found.profiles) > 1:
        _print_side_by_side(found.profiles)
        click.echo()
    traces = ", ".join(profile.trace for profile in found.profiles)
    click.echo(f"{printable(str(place))}: {traces} (open it in ui.perfetto.dev), profile.json, profile.csv")


def print_profile(profile: Profile, top: int) -> None:
    """Print the figures, the parts and the first `top` operations of one profile."""
    ways = "compiled" if profile.compiled else "eager"
    click.echo(
        f"{printable(profile.device)} | {profile.precision} | {ways} | {profile.parameters:,} parameters | "
        f"{profile.tokens_per_step:,} tokens a step"
    )
    print_table(_figures(profile))
    click.echo()
    _print_parts(profile)
    if profile.compiled:
        click.echo(COMPILED_NOTE)
    stretch = profile.profiled_seconds / profile.seconds_per_step
    if stretch > MOST_STRETCH:
        click.echo(
            f"The recorded steps took {stretch:.1f} times as long as those that were timed: the profiler weighs on so "
            "small a step, or the machine had other work; the shares are rough."
        )
    click.echo()
    _print_operations(profile, top)


def _figures(profile: Profile) -> list[tuple[str, str]]:
    low, high = min(profile.seconds), max(profile.seconds)
    rows = [
        (
            "step",
            f"{milliseconds(profile.seconds_per_step)} (median of {len(profile.seconds)}, {milliseconds(low)} to "
            f"{milliseconds(high)}); the first {milliseconds(profile.first_step_seconds)}",
        ),
        ("rate", f"{profile.tokens_per_second:,.0f} tokens/s, {giga(profile.flops_per_second)}FLOP/s"),
    ]
    if profile.peak is not None and profile.mfu is not None and profile.most_tokens_per_second is not None:
        rows.append(
            (
                "limit",
                f"{profile.most_tokens_per_second:,.0f} tokens/s, {giga(profile.peak.flops_per_second)}FLOP/s in "
                f"{profile.peak.arithmetic} products ({profile.peak.source}); reached: {profile.mfu:.1%} (MFU)",
            )
        )
    else:
        rows.append(("limit", "not known for this device, and not to be measured"))
    rows.append(("attention", f"{profile.kernel.name}: {profile.kernel.sentence}"))
    moved = profile.optimizer_bytes_per_second
    if moved is not None and profile.bandwidth is not None:
        rows.append(("optimizer", f"{giga(moved)}B/s of the {giga(profile.bandwidth)}B/s that memory moves (measured)"))
    if profile.peak_memory_bytes is not None:
        rows.append(("memory", f"{giga(profile.peak_memory_bytes)}B at most"))
    return rows


def _print_parts(profile: Profile) -> None:
    rows = [
        (
            part.name,
            milliseconds(part.seconds - part.backward_seconds),
            milliseconds(part.backward_seconds) if part.backward_seconds else "",
            f"{part.share:.1%}",
        )
        for part in profile.parts
    ]
    total = milliseconds(profile.profiled_seconds)
    rows.append(("step under the profiler", total, "", "100.0%"))
    print_table(rows, ("part", "forward", "backward", "share"), right=("forward", "backward", "share"))


def _print_operations(profile: Profile, top: int) -> None:
    rows = [
        (
            operation.name,
            operation.part,
            f"{operation.calls:,.0f}",
            milliseconds(operation.seconds),
            f"{operation.share:.1%}",
            f"{giga(operation.flops_per_second)}FLOP/s" if operation.flops_per_second else "",
        )
        for operation in profile.operations[:top]
    ]
    print_table(rows, ("operation", "part", "calls", "time", "share", "rate"), right=("calls", "time", "share", "rate"))


def _print_side_by_side(profiles: tuple[Profile, ...]) -> None:
    rows = [
        (
            profile.attention,
            profile.kernel.name,
            f"{profile.tokens_per_second:,.0f}",
            milliseconds(profile.seconds_per_step),
            f"{_share(profile, 'attention'):.1%}",
            "" if profile.peak_memory_bytes is None else f"{giga(profile.peak_memory_bytes)}B",
        )
        for profile in profiles
    ]
    columns = ("attention", "kernel", "tokens/s", "step", "in attention", "memory")
    print_table(rows, columns, right=columns[2:])


def _share(profile: Profile, name: str) -> float:
    return next(part.share for part in profile.parts if part.name == name)


def milliseconds(seconds: float) -> str:
    """`seconds` in milliseconds, with so many digits as tell something."""
    value = seconds * 1e3
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def giga(value: float) -> str:
    """`value` with three digits and a decimal prefix, for a unit to follow."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            scaled = value / size
            return f"{scaled:,.0f} {prefix}" if scaled >= 100 else f"{scaled:.3g} {prefix}"
    return f"{value:,.0f} "
