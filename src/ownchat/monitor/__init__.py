"""Metrics and events of a run, and what a person sees of them while they wait."""
