// Writes nothing.
