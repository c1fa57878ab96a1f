"""The `mvptr-train` command, a file for each word."""

from __future__ import annotations

import os

import click

from pipelines.cli.group import Group, version_option
from pipelines.train_cli.export_official import export_official_command
from pipelines.train_cli.import_official import import_official_command
from pipelines.train_cli.plan import plan_command
from pipelines.train_cli.plot import plot_command
from pipelines.train_cli.pretrain import pretrain_command
from pipelines.train_cli.train_word_pieces import train_word_pieces_command


def _formats() -> dict[str, tuple[int, set[int]]]:
    from mvptr_model.saved_model import MODEL_VERSION
    from mvptr_model.training.checkpoints import CHECKPOINT_VERSION
    from mvptr_model.training.settings_file import SETTINGS_VERSION

    versions = {"model": MODEL_VERSION, "checkpoint": CHECKPOINT_VERSION, "settings": SETTINGS_VERSION}
    return {name: (version, {version}) for name, version in versions.items()}


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("mvptr-train", _formats)
@click.option("--local_rank", type=int, hidden=True, help="What the deepspeed launcher passes on.")
def main(local_rank: int | None) -> None:
    """From published shards to a pre-trained MVPTR model.

    \b
      mvptr-train pretrain paper.yaml data='[coco]' output=runs/paper
      torchrun --nproc-per-node 8 --no-python mvptr-train pretrain paper.yaml data='[coco]' output=runs/paper
    """
    if local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(local_rank))


for _command in (  # in the order of the work
    train_word_pieces_command,
    import_official_command,
    plan_command,
    pretrain_command,
    plot_command,
    export_official_command,
):
    main.add_command(_command)

__all__ = ["main"]
