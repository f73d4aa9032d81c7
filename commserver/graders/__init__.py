"""From what a teacher wrote to an `ExecutionRequest`, and from its report to a `Verdict`."""
