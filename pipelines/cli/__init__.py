"""The `mvptr-data` command, a file for each word; each calls one function of `pipelines`."""

from pipelines.cli.add import add_command
from pipelines.cli.build_phrase_vocab import build_phrase_vocab_command
from pipelines.cli.demo import demo_command
from pipelines.cli.estimate import estimate_command
from pipelines.cli.export import export_command
from pipelines.cli.export_phrase_vocab import export_phrase_vocab_command
from pipelines.cli.extract_regions import extract_regions_command
from pipelines.cli.failures import failures_command
from pipelines.cli.gc import gc_command
from pipelines.cli.group import main
from pipelines.cli.import_tsv import import_tsv_command
from pipelines.cli.info import info_command
from pipelines.cli.inspect import inspect_command
from pipelines.cli.merge_phrase_vocabs import merge_phrase_vocabs_command
from pipelines.cli.phrase_stats import phrase_stats_command
from pipelines.cli.status import status_command
from pipelines.cli.verify import verify_command
from pipelines.cli.write_shards import write_shards_command

for _command in (  # in the order of the work
    demo_command,
    estimate_command,
    extract_regions_command,
    import_tsv_command,
    add_command,
    status_command,
    failures_command,
    build_phrase_vocab_command,
    merge_phrase_vocabs_command,
    phrase_stats_command,
    export_phrase_vocab_command,
    write_shards_command,
    verify_command,
    info_command,
    inspect_command,
    export_command,
    gc_command,
):
    main.add_command(_command)

__all__ = ["main"]
