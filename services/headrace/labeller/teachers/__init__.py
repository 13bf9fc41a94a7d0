"""Teachers: what gives texts soft labels. :mod:`headrace.labeller.teachers.interface` says what a teacher is.

`encoder` is a pretrained transformer, `endpoint` any OpenAI-compatible address, `program` any command. What is heavy is
imported when a teacher is opened.
"""
