"""The compilation cache of the test run, kept between runs: a program that was compiled once is only read."""

from pathlib import Path

CACHE = str(Path(__file__).resolve().parents[1] / '.pytest_cache' / 'jax')
