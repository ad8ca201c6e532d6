"""The self-contained page of a run, and the card of its model."""

from m2snet_jax.report.card import write_card
from m2snet_jax.report.page import write_report

__all__ = ['write_card', 'write_report']
