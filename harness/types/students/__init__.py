"""What is measured of students."""
