"""Table tests of policies: the cases, their report for a build server, and the file to begin with."""
