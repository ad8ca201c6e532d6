"""Parity with the released program: its golden values, our outcomes, how far they are apart, and what may be."""
