//! Shows: what people write wrong is told, all of it at once, and changes nothing.
