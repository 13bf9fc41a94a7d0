"""A process of headrace: its loop and its end, its log, its admin port, and several of them under one parent."""
