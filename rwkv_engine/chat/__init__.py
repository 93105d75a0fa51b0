"""Conversations that are kept: a folder with a database of what was said, and the states to go on from."""

from rwkv_engine.chat.database import Info
from rwkv_engine.chat.export import as_json, as_markdown
from rwkv_engine.chat.session import Session, carried
from rwkv_engine.chat.store import Store, data_folder

__all__ = ["Info", "Session", "Store", "as_json", "as_markdown", "carried", "data_folder"]
