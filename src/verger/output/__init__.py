"""What an output folder holds: names, schemas, the manifest, and its tables."""
