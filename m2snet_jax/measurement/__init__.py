"""Lesions found in masks and maps: counted, measured, and compared with those of a reference."""
