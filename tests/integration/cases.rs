//! Shows: golden cases: a small project, a command, what it prints.
