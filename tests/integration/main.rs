//! The integration tests: one binary, so that there is one link. Each module says what it shows.

mod architecture;
mod cases;
mod hostile;
mod line;
mod local;
mod openapi;
mod sample;
mod schema;
mod support;
mod tools;
mod typescript;
mod wrangler;
