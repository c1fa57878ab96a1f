"""`mvptr-train plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mvptr_model.training.plan import Plan, StagePlan


@click.command("plan")
@click.argument("config")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option("--ranks", type=click.IntRange(1), default=1, show_default=True, help="Devices that the run will have.")
@click.option(
    "--device-memory", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="Memory of each of them."
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    help="10^12 operations a second that a device really does: tells the time.",
)
@click.option("--resume", default="auto", show_default=True, metavar="auto|never|CHECKPOINT", help="As of `pretrain`.")
@click.pass_context
def plan_command(
    ctx: click.Context,
    config: str,
    changes: tuple[str, ...],
    ranks: int,
    device_memory: float | None,
    tflops: float | None,
    resume: str,
) -> None:
    """Say what a pre-training run would take, and what stands in its way, before a cluster is asked.

    CONFIG and KEY=VALUE are those of `pretrain`. Data sets, vocabularies, initial weights and the output are looked at as the
    run will; a few samples go through the model here, to count activations. All problems are listed; with any, the exit code
    is 1. Nothing is written, but caches of what is remote.

    \b
    Example:
      mvptr-train plan paper.yaml --ranks 8 --device-memory 80
    """
    from mvptr_model.training.plan import plan
    from mvptr_model.training.settings_file import read_settings

    found = plan(
        read_settings(config, changes),
        ranks=ranks,
        device_bytes=None if device_memory is None else round(device_memory * 1e9),
        resume=resume,
    )
    for line in plan_lines(found, tflops):
        click.echo(line)
    for problem in found.problems:
        click.echo(f"problem: {problem}", err=True)
    if found.problems:
        ctx.exit(1)


def plan_lines(found: Plan, tflops: float | None) -> list[str]:
    """The plan for people; with `tflops` of a device, the hours, too."""
    from mvptr_model.training.plan import gigabytes

    lines = [
        f"data       {one.root}: {one.captions:,} captions of {one.samples:,} images, {gigabytes(one.bytes)}"
        for one in found.data
    ]
    lines += [f"initial    {note}" for note in found.notes]
    if found.parameters:
        lines.append(f"model      {sum(found.parameters.values()):>13,} parameters")
        lines += [f"           {count:>13,} {part}" for part, count in found.parameters.items()]
    for stage in found.stages:
        lines += _stage_lines(stage, found.ranks, tflops)
    if found.checkpoint_bytes is not None:
        lines.append(f"disk       {gigabytes(found.checkpoint_bytes)} a checkpoint, about")
    return lines


def _stage_lines(stage: StagePlan, ranks: int, tflops: float | None) -> list[str]:
    from mvptr_model.training.plan import gigabytes
    from pipelines.console import duration

    memory = stage.memory
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "gradients to be reduced": memory.reducing,
        "activations": memory.activations,
        "optimizer's step": memory.stepping,
    }
    seconds = stage.flops / (tflops * 1e12 * ranks) if tflops else 0
    hours = f", {duration(seconds)} at {tflops:g} TFLOP/s a rank" if tflops else ""
    return [
        f"stage {stage.stage}    {stage.steps:,} steps ({stage.batches:,} an epoch), {stage.warm_up:,} of them warm-up; "
        f"{stage.pairs:,} pairs, {stage.micro_batch:,} at a time on each of {ranks:,} ranks",
        f"           {stage.flops / stage.pairs / 1e9:,.1f} GFLOPs a pair, {stage.flops / 1e15:,.1f} PFLOPs{hours}",
        f"           {stage.learned:,} parameters learned; at most {gigabytes(memory.most)} a rank:",
        f"           {', '.join(f'{name} {gigabytes(count)}' for name, count in parts.items() if count)}",
    ]
