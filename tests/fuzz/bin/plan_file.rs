//! Runs the target `plan_file` under cargo-fuzz.

#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "a program runs one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::plan_file(bytes));
