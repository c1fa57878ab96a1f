"""The `mvptr-data` group: version, help, and errors as one clear line."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from mvptr_data.dataset.layout import FORMATS
from mvptr_data.errors import MvptrError
from mvptr_data.version import __version__


class Group(click.Group):
    """Lists commands in the order of the work, and shows errors of ours as one clear line, without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for argument in args:  # those of the command as well: nothing that is written could name them
            if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
                raise click.ClickException(f"the argument {argument!r} is not UTF-8. Give it in UTF-8.")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            signal.signal(signal.SIGTERM, _stop)  # what Slurm and containers send ends a run as Ctrl-C does
            return super().invoke(ctx)
        except MvptrError as error:
            if error.exit_code == 1:
                raise click.ClickException(str(error)) from error
            click.echo(str(error), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Stopped. The same command goes on from here.", err=True)
            ctx.exit(130)
        except PermissionError as error:
            raise click.ClickException(f"no permission for {error.filename!r}. Check its owner and mode.") from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _readers_left():
                ctx.exit(128 + signal.SIGPIPE)
            message = f"{error.strerror}: {error.filename or ''}".rstrip(": ") if error.strerror else str(error)
            raise click.ClickException(message or type(error).__name__) from error


def _readers_left() -> bool:
    """Whether nobody reads our output any more (`| head`); what is still unwritten is then dropped without a word."""
    left = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # it is closed, or no file of the system
            descriptor, poll = stream.fileno(), select.poll()
            poll.register(descriptor, 0)
            if poll.poll(0):  # asked for nothing, it tells nothing but errors
                left = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return left


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def version_option(
    program: str, formats: Callable[[], Mapping[str, tuple[int, Collection[int]]]]
) -> Callable[[Any], Any]:
    """`--version`, which also tells of each of the `formats` which version is written and which are read."""

    def tell(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if not wanted or ctx.resilient_parsing:
            return
        click.echo(f"{program} {__version__}")
        for name, (written, readable) in formats().items():
            click.echo(f"  {name}: writes version {written}, reads {', '.join(map(str, sorted(readable)))}")
        ctx.exit()

    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=tell,
        help="Show the version and the formats it writes and reads.",
    )


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("mvptr-data", lambda: FORMATS)
def main() -> None:
    """From images and captions to aligned WebDataset shards for MVPTR.

    \b
      mvptr-data extract-regions photos/ coco
      mvptr-data build-phrase-vocab captions.json coco --min-sentences 50
      mvptr-data write-shards coco
      mvptr-data verify coco
    """
