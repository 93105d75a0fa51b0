"""The command `rwkv`: one file per verb. A verb parses, calls the library once, and prints."""
