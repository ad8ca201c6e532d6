"""`python -m m2snet_jax train` under the name that users type."""

import sys

from m2snet_jax.devices.memory import restart_with_huge_pages

if __name__ == '__main__':
    restart_with_huge_pages()
    from m2snet_jax.commands import prompt_exit
    from m2snet_jax.commands.train import main

    with prompt_exit():
        sys.exit(main(sys.argv))
