"""The tags of all that verger makes on AWS."""

TAGS = {
    "application": "verger",
    # AWS' own policy for EMR's service role lets it touch only what has this tag.
    "for-use-with-amazon-emr-managed-policies": "true",
}
"""On all that the stack makes. A cluster needs both tags, or its roles may not touch it."""
