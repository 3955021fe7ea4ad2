"""What is true of one network: its weights, its graph, its engines."""
