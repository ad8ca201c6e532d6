"""What a config needs on machines that are not present: memory, and how it scales."""
