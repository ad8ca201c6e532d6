"""The networks and losses: arrays in, arrays out."""
