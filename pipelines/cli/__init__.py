"""The `mvptr-data` command, a file for each word; each calls one function of `pipelines`."""

from pipelines.cli.build_phrase_vocab import build_phrase_vocab_command
from pipelines.cli.demo import demo_command
from pipelines.cli.extract_regions import extract_regions_command
from pipelines.cli.group import main
from pipelines.cli.info import info_command
from pipelines.cli.inspect import inspect_command
from pipelines.cli.verify import verify_command
from pipelines.cli.write_shards import write_shards_command

for _command in (
    extract_regions_command,
    build_phrase_vocab_command,
    write_shards_command,
    verify_command,
    info_command,
    inspect_command,
    demo_command,
):
    main.add_command(_command)

__all__ = ["main"]
