"""Infrastructure: files, locks, key-value store, environment, configuration files, errors."""
