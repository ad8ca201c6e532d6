"""Every format that holds parameters."""

from m2snet_jax.weights.names import load_state_dict, state_dict

__all__ = ['load_state_dict', 'state_dict']
