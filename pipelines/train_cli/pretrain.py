"""`mvptr-train pretrain`."""

from __future__ import annotations

import os

import click


@click.command("pretrain")
@click.argument("config")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE ...]")
@click.option(
    "--resume",
    default="auto",
    show_default=True,
    metavar="auto|never|CHECKPOINT",
    help="Go on from the newest sound checkpoint in the output; begin anew, in an empty output; or go back to this one, and "
    "remove what was made after it: learning_rate, warm_up, clipping and weight_decay may then differ.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def pretrain_command(ctx: click.Context, config: str, changes: tuple[str, ...], resume: str, quiet: bool) -> None:
    """Pre-train MVPTR in two stages, on one device or many.

    CONFIG is a YAML file; pipelines/recipes/pretrain-paper.yaml has every key with the paper's value. KEY=VALUE changes one of
    them, with dots between the names. Started again, the command goes on where it was, also on another number of
    devices. SIGTERM and Ctrl-C save and end it, with 143 and 130 as exit code.

    \b
    Examples:
      mvptr-train pretrain paper.yaml output=runs/small batches.global_batch=64 stages.0.epochs=1
      mvptr-train pretrain paper.yaml --resume runs/paper/checkpoints/stage-1-step-00009000 stages.0.learning_rate=5e-5
      torchrun --nproc-per-node 8 --no-python mvptr-train pretrain paper.yaml
      deepspeed --no_python mvptr-train pretrain paper.yaml
    """
    import torch

    from mvptr_data.errors import MvptrError
    from mvptr_model.allocation import keep_freed_memory
    from mvptr_model.training.pretrain import pretrain
    from mvptr_model.training.processes import StoppedError, ToldError, told_of_lost_ranks
    from mvptr_model.training.settings_file import read_settings
    from pipelines.console import reporting
    from pipelines.train_cli.progress import TrainingProgress

    rank = int(os.environ.get("RANK", "0"))
    try:
        settings = read_settings(config, changes)
    except MvptrError:
        if int(os.environ.get("LOCAL_RANK", "0")):
            ctx.exit(1)  # the first rank of each machine says it: the file may be missing on one
        raise
    if not torch.cuda.is_available():
        keep_freed_memory()
    try:
        with reporting(quiet=quiet or rank > 0) as reporter, told_of_lost_ranks():
            folder = pretrain(settings, resume=resume, listener=TrainingProgress(reporter, settings.output))
    except ToldError:
        ctx.exit(1)
    except StoppedError as stop:
        if rank:
            ctx.exit(stop.exit_code)
        raise
    except MvptrError as error:
        raise click.ClickException(f"rank {rank}: {error}" if rank else str(error)) from error
    if rank == 0:
        click.echo(folder)
