"""The floors: what the same work costs without us. Written once; never made slower, never edited
in a change that makes ours faster.
"""
