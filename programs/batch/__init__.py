"""Batch interfaces of providers: questions are recorded, submitted as jobs, and replayed from the response cache.

A wave runs the program with the answers there are and records the others' questions (`recording.py`). They are written
to files (`job_files.py`), kept in a table (`job_table.py`), and submitted in a provider's dialect; the answers are
judged line by line (`line_answers.py`) and put into the response cache (`job_keeper.py`). `run.py` repeats that until
nothing is pending.
"""
