//! The program without a terminal: plans, applies, rolls back and verifies a fleet. Reports events, prints nothing and names no command line.

pub mod workerd;
