"""The network that turns pixels into features, and the engines that run it."""
