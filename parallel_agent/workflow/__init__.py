"""The workflow agents: sequential, parallel, loop. They nest freely and do not know each other."""
