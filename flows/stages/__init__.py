"""What makes a function a stage: its cache key, its child process, its Prefect task.

The one place where Prefect and the work packages meet; the work packages know nothing of it.
"""
