"""The self-contained page of a run."""

from m2snet_jax.report.page import write_report

__all__ = ['write_report']
