"""Pages and texts for people: the report of a run, the card of its model, pictures of duplicates and features."""

from m2snet_jax.report.card import write_card
from m2snet_jax.report.page import write_report

__all__ = ['write_card', 'write_report']
