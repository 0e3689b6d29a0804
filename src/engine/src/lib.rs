//! The program without a terminal: plans, applies, rolls back, previews and verifies a fleet. Reports events to an operator; prints nothing and names no command line.

pub mod accounts;
pub mod addresses;
mod apply;
mod approval;
pub mod build_fleet;
pub mod cloud;
pub mod context;
pub mod credentials;
pub mod databases;
pub mod deploy_fleet;
pub mod destroy;
pub mod destroy_target;
pub mod health;
pub mod implied;
mod lanes;
mod left_out;
pub mod live_secrets;
pub mod logs;
pub mod operator;
pub mod plan_file;
pub mod plan_view;
pub mod planning;
pub mod preflight;
pub mod previews;
pub mod prune;
pub mod rebuild;
pub mod refresh;
pub mod requests;
pub mod rollback;
mod secret_needs;
mod secret_upload;
pub mod selection;
mod upload;
pub mod verification;
pub mod workerd;

pub use apply::RunKind;
