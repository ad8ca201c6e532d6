"""Variants of one config on several seeds and folds, and what differs between them."""
