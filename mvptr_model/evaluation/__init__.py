"""What a model learned, measured on a published data set that it did not learn from."""
