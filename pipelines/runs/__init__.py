"""A run of one step over the shards of a plan: what is pending, what failed, and whatever dies on the way."""
