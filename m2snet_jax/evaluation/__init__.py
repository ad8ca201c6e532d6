"""From maps to scores: sheets, tables and comparisons."""
