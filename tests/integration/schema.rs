//! Shows: the JSON Schemas.
