//! The integration tests: one binary, so that there is one link. Each module says what it shows.

mod architecture;
mod bad_input;
mod cases;
mod commands;
mod faults;
mod fleet;
mod hostile;
mod incremental;
mod interrupted;
mod line;
mod local;
mod openapi;
mod pack;
mod roles;
mod sample;
mod schema;
mod secrets;
mod support;
mod thousands;
mod tools;
mod typescript;
mod wrangler;
