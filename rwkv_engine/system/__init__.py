"""The machine: processor, memory pages, files and folders, supported systems."""
