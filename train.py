"""`python -m m2snet_jax train` under the name that users type."""

import sys

from m2snet_jax.commands.train import main

if __name__ == '__main__':
    sys.exit(main(sys.argv))
