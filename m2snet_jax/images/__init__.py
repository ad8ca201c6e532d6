"""What lies on a disk becomes uint8 RGB, levels or maps, and back."""

from m2snet_jax.images.formats import read_image, read_map, read_mask

__all__ = ['read_image', 'read_map', 'read_mask']
