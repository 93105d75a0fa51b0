"""The machine underneath: processor, memory pages, files and folders, what is supported."""
