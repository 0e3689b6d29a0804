//! flotilla: a build system for fleets of Cloudflare Workers.
//!
//! This library is the program; it promises no stable interface. Start with ARCHITECTURE.md.
#![forbid(unsafe_code)]

pub mod binding;
pub mod diagnostic;
pub mod digest;
pub mod explanation;
pub mod failure;
pub mod yaml;

pub mod schema;
pub mod spec;

pub mod customer;
pub mod limits;
pub mod names;
pub mod preview;
pub mod selection;
pub mod tags;
pub mod trace;

pub mod edit;
pub mod envfile;
pub mod layer;
pub mod pack;
pub mod project;
pub mod tree;

pub mod origin;
pub mod resolve;

pub mod escape;
pub mod render;
pub mod syntax;

pub mod bundle;
pub mod cache;
pub mod out;
pub mod progress;
pub mod runtime;
pub mod undo;

pub mod build;
pub mod check;
pub mod export;
pub mod git;
pub mod manifest;
pub mod policy;
pub mod since;
pub mod tally;

pub mod command;

pub mod clock;
pub mod pace;
pub mod platform;
pub mod state;

pub mod plan;
pub mod refresh;
pub mod safety;
pub mod secrets;
pub mod verify;

pub mod import;

pub mod cloudflare;
pub mod deploy;

pub mod local;
pub mod lock;
