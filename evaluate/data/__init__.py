"""Datasets: a catalogue and its interactions."""
