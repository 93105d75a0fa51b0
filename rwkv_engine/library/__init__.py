"""The user's models: the model hub, the registry, the known names."""
