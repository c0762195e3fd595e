"""Stages over whole catalogues and all users: batches of Arrow rows in, batches of Arrow rows out."""
