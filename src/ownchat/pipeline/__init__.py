"""Stages in order, and what needs several of them: previews, the demo, the list of runs, the doctor."""
