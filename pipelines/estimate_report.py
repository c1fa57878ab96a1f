"""An estimate as lines for people: what was measured, what is scaled from it, and how sure that is."""

from __future__ import annotations

import math

from pipelines.console import duration
from pipelines.estimate import Estimate, Interval

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def render_estimate(found: Estimate) -> str:
    """Lines under two headings, measured and scaled."""
    worker = (
        f"{found.threads} compute and {found.decode_threads} decoding threads"
        if found.device_memory_mb is None
        else f"{found.device} and {found.decode_threads} decoding threads"
    )
    phases = ", ".join(
        f"{name} {_milliseconds(found.seconds[name])} ({_share(found, name)})" for name in ("decode", "detect", "write")
    )
    waiting = " and ".join(name for name in ("decode", "detect", "write") if name != found.bound)
    memory = f"{found.memory_mb:,.0f} MB at the most" + (
        f", and {found.device_memory_mb:,.0f} MB of the device's" if found.device_memory_mb is not None else ""
    )
    drawn = (
        f"{found.sampled:,} of {found.listed:,} inputs, drawn uniformly"
        if found.whole_listing
        else f"{found.sampled:,} of the first {found.listed:,} inputs listed; the rest was not looked at and may differ"
    )
    stored = found.storage_bytes
    lines = [
        "measured, on a sample of the input",
        f"  sample    {drawn}",
        f"  worker    {worker}; {duration(found.load_seconds)} to load the detector",
        f"  time      {_milliseconds(found.seconds['total'])} an input with the phases overlapping "
        f"({1 / found.seconds['total']:,.1f} inputs/s)",
        f"  phases    {phases}",
        f"  bound by  {found.bound}: {waiting} wait for it",
        f"  memory    {memory}",
        f"  found     {found.ok:,} with regions, {found.regions_per_image:,.1f} regions each",
        "",
        f"scaled to {found.images:,} inputs",
        *(
            f"  {'time' if devices == 1 else '':<9} {_hours(hours):>9} with {devices} such worker{'s' * (devices > 1)}"
            for devices, hours in found.hours.items()
        ),
        f"  storage   {_bytes(stored.expected)} in {found.shards:,} shard{'s' * (found.shards > 1)} of "
        f"{found.samples_per_shard:,}" + _between(_bytes(stored.low), _bytes(stored.high)),
    ]
    for name, interval in found.faults.items():
        lines.append(f"  faults    {name} {_count(interval)}")
    if found.unseen_faults:
        lines.append(f"  faults    any class not seen in the sample: fewer than {math.ceil(found.unseen_faults):,}")
    elif not found.faults:
        lines.append("  faults    none")
    lines += [
        "",
        "Times assume that each worker has such a machine or device to itself and that the storage keeps up with all of them.",
        "Ranges are 95 % intervals of sampling alone. Inputs with one key (duplicates) show up only in the whole.",
    ]
    return "\n".join(lines)


def _share(found: Estimate, name: str) -> str:
    return f"{found.seconds[name] / (sum(found.seconds.values()) - found.seconds['total'] or 1):.0%}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _hours(hours: float) -> str:
    if hours < 1:
        return duration(3600 * hours)
    return f"{hours:,.1f} h" if hours < 72 else f"{hours / 24:,.1f} days"


def _bytes(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} {_UNITS[-1]}"


def _count(interval: Interval) -> str:
    return f"{interval.expected:,.0f}" + _between(f"{interval.low:,.0f}", f"{math.ceil(interval.high):,}")


def _between(low: str, high: str) -> str:
    return f" ({low} to {high})" if low != high else ""
