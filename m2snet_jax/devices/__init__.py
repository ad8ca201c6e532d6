"""Devices, processes, compiled programs and memory of a computer."""
