"""Bytes here and on S3: places, one atomic write, listings, locks, and the one door to AWS."""
