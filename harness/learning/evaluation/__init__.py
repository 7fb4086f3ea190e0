"""Students that evaluators train in ways of their own, and what is measured of students."""
