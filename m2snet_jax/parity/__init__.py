"""Parity with the released program: its golden values, the outcomes here, their differences and tolerances."""
