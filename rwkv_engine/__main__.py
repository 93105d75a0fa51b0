"""`python -m rwkv_engine` is the command `rwkv`."""

from rwkv_engine_cli.app import main

if __name__ == "__main__":
    main()
