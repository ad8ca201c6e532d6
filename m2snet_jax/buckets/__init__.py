"""Buckets of Google Cloud Storage: what lies at gs:// is read and written through copies on this computer."""

from m2snet_jax.buckets.bucket_lock import lock
from m2snet_jax.buckets.copies import LOCK, address_of, copy_of, is_address, with_addresses
from m2snet_jax.buckets.fetching import fetch, refetch
from m2snet_jax.buckets.uploads import finish, publish

__all__ = [
    'LOCK',
    'address_of',
    'copy_of',
    'fetch',
    'finish',
    'is_address',
    'lock',
    'publish',
    'refetch',
    'with_addresses',
]
