"""What has nothing to do with recommending: files, locks, databases, errors, configuration files."""
