"""Places that allow everything that a test makes."""

from headrace.model.places import places_of

ANYWHERE = places_of(("/", "memory://", "s3://headrace-test", "s3://headrace-absent", "s3://bucket"), "the test")
