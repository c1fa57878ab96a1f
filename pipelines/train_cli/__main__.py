"""`python -m pipelines.train_cli`."""

from pipelines.train_cli import main

main()
