"""The worth of batches' results: scores, intervals, comparisons, and the report.

Here numbers are made of results, and pages of numbers; where results come from is the business of the commands. Nothing
here asks a daemon, writes a file, or knows of scheduling. Start with `scores`, and for the report with `page`.
"""
