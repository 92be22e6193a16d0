"""What people would use instead, each in its best documented form, each in a file of its own with its source."""
