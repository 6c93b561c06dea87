"""Running a bundle as client, evaluator or key custodian."""
