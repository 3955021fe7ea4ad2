"""What is known of each format beyond what its decoder does."""
