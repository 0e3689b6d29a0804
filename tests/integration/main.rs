//! The integration tests: one binary, so that there is one link. Each module says what it shows.

mod architecture;
mod bad_input;
mod cases;
mod codes;
mod commands;
mod faults;
mod fleet;
mod formats;
mod generated;
mod hostile;
mod init;
mod line;
mod local;
mod openapi;
mod pack;
mod progress;
mod sample;
mod schema;
mod secrets;
mod selecting;
mod since;
mod support;
mod tools;
mod typescript;
mod watch;
mod wrangler;
