"""What lies on a disk becomes uint8 RGB, levels or maps, and back."""
