"""A run on a cluster, from its start to its end."""
