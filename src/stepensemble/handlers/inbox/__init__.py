"""The inbox: `receive` reads an object that was uploaded, `deliver` writes the response."""
