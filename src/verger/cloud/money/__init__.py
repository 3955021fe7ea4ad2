"""Prices, plans and alarms."""
