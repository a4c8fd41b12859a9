"""The parts of bench/compare.py: processes and their cost, the peers' configurations, the load."""
