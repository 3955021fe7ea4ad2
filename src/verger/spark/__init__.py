"""The stages that run on Spark."""
