"""The command `rwkv`: one file for each verb. A verb parses, calls the library once, and prints."""
